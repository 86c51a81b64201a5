"""A 🤗 image processor's steps on one image: the same integers as PIL's, and 🤗's own order of arithmetic."""

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from PIL import Image

from .window import resized_window

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
MAX_SIDE = 8192  # pixels that a model may take
LARGEST = 1 << 24  # pixels of a resized image, four bytes each; of a larger one only the part that is kept is computed


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


OfImages = Resize | ResizeShortestEdge | CenterCrop
OfValues = Rescale | Shift | Normalise | FlipChannels
Step = OfImages | OfValues
KINDS: dict[str, type[Any]] = {
    "resize": Resize,
    "resize_shortest_edge": ResizeShortestEdge,
    "center_crop": CenterCrop,
    "rescale": Rescale,
    "shift": Shift,
    "normalise": Normalise,
    "flip_channels": FlipChannels,
}


def step_of(written: Any) -> Step:
    """A step as model.json has it: {"kind": …, its settings}. Raises ValueError or TypeError."""
    if not isinstance(written, dict):
        raise TypeError(f"{written!r} is no step")
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in written.items()}
    kind = settings.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"the step {kind!r} is not known, only {', '.join(KINDS)}")
    names = [field.name for field in fields(KINDS[kind])]
    if sorted(settings) != sorted(names):
        raise ValueError(f"the step {kind} has {sorted(settings)}, and not {sorted(names)}")
    for name, value in settings.items():
        if not _is_valid(name, value):
            raise ValueError(f"the step {kind} has the {name} {value!r}")
    step: Step = KINDS[kind](**settings)
    return step


def _is_valid(name: str, value: Any) -> bool:
    if name == "filter":
        return value in FILTERS
    if name in {"height", "width", "edge"}:
        return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_SIDE
    numbers = value if name in {"mean", "std"} and isinstance(value, tuple) else (value,)
    good = all(isinstance(one, int | float) and math.isfinite(one) for one in numbers)
    return good and len(numbers) == (3 if name in {"mean", "std"} else 1) and not (name == "std" and 0 in numbers)


def written(step: Step) -> dict[str, Any]:
    """A step as model.json has it."""
    (kind,) = (name for name, known in KINDS.items() if known is type(step))
    return {"kind": kind} | {field.name: getattr(step, field.name) for field in fields(step)}


class Preprocess:
    """Turns an image into the model's input."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        """Plan the steps. Raises ValueError for an order of steps that is not read."""
        self._of_image = [step for step in steps if isinstance(step, OfImages)]
        of_values = steps[len(self._of_image) :]
        if any(isinstance(step, OfImages) for step in of_values):
            raise ValueError("a step that changes the size comes after one that changes values")
        sized = [step for step in self._of_image if isinstance(step, Resize | CenterCrop)]
        if not sized:
            raise ValueError("no step gives all images one size")
        self.height, self.width = sized[-1].height, sized[-1].width
        self._tables, self._channels = _tables(of_values)

    def apply(self, image: Image.Image, out: np.ndarray) -> None:
        """Run all steps on an RGB image; write float32 (3, height, width) into `out`."""
        for step, following in zip(self._of_image, (*self._of_image[1:], None), strict=True):
            image = _resized(step, image, following)
        pixels = np.asarray(image)
        for place, channel in enumerate(self._channels):
            np.take(self._tables[place], pixels[..., channel], out=out[place])


def _tables(steps: tuple[Step, ...]) -> tuple[np.ndarray, list[int]]:
    """What each of a channel's 256 levels becomes, float32 (3, 256), and from which channel of the image each one is made."""
    values: np.ndarray = np.tile(np.arange(256, dtype=np.uint8), (3, 1))
    channels = [0, 1, 2]
    for step in steps:
        match step:
            case Rescale():
                values = (values.astype(np.float64) * step.factor).astype(np.float32)  # in 64 bits first, as 🤗 does
            case Shift():
                values = values.astype(np.float32) + np.float32(step.offset)
            case Normalise():
                mean, std = (np.array(numbers, np.float32)[:, None] for numbers in (step.mean, step.std))
                values = (values.astype(np.float32) - mean) / std
            case FlipChannels():
                values, channels = values[::-1], channels[::-1]
    return np.ascontiguousarray(values, dtype=np.float32), channels


def _resized(step: Step, image: Image.Image, following: Step | None) -> Image.Image:
    width, height = image.size
    match step:
        case Resize():
            return image.resize((step.width, step.height), FILTERS[step.filter])
        case ResizeShortestEdge():
            shorter = min(width, height)
            size = (step.edge * width // shorter, step.edge * height // shorter)
            if isinstance(following, CenterCrop) and math.prod(size) > LARGEST:
                window = resized_window(np.asarray(image), size[::-1], (following.height, following.width), step.filter)
                return Image.fromarray(window)  # the crop then keeps all of it
            return image.resize(size, FILTERS[step.filter])
        case CenterCrop():
            left, top = (width - step.width) // 2, (height - step.height) // 2
            return image.crop((left, top, left + step.width, top + step.height))
        case _:
            raise AssertionError(step)
