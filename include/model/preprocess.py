"""🤗's image processors inside the graph: from pixels to the model's input.

`plan_preprocess` reads the steps from a processor's config; `apply` runs them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from errors import ExportRefused
from resize import FILTERS, resize


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
class CenterCrop:
    """Keep the central height x width pixels."""

    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale:
    """Multiply each value by a factor."""

    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalise:
    """Subtract each channel's mean and divide by its standard deviation."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipChannels:
    """Change red, green, blue to blue, green, red."""


MAX_SIDE = 8192  # pixels that a model may take; those of today take a few hundred
SHOWN = 200  # characters of an error

Step = Resize | ResizeShortestEdge | CenterCrop | Rescale | Normalise | FlipChannels


def plan_preprocess(processor: str, config: dict[str, Any]) -> tuple[Step, ...]:
    """The steps of a 🤗 image processor, from its class name and its settings. Raises ExportRefused."""
    try:
        return _plan(processor, config)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:  # a setting is missing, or of another type
        said = f"{type(error).__name__}: {error}"[:SHOWN]
        raise ExportRefused(
            f"preprocessor_config.json: its settings are invalid ({said}). Next: use a 🤗 image-classification checkpoint."
        ) from error


def _plan(processor: str, config: dict[str, Any]) -> tuple[Step, ...]:
    kind = processor.removesuffix("Fast")
    if kind not in {"ViTImageProcessor", "DeiTImageProcessor", "ConvNextImageProcessor", "MobileViTImageProcessor"}:
        raise ExportRefused(
            f"preprocessor_config.json: the image processor {processor} is not supported. "
            "Next: use a checkpoint with a ViT, DeiT, ConvNext or MobileViT image processor."
        )
    steps: list[Step] = []
    if config.get("do_resize"):
        steps += _convnext_resize(config) if kind == "ConvNextImageProcessor" else [_resize(config, kind)]
    if config.get("do_center_crop"):
        steps.append(_crop(config, steps[-1] if steps else None))
    if config.get("do_rescale"):
        steps.append(Rescale(factor=_finite(config["rescale_factor"])))
    if config.get("do_flip_channel_order"):
        steps.append(FlipChannels())
    if config.get("do_normalize"):
        steps.append(Normalise(mean=_channels(config, "image_mean"), std=_channels(config, "image_std")))
    if not any(isinstance(step, Resize | CenterCrop) for step in steps):
        raise ExportRefused(
            "preprocessor_config.json: neither do_resize to a height and width nor do_center_crop: images of "
            "different sizes cannot share a batch. Next: use a checkpoint whose processor outputs one size."
        )
    return tuple(steps)


def _filter(config: dict[str, Any]) -> str:
    number = int(config["resample"])
    if number not in FILTERS:
        raise ExportRefused(
            f"preprocessor_config.json: resample {number} is not supported. "
            f"Next: use one of PIL's: {', '.join(f'{known} ({name})' for known, name in FILTERS.items())}."
        )
    return FILTERS[number]


def _resize(config: dict[str, Any], kind: str) -> Step:
    size = config["size"]
    if isinstance(size, int):
        size = {"height": size, "width": size}
    if {"height", "width"} <= set(size):
        return Resize(height=_side(size["height"]), width=_side(size["width"]), filter=_filter(config))
    if set(size) == {"shortest_edge"} and kind == "MobileViTImageProcessor":  # the other processors refuse it
        return ResizeShortestEdge(edge=_side(size["shortest_edge"]), filter=_filter(config))
    raise ExportRefused(
        f"preprocessor_config.json: size {str(size)[:SHOWN]} is not supported. Next: use height and width; MobileViT takes shortest_edge too."
    )


def _convnext_resize(config: dict[str, Any]) -> list[Step]:
    if "shortest_edge" not in config["size"]:
        raise ExportRefused(
            f"preprocessor_config.json: size {str(config['size'])[:SHOWN]} is not supported. Next: use shortest_edge, as ConvNeXt does."
        )
    edge = _side(config["size"]["shortest_edge"])
    if edge >= 384:  # noqa: PLR2004  # ConvNext's own rule: large inputs are not cropped
        return [Resize(height=edge, width=edge, filter=_filter(config))]
    return [
        ResizeShortestEdge(edge=_side(edge / config["crop_pct"]), filter=_filter(config)),
        CenterCrop(height=edge, width=edge),
    ]


def _crop(config: dict[str, Any], before: Step | None) -> CenterCrop:
    size = config["crop_size"]
    if isinstance(size, int):
        size = {"height": size, "width": size}
    crop = CenterCrop(height=_side(size["height"]), width=_side(size["width"]))
    match before:
        case Resize(height=height, width=width):
            fits = crop.height <= height and crop.width <= width
        case ResizeShortestEdge(edge=edge):
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


def apply(steps: tuple[Step, ...], image: Any) -> Any:
    """Run all steps on a uint8 image (height, width, 3). Returns float32 (3, height, width)."""
    import tensorflow as tf

    value = image
    for step, following in zip(steps, (*steps[1:], None), strict=True):
        value = _apply(step, value, following)
    return tf.transpose(tf.cast(value, tf.float32), [2, 0, 1])


def _apply(step: Step, value: Any, following: Step | None) -> Any:
    import tensorflow as tf

    match step:
        case Resize() | ResizeShortestEdge():
            window = (following.height, following.width) if isinstance(following, CenterCrop) else None
            height, width = _target(step, value)
            resized = resize(value, height, width, step.filter, window)  # computes only what the crop keeps
            return tf.ensure_shape(resized, [*(window or _shape(step)), 3])
        case CenterCrop():
            return value  # done in the resize before it; plan_preprocess refuses a crop without one
        case Rescale():
            return tf.cast(tf.cast(value, tf.float64) * step.factor, tf.float32)  # in 64 bits first, as 🤗 does
        case Normalise():
            # Not a plain division: the optimiser would multiply by the reciprocal, which gives other values.
            return tf.math.divide_no_nan(tf.cast(value, tf.float32) - tf.constant(step.mean), tf.constant(step.std))
        case FlipChannels():
            return tf.reverse(value, axis=[2])


def _target(step: Resize | ResizeShortestEdge, value: Any) -> tuple[Any, Any]:
    """The height and width to resize the whole image to."""
    import tensorflow as tf

    if isinstance(step, Resize):
        return tf.constant(step.height), tf.constant(step.width)
    height, width = tf.unstack(tf.shape(value)[:2])
    shorter = tf.minimum(height, width)
    return step.edge * height // shorter, step.edge * width // shorter


def _shape(step: Resize | ResizeShortestEdge) -> tuple[int | None, int | None]:
    return (step.height, step.width) if isinstance(step, Resize) else (None, None)
