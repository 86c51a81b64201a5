"""The graph's preprocessing beside 🤗's own, for every kind of image and processor."""

import pytest

pytestmark = pytest.mark.model

PROCESSORS = {
    "vit-bilinear": 1.0,
    "vit-bicubic": 1.0,
    "vit-nearest": 0.0,
    "vit-lanczos": 2.0,
    "deit-crop": 1.0,
    "convnext-small": 1.0,
    "convnext-large": 2.0,
    "mobilevit": 1.0,
}


@pytest.mark.parametrize(("processor", "levels"), PROCESSORS.items())
def test_graph_agrees_with_the_processor_on_every_image(preprocess_trial, processor, levels):
    """JPEG, PNG, GIF and BMP of any colours and sizes: no pixel is further off than rounding, few are off at all."""
    trial = preprocess_trial[processor]
    assert len(trial) == 23
    for image, (largest, mean) in trial.items():
        assert largest <= levels + 0.01, image
        assert mean < 0.2, image


def test_every_trial_is_judged(preprocess_trial):
    """No processor of the trial is left out above."""
    assert set(PROCESSORS) == set(preprocess_trial)
