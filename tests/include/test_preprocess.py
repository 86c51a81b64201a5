"""The graph's preprocessing compared with 🤗's, for every kind of image and processor."""

import pytest

pytestmark = pytest.mark.model

CMYK = "JPEG, CMYK: "
SHARPENING = {"vit-bicubic", "vit-lanczos", "deit-crop"}
PROCESSORS = {
    "vit-bilinear": 0,
    "vit-bicubic": 0,
    "vit-nearest": 0,
    "vit-lanczos": 0,
    "vit-box": 0,
    "vit-hamming": 1,  # its cosine differs from the C library's in the last bit: a weight in a million, a pixel in a thousand
    "vit-own-numbers": 0,
    "vit-bare": 0,
    "deit-crop": 0,
    "convnext-small": 0,
    "convnext-large": 0,
    "mobilevit": 0,
}


@pytest.mark.parametrize(("processor", "levels"), PROCESSORS.items())
def test_graph_agrees_with_the_processor_on_every_image(preprocess_trial, processor, levels):
    """For JPEG, PNG, GIF, BMP and WebP of any colours, sizes and orientation, every value is equal to the last bit."""
    trial = {image: largest for image, largest in preprocess_trial[processor].items() if CMYK not in image}
    assert len(trial) > 80
    assert {image: largest for image, largest in trial.items() if largest > levels + (levels and 1e-3)} == {}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_graph_is_near_the_processor_on_cmyk(preprocess_trial, processor):
    """TensorFlow's decoder truncates where PIL rounds: one level, or up to three after a filter that sharpens."""
    found = {largest for image, largest in preprocess_trial[processor].items() if CMYK in image}
    assert 1 <= round(max(found), 3) <= (3 if processor in SHARPENING else 1)


def test_every_processor_is_tested(preprocess_trial):
    """The tests above cover every processor of the trial."""
    assert set(PROCESSORS) == set(preprocess_trial)
