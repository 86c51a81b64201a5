"""The server prepares images as 🤗's processors do."""

import pytest

pytestmark = pytest.mark.model

PROCESSORS = ["Beit", "Bit", "CLIP", "ConvNext", "DeiT", "EfficientNet", "Levit", "MobileNetV1", "MobileNetV2", "MobileViT", "PPLCNet",
              "Perceiver", "PoolFormer", "Pvt", "Segformer", "Siglip", "TimmWrapper", "ViT"]  # fmt: skip
ROUNDING = 1e-4  # of a level: torchvision joins rescale and normalise into one step


@pytest.mark.parametrize("processor", PROCESSORS)
def test_values_are_those_of_both_classes(pixels_trial, processor):
    """Slow processors, on PIL, and fast ones, on torchvision, are computed exactly, each in its own way."""
    found = pixels_trial["levels"][processor]
    assert found
    for library, (levels, share) in found.items():
        assert levels <= ROUNDING, library
        assert share == 0


def test_every_processor_is_tested(pixels_trial):
    """The list above is that of all processors whose steps are known."""
    assert sorted(pixels_trial["levels"]) == PROCESSORS


def test_server_knows_every_step(pixels_trial):
    """The server reads each kind of step that the exporter may write, with the same settings."""
    assert all(pixels_trial["understood"].values()), pixels_trial["understood"]
