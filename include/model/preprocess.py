"""From the bytes of an image to the numbers that the model takes: 🤗's image processors, inside the graph.

`plan_preprocess` reads a processor's config and says which steps it takes; `decode` and `apply` take them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from refused import ExportRefused

# PIL's resampling filters by number, as TensorFlow names the same filter. Both scale the filter's support when they
# shrink (antialias), and both take a = -0.5 for cubic. BOX (4) and HAMMING (5) have no counterpart.
FILTERS = {0: "nearest", 1: "lanczos3", 2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """To exactly height x width pixels, whatever the shape before."""

    height: int
    width: int
    filter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeShortestEdge:
    """The shorter side to so many pixels, the longer one in proportion."""

    edge: int
    filter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CenterCrop:
    """The middle height x width pixels."""

    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale:
    """Each value times a factor."""

    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalise:
    """Each channel minus its mean, divided by its standard deviation."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipChannels:
    """Red, green, blue becomes blue, green, red."""


Step = Resize | ResizeShortestEdge | CenterCrop | Rescale | Normalise | FlipChannels


def plan_preprocess(processor: str, config: dict[str, Any]) -> tuple[Step, ...]:
    """The steps of a 🤗 image processor, by its class name (the slow one's) and its settings."""
    kind = processor.removesuffix("Fast")
    if kind not in {"ViTImageProcessor", "DeiTImageProcessor", "ConvNextImageProcessor", "MobileViTImageProcessor"}:
        raise ExportRefused(
            f"preprocessor_config.json: the image processor {processor} is not supported. "
            "Next: use a checkpoint with a ViT, DeiT, ConvNext or MobileViT image processor."
        )
    steps: list[Step] = []
    if config.get("do_resize"):
        steps += _convnext_resize(config) if kind == "ConvNextImageProcessor" else [_resize(config)]
    if config.get("do_center_crop"):
        steps.append(_crop(config, steps[-1] if steps else None))
    if config.get("do_rescale"):
        steps.append(Rescale(factor=float(config["rescale_factor"])))
    if config.get("do_flip_channel_order"):
        steps.append(FlipChannels())
    if config.get("do_normalize"):
        steps.append(Normalise(mean=_channels(config, "image_mean"), std=_channels(config, "image_std")))
    if not any(isinstance(step, Resize | CenterCrop) for step in steps):
        raise ExportRefused(
            "preprocessor_config.json: neither do_resize to a height and width nor do_center_crop: images of "
            "different sizes cannot share a batch. Next: use a checkpoint whose processor gives one size."
        )
    return tuple(steps)


def _filter(config: dict[str, Any]) -> str:
    number = int(config["resample"])
    if number not in FILTERS:
        raise ExportRefused(
            f"preprocessor_config.json: resample {number} is not supported. "
            "Next: use 0 (nearest), 1 (Lanczos), 2 (bilinear) or 3 (bicubic)."
        )
    return FILTERS[number]


def _resize(config: dict[str, Any]) -> Step:
    size = config["size"]
    if {"height", "width"} <= set(size):
        return Resize(height=int(size["height"]), width=int(size["width"]), filter=_filter(config))
    if set(size) == {"shortest_edge"}:
        return ResizeShortestEdge(edge=int(size["shortest_edge"]), filter=_filter(config))
    raise ExportRefused(
        f"preprocessor_config.json: size {size} is not supported. Next: use height and width, or shortest_edge."
    )


def _convnext_resize(config: dict[str, Any]) -> list[Step]:
    edge = int(config["size"]["shortest_edge"])
    if edge >= 384:  # noqa: PLR2004  # ConvNext's own rule: large inputs are not cropped
        return [Resize(height=edge, width=edge, filter=_filter(config))]
    return [
        ResizeShortestEdge(edge=int(edge / config["crop_pct"]), filter=_filter(config)),
        CenterCrop(height=edge, width=edge),
    ]


def _crop(config: dict[str, Any], before: Step | None) -> CenterCrop:
    size = config["crop_size"]
    crop = CenterCrop(height=int(size["height"]), width=int(size["width"]))
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
            "Next: use a checkpoint that crops within what it resized."
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
    return tuple(float(value) for value in values)


def decode(data: Any) -> Any:
    """The image in a scalar string tensor as uint8 (height, width, 3): JPEG, PNG, GIF (first frame) or BMP."""
    import tensorflow as tf

    def jpeg() -> Any:
        # The accurate transform, as PIL uses; TensorFlow's default is a faster one.
        return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")

    def other() -> Any:
        is_bmp = tf.equal(tf.strings.substr(data, 0, 2), b"BM")
        return tf.cond(is_bmp, lambda: _decode_bmp(data), lambda: _decode_rest(data))

    image = tf.cond(tf.equal(tf.strings.substr(data, 0, 3), b"\xff\xd8\xff"), jpeg, other)
    return tf.ensure_shape(image, [None, None, 3])


def _decode_rest(data: Any) -> Any:
    import tensorflow as tf

    return tf.io.decode_image(data, channels=3, expand_animations=False)


def _decode_bmp(data: Any) -> Any:
    """A BMP as RGB. TensorFlow's own decoder reads a palette's indices as grey: they are looked up here."""
    import tensorflow as tf

    image = tf.io.decode_bmp(data, channels=0)

    def field(at: int) -> Any:
        return tf.io.decode_raw(tf.strings.substr(data, at, 4), tf.int32, little_endian=True)[0]

    def colours() -> Any:
        tf.debugging.assert_equal(field(30), 0, "compressed BMP images are not supported")
        used = tf.where(field(46) > 0, field(46), 256)
        table = tf.io.decode_raw(tf.strings.substr(data, 14 + field(14), used * 4), tf.uint8)
        table = tf.reverse(tf.reshape(table, [-1, 4])[:, :3], axis=[1])
        return tf.gather(table, tf.cast(image[..., 0], tf.int32))

    return tf.cond(tf.equal(tf.shape(image)[2], 1), colours, lambda: image[..., :3])


def apply(steps: tuple[Step, ...], image: Any) -> Any:
    """The uint8 image (height, width, 3) after all steps, as float32 (3, height, width)."""
    import tensorflow as tf

    value = tf.cast(image, tf.float32)
    for step in steps:
        value = _apply(step, value)
    return tf.transpose(value, [2, 0, 1])


def _apply(step: Step, value: Any) -> Any:
    import tensorflow as tf

    match step:
        case Resize():
            return _resample(value, step.height, step.width, step.filter)
        case ResizeShortestEdge():
            height, width = tf.unstack(tf.shape(value)[:2])
            shorter = tf.minimum(height, width)
            return _resample(value, step.edge * height // shorter, step.edge * width // shorter, step.filter)
        case CenterCrop():
            top, left = (tf.shape(value)[0] - step.height) // 2, (tf.shape(value)[1] - step.width) // 2
            cropped = value[top : top + step.height, left : left + step.width]
            return tf.ensure_shape(cropped, [step.height, step.width, 3])
        case Rescale():
            return value * step.factor
        case Normalise():
            return (value - tf.constant(step.mean)) / tf.constant(step.std)
        case FlipChannels():
            return tf.reverse(value, axis=[2])


def _resample(value: Any, height: Any, width: Any, filter_name: str) -> Any:
    """PIL's resize: across, then down, with whole numbers from 0 to 255 after each."""
    import tensorflow as tf

    if filter_name == "nearest":
        rows, columns = _nearest(tf.shape(value)[0], height), _nearest(tf.shape(value)[1], width)
        return tf.gather(tf.gather(value, columns, axis=1), rows, axis=0)
    across = tf.image.resize(value, [tf.shape(value)[0], width], filter_name, antialias=True)
    down = tf.image.resize(_whole(across), [height, width], filter_name, antialias=True)
    return _whole(down)


def _nearest(before: Any, after: Any) -> Any:
    """Which of the `before` rows or columns each of the `after` ones takes.

    PIL adds up its steps one by one in 64-bit floats; TensorFlow multiplies in 32 bits and lands beside it at ties.
    """
    import tensorflow as tf

    # Not a plain division: the graph's optimiser would multiply by the reciprocal, which is another number.
    scale = tf.math.divide_no_nan(tf.cast(before, tf.float64), tf.cast(after, tf.float64))
    steps = tf.concat([[scale * 0.5], tf.fill([after - 1], scale)], axis=0)
    return tf.cast(tf.cumsum(steps), tf.int32)


def _whole(value: Any) -> Any:
    import tensorflow as tf

    return tf.clip_by_value(tf.floor(value + 0.5), 0.0, 255.0)
