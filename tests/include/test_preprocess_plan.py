"""The steps of a 🤗 image processor, read from its config."""

import pytest
from errors import ExportRefused
from processor import CenterCrop, FlipChannels, Normalise, Rescale, Resize, ResizeShortestEdge, Shift, plan_preprocess

HALF = [0.5, 0.5, 0.5]
NUMBERS = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": HALF, "image_std": HALF}
SQUARE = {"do_resize": True, "size": {"height": 224, "width": 200}, "resample": 2}
SHORT = {"do_resize": True, "size": {"shortest_edge": 224}, "resample": 3, "do_center_crop": True,
         "crop_size": {"height": 224, "width": 224}}  # fmt: skip
CROP = CenterCrop(height=224, width=224)
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
        ("CLIPImageProcessor", SHORT, (ResizeShortestEdge(edge=224, filter="bicubic"), CROP)),
        (
            "BitImageProcessorFast",
            {**SHORT, **NUMBERS},
            (ResizeShortestEdge(edge=224, filter="bicubic"), CROP, RESCALE, NORMALISE),
        ),
        (
            "MobileNetV2ImageProcessorPil",
            {**SHORT, "size": {"shortest_edge": 256}},
            (ResizeShortestEdge(edge=256, filter="bicubic"), CROP),
        ),
        ("SiglipImageProcessor", {**SQUARE, "crop_size": None}, (Resize(height=224, width=200, filter="bilinear"),)),
        (
            "SegformerImageProcessor",
            {"do_resize": True, "size": {"height": 224, "width": 200, "shortest_edge": None}, "resample": 2},
            (Resize(height=224, width=200, filter="bilinear"),),
        ),
        ("LevitImageProcessor", SHORT, (ResizeShortestEdge(edge=256, filter="bicubic"), CROP)),
        (
            "PoolFormerImageProcessor",
            {**SHORT, "crop_pct": 0.9},
            (ResizeShortestEdge(edge=248, filter="bicubic"), CROP),
        ),
        (
            "PoolFormerImageProcessor",
            {**SHORT, "size": {"height": 224, "width": 224}, "crop_pct": 0.875},
            (ResizeShortestEdge(edge=256, filter="bicubic"), CROP),
        ),
        (
            "PoolFormerImageProcessor",
            {**SHORT, "size": {"height": 270, "width": 240}, "crop_pct": 0.9},
            (Resize(height=300, width=266, filter="bicubic"), CROP),
        ),
        (
            "PoolFormerImageProcessor",
            {**SHORT, "size": {"height": 240, "width": 240}, "crop_pct": None},
            (Resize(height=240, width=240, filter="bicubic"), CROP),
        ),
        (
            "EfficientNetImageProcessor",
            {**SQUARE, **NUMBERS, "rescale_factor": 1 / 127.5, "rescale_offset": True, "include_top": True},
            (
                Resize(height=224, width=200, filter="bilinear"),
                Rescale(factor=1 / 127.5),
                Shift(offset=-1.0),
                NORMALISE,
                Normalise(mean=(0.0, 0.0, 0.0), std=(0.5, 0.5, 0.5)),
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
        ("LlavaImageProcessor", {}, "the image processor LlavaImageProcessor is not supported. Next: "),
        ("ImageGPTImageProcessor", {}, "ImageGPTImageProcessor is not supported: it outputs numbers of colours"),
        ("CLIPImageProcessor", {**SHORT, "do_center_crop": False}, "neither do_resize"),
        ("CLIPImageProcessor", {**SHORT, "size": {"shortest_edge": 224, "longest_edge": 300}}, "is not supported"),
        ("LevitImageProcessor", {**SHORT, "size": {"shortest_edge": 100}}, "crop_size 224x224 is larger"),
        ("ViTImageProcessor", {**SQUARE, "resample": 9}, "resample 9 is not supported"),
        ("ViTImageProcessor", {**SQUARE, "size": {"longest_edge": 9}}, "size {'longest_edge': 9} is not supported"),
        ("ViTImageProcessor", {**SQUARE, "size": {"shortest_edge": 9}}, "size {'shortest_edge': 9} is not supported"),
        ("ConvNextImageProcessor", SQUARE, "size {'height': 224, 'width': 200} is not supported"),
        ("ViTImageProcessor", {**NUMBERS, "do_resize": False}, "neither do_resize"),
        ("ViTImageProcessor", {**SQUARE, **NUMBERS, "image_mean": [0.5]}, "image_mean has 1 values"),
        ("ViTImageProcessor", {**SQUARE, **NUMBERS, "do_pad": True}, "do_pad is not supported"),
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
