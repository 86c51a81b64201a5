"""The steps of a 🤗 image processor, from pixels to the model's input: read from the processor's config.

Whoever serves the model runs them: preprocess.py in TensorFlow's graph, include/onnx_server with Pillow and NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from errors import ExportRefused

# PIL's resampling filters by number.
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """Resize to exactly height x width pixels, whatever the aspect ratio."""

    height: int
    width: int
    filter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeShortestEdge:
    """Resize the shorter side to `edge` pixels and keep the aspect ratio."""

    edge: int
    filter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeShortestEdgeRounded:
    """The same, with both sides rounded to the nearest pixel and up to a multiple."""

    edge: int
    multiple: int
    filter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CenterCrop:
    """Keep the central height x width pixels."""

    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CenterCropRounded:
    """The same; where the middle is between two pixels, at the even one of them."""

    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CenterCropShare:
    """Keep a central part, whose height and width are these shares of the image's shorter side, at most 1."""

    height_share: float
    width_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale:
    """Multiply each value by a factor."""

    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """Add a number to each value."""

    offset: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalise:
    """Subtract each channel's mean and divide by its standard deviation."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipChannels:
    """Change red, green, blue to blue, green, red."""


TORCHVISION = {"bilinear", "bicubic", "lanczos"}  # the filters that it has for images of 8 bits
MAX_SIDE = 8192  # pixels that a model may take; those of today take a few hundred
SHOWN = 200  # characters of an error

Resizes = Resize | ResizeShortestEdge | ResizeShortestEdgeRounded
Crops = CenterCrop | CenterCropRounded | CenterCropShare
Step = Resizes | Crops | Rescale | Shift | Normalise | FlipChannels

# By how a processor resizes; the rest is the same for all.
SQUARE = {"ViT", "DeiT"}  # to a height and width
EITHER = {
    "Beit",
    "Bit",
    "CLIP",
    "EfficientNet",
    "MobileNetV1",
    "MobileNetV2",
    "Pvt",
    "Segformer",
    "Siglip",
}  # or the shorter edge
WITH_SHORTEST_EDGE = {*EITHER, "MobileViT"}
OWN = {"ConvNext", "Levit", "PoolFormer", "PPLCNet", "Perceiver"}
ELSEWHERE = {
    "Donut": "it pads to the size of a page",
    "ImageGPT": "it outputs numbers of colours instead of pixels",
    "Siglip2": "it cuts images into a varying number of patches",
    "TextNet": "it outputs images of different sizes, which cannot share a batch",
}


def plan_preprocess(processor: str, config: dict[str, Any], library: str = "pil") -> tuple[Step, ...]:
    """The steps of a 🤗 image processor, from its class name, its settings and the library that resizes: pil or torchvision.

    Raises ExportRefused.
    """
    try:
        steps = _plan(processor, config)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:  # a setting is missing, or of another type
        said = f"{type(error).__name__}: {error}"[:SHOWN]
        raise ExportRefused(
            f"preprocessor_config.json: its settings are invalid ({said}). Next: use a 🤗 image-classification checkpoint."
        ) from error

    return tuple(map(_on_torchvision, steps)) if library == "torchvision" else steps


def _on_torchvision(step: Step) -> Step:
    """A step with torchvision's filter, whose weights have other roundings than PIL's."""
    if not isinstance(step, Resizes):
        return step
    if step.filter not in TORCHVISION:
        raise ExportRefused(
            f"preprocessor_config.json: resample {step.filter} is not supported for a fast image processor. "
            f"Next: use one of {', '.join(sorted(TORCHVISION))}, or the slow one."
        )
    return replace(step, filter=f"torchvision_{step.filter}")


def output_size(steps: Sequence[Step]) -> tuple[int, int]:
    """The height and width after all steps."""
    sized = [step for step in steps if isinstance(step, Resize | CenterCrop | CenterCropRounded)]
    return sized[-1].height, sized[-1].width


def _plan(processor: str, config: dict[str, Any]) -> tuple[Step, ...]:
    if processor == "TimmWrapperImageProcessor":
        return _timm(config["data_config"])
    kind = processor.removesuffix("Fast").removesuffix("Pil").removesuffix("ImageProcessor")
    _refuse_other_processors(processor, kind, config)
    steps: list[Step] = []
    if kind == "Perceiver":  # it crops before it resizes
        steps += _perceiver_crop(config)
    if config.get("do_resize"):
        steps += _resize(config, kind)
    if config.get("do_center_crop") and kind != "Perceiver":
        steps.append(_crop(config, steps[-1] if steps else None))
    if config.get("do_rescale"):
        steps.append(Rescale(factor=_finite(config["rescale_factor"])))
        if config.get("rescale_offset"):  # EfficientNet's
            steps.append(Shift(offset=-1.0))
    if config.get("do_flip_channel_order"):
        steps.append(FlipChannels())
    if config.get("do_normalize"):
        steps.append(Normalise(mean=_channels(config, "image_mean"), std=_channels(config, "image_std")))
    if config.get("include_top"):  # EfficientNet's
        steps.append(Normalise(mean=(0.0, 0.0, 0.0), std=_channels(config, "image_std")))
    if kind == "PPLCNet":
        steps.append(FlipChannels())
    if not any(isinstance(step, Resize | CenterCrop) for step in steps):
        raise ExportRefused(
            "preprocessor_config.json: neither do_resize to a height and width nor do_center_crop: images of "
            "different sizes cannot share a batch. Next: use a checkpoint whose processor outputs one size."
        )
    return tuple(steps)


def _refuse_other_processors(processor: str, kind: str, config: dict[str, Any]) -> None:
    if kind not in SQUARE | WITH_SHORTEST_EDGE | OWN:
        why = f": {ELSEWHERE[kind]}" if kind in ELSEWHERE else ""
        raise ExportRefused(
            f"preprocessor_config.json: the image processor {processor} is not supported{why}. "
            f"Next: use a checkpoint with one of these image processors: {', '.join(sorted(SQUARE | WITH_SHORTEST_EDGE | OWN))}."
        )
    if config.get("do_pad"):
        raise ExportRefused(
            "preprocessor_config.json: do_pad is not supported: it adds a border to the prepared image. "
            "Next: use a checkpoint whose processor does not pad."
        )


def _timm(data: dict[str, Any]) -> tuple[Step, ...]:
    """The steps that timm makes of a model's settings."""
    _, height, width = map(_side, data["input_size"])
    share, mode, name = _finite(data["crop_pct"]), data.get("crop_mode") or "center", data["interpolation"]
    if (
        mode not in {"center", "squash"}
        or share > 1
        or name not in FILTERS.values()
        or (mode == "center" and height != width)
    ):
        raise ExportRefused(
            f"config.json: pretrained_cfg: an image of {height} x {width} pixels with crop_mode {mode!r}, crop_pct {share:g} and "
            f"interpolation {str(name)[:SHOWN]!r} is not supported. Next: use a timm model for square images."
        )
    larger = (_side(height / share), _side(width / share))
    return (
        Resize(height=larger[0], width=larger[1], filter=name)
        if mode == "squash"
        else ResizeShortestEdge(edge=larger[0], filter=name),
        CenterCropRounded(height=height, width=width),
        Rescale(factor=1 / 255),
        Normalise(mean=_channels(data, "mean"), std=_channels(data, "std")),
    )


def _filter(config: dict[str, Any]) -> str:
    number = int(config["resample"])
    if number not in FILTERS:
        raise ExportRefused(
            f"preprocessor_config.json: resample {number} is not supported. "
            f"Next: use one of PIL's: {', '.join(f'{known} ({name})' for known, name in FILTERS.items())}."
        )
    return FILTERS[number]


def _resize(config: dict[str, Any], kind: str) -> list[Step]:
    match kind:
        case "ConvNext":
            return _convnext_resize(config)
        case "Levit":
            return [_levit_resize(config)]
        case "PoolFormer":
            return [_poolformer_resize(config)]
        case "PPLCNet" if config.get("resize_short") is not None:
            return [_pplcnet_resize(config)]
        case _:
            return [_plain_resize(config, _size(config), shortest=kind in WITH_SHORTEST_EDGE)]


def _size(config: dict[str, Any]) -> dict[str, Any]:
    """The size without the fields that are not set."""
    size = config["size"]
    if isinstance(size, int):
        return {"height": size, "width": size}
    return {name: size[name] for name in sorted(size) if size[name]}


def _plain_resize(config: dict[str, Any], size: dict[str, Any], *, shortest: bool) -> Step:
    if {"height", "width"} <= set(size):
        return Resize(height=_side(size["height"]), width=_side(size["width"]), filter=_filter(config))
    if set(size) == {"shortest_edge"} and shortest:  # the other processors refuse it
        return ResizeShortestEdge(edge=_side(size["shortest_edge"]), filter=_filter(config))
    raise _refused_size(config, "height and width; MobileViT and others take shortest_edge too")


def _refused_size(config: dict[str, Any], next_step: str) -> ExportRefused:
    return ExportRefused(
        f"preprocessor_config.json: size {str(config['size'])[:SHOWN]} is not supported. Next: use {next_step}."
    )


def _convnext_resize(config: dict[str, Any]) -> list[Step]:
    if "shortest_edge" not in _size(config):
        raise _refused_size(config, "shortest_edge, as ConvNeXt does")
    edge = _side(config["size"]["shortest_edge"])
    if edge >= 384:  # noqa: PLR2004  # ConvNext's own rule: large inputs are not cropped
        return [Resize(height=edge, width=edge, filter=_filter(config))]
    return [
        ResizeShortestEdge(edge=_side(edge / config["crop_pct"]), filter=_filter(config)),
        CenterCrop(height=edge, width=edge),
    ]


def _levit_resize(config: dict[str, Any]) -> Step:
    size = _size(config)
    if "shortest_edge" in size:  # LeViT's own rule
        size = {"shortest_edge": (256 / 224) * size["shortest_edge"]}
    return _plain_resize(config, size, shortest=True)


def _poolformer_resize(config: dict[str, Any]) -> Step:
    size, share = _size(config), config.get("crop_pct")
    if share is not None:  # PoolFormer's own rule: a square is a shorter edge
        if "height" in size and size["height"] == size["width"]:
            size = {"shortest_edge": size["height"]}
        size = {name: side / share for name, side in size.items()}
    return _plain_resize(config, size, shortest=True)


def _pplcnet_resize(config: dict[str, Any]) -> Step:
    multiple = _side(1 if config.get("size_divisor") is None else config["size_divisor"])
    return ResizeShortestEdgeRounded(edge=_side(config["resize_short"]), multiple=multiple, filter=_filter(config))


def _perceiver_crop(config: dict[str, Any]) -> list[Step]:
    if not config.get("do_center_crop"):
        return []
    size, crop = _size(config), config["crop_size"]
    height, width = (_finite(_side(size[name]) / _side(crop[name])) for name in ("height", "width"))
    if max(height, width) > 1:
        raise ExportRefused(
            f"preprocessor_config.json: crop_size {crop['height']}x{crop['width']} is smaller than size, so that images would be padded. "
            "Next: use a crop_size of at least size."
        )
    return [CenterCropShare(height_share=height, width_share=width)]


def _crop(config: dict[str, Any], before: Step | None) -> CenterCrop:
    size = config["crop_size"]
    if isinstance(size, int):
        size = {"height": size, "width": size}
    crop = CenterCrop(height=_side(size["height"]), width=_side(size["width"]))
    match before:
        case Resize(height=height, width=width):
            fits = crop.height <= height and crop.width <= width
        case ResizeShortestEdge(edge=edge) | ResizeShortestEdgeRounded(edge=edge):
            fits = max(crop.height, crop.width) <= edge
        case _:
            fits = False
    if not fits:
        raise ExportRefused(
            f"preprocessor_config.json: crop_size {crop.height}x{crop.width} is larger than the resized image. "
            "Next: use a checkpoint whose crop fits into the resized image."
        )
    return crop


def _channels(config: dict[str, Any], name: str) -> tuple[float, ...]:
    values = config[name]
    if isinstance(values, int | float):
        values = [values] * 3
    if len(values) != 3:  # noqa: PLR2004
        raise ExportRefused(
            f"preprocessor_config.json: {name} has {len(values)} values. Next: use a checkpoint for colour images."
        )
    return tuple(_finite(value) for value in values)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no finite number")
    return number


def _side(value: Any) -> int:
    side = int(value)
    if not 1 <= side <= MAX_SIDE:
        raise ValueError(f"a side of {side} pixels")
    return side
