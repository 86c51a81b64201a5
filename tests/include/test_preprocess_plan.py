"""The steps of a 🤗 image processor, read from its config."""

import pytest
from errors import ExportRefused
from preprocess import CenterCrop, FlipChannels, Normalise, Rescale, Resize, ResizeShortestEdge, plan_preprocess

HALF = [0.5, 0.5, 0.5]
NUMBERS = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": HALF, "image_std": HALF}
SQUARE = {"do_resize": True, "size": {"height": 224, "width": 200}, "resample": 2}
RESCALE = Rescale(factor=1 / 255)
NORMALISE = Normalise(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("processor", "config", "expected"),
    [
        (
            "ViTImageProcessor",
            {**SQUARE, **NUMBERS},
            (Resize(height=224, width=200, filter="bilinear"), RESCALE, NORMALISE),
        ),
        (
            "ViTImageProcessorFast",
            {**SQUARE, "resample": 3},
            (Resize(height=224, width=200, filter="bicubic"),),
        ),
        ("ViTImageProcessor", {**SQUARE, "size": 48, "resample": 4}, (Resize(height=48, width=48, filter="box"),)),
        (
            "DeiTImageProcessor",
            {
                "do_resize": True,
                "size": {"height": 256, "width": 256},
                "resample": 3,
                "do_center_crop": True,
                "crop_size": {"height": 224, "width": 224},
                **NUMBERS,
            },
            (
                Resize(height=256, width=256, filter="bicubic"),
                CenterCrop(height=224, width=224),
                RESCALE,
                NORMALISE,
            ),
        ),
        (
            "ConvNextImageProcessor",
            {"do_resize": True, "size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3},
            (ResizeShortestEdge(edge=256, filter="bicubic"), CenterCrop(height=224, width=224)),
        ),
        (
            "ConvNextImageProcessor",
            {"do_resize": True, "size": {"shortest_edge": 384}, "crop_pct": 0.875, "resample": 3},
            (Resize(height=384, width=384, filter="bicubic"),),
        ),
        (
            "MobileViTImageProcessor",
            {
                "do_resize": True,
                "size": {"shortest_edge": 288},
                "resample": 2,
                "do_center_crop": True,
                "crop_size": {"height": 256, "width": 256},
                "do_rescale": True,
                "rescale_factor": 1 / 255,
                "do_flip_channel_order": True,
            },
            (
                ResizeShortestEdge(edge=288, filter="bilinear"),
                CenterCrop(height=256, width=256),
                RESCALE,
                FlipChannels(),
            ),
        ),
    ],
)
def test_processor_config_becomes_steps(processor, config, expected):
    """The plan has the processor's steps in the processor's order."""
    assert expected == plan_preprocess(processor, config)


@pytest.mark.parametrize(
    ("processor", "config", "message"),
    [
        ("CLIPImageProcessor", {}, "the image processor CLIPImageProcessor is not supported"),
        ("ViTImageProcessor", {**SQUARE, "resample": 9}, "resample 9 is not supported"),
        ("ViTImageProcessor", {**SQUARE, "size": {"longest_edge": 9}}, "size {'longest_edge': 9} is not supported"),
        ("ViTImageProcessor", {**SQUARE, "size": {"shortest_edge": 9}}, "size {'shortest_edge': 9} is not supported"),
        ("ConvNextImageProcessor", SQUARE, "size {'height': 224, 'width': 200} is not supported"),
        ("ViTImageProcessor", {**NUMBERS, "do_resize": False}, "neither do_resize"),
        ("ViTImageProcessor", {**SQUARE, **NUMBERS, "image_mean": [0.5]}, "image_mean has 1 values"),
        (
            "DeiTImageProcessor",
            {**SQUARE, "do_center_crop": True, "crop_size": {"height": 256, "width": 256}},
            "crop_size 256x256 is larger than the resized image",
        ),
    ],
)
def test_what_the_graph_cannot_do_is_refused(processor, config, message):
    """A processor or setting that the graph does not support is refused by name, never approximated."""
    with pytest.raises(ExportRefused) as refused:
        plan_preprocess(processor, config)
    assert message in str(refused.value)
