"""A 🤗 image processor's steps on one image: the same integers as PIL's, and 🤗's own order of arithmetic."""

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from PIL import Image

from .torchvision_resize import NAMES, torchvision_resize
from .window import resized_window

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
TORCHVISION = {f"torchvision_{name}": name for name in NAMES}
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


Resizes = Resize | ResizeShortestEdge | ResizeShortestEdgeRounded
Crops = CenterCrop | CenterCropRounded | CenterCropShare
OfImages = Resizes | Crops
OfValues = Rescale | Shift | Normalise | FlipChannels
Step = OfImages | OfValues
KINDS: dict[str, type[Any]] = {
    "resize": Resize,
    "resize_shortest_edge": ResizeShortestEdge,
    "resize_shortest_edge_rounded": ResizeShortestEdgeRounded,
    "center_crop": CenterCrop,
    "center_crop_rounded": CenterCropRounded,
    "center_crop_share": CenterCropShare,
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
        return value in FILTERS or value in TORCHVISION
    if name in {"height", "width", "edge", "multiple"}:
        return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_SIDE
    if name.endswith("_share"):
        return isinstance(value, int | float) and 0 < value <= 1
    numbers = value if name in {"mean", "std"} and isinstance(value, tuple) else (value,)
    good = all(isinstance(one, int | float) and math.isfinite(one) for one in numbers)
    return good and len(numbers) == (3 if name in {"mean", "std"} else 1) and not (name == "std" and 0 in numbers)


class Preprocess:
    """Turns an image into the model's input."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        """Plan the steps. Raises ValueError for an order of steps that is not read."""
        self._of_image = [step for step in steps if isinstance(step, OfImages)]
        of_values = steps[len(self._of_image) :]
        if any(isinstance(step, OfImages) for step in of_values):
            raise ValueError("a step that changes the size comes after one that changes values")
        sized = [step for step in self._of_image if isinstance(step, Resize | CenterCrop | CenterCropRounded)]
        if not sized:
            raise ValueError("no step gives all images one size")
        self.height, self.width = sized[-1].height, sized[-1].width
        following = (*self._of_image[1:], None)
        self._crop_after = {
            step: after if isinstance(after, Crops) else None
            for step, after in zip(self._of_image, following, strict=True)
        }
        self._tables, self._channels = _tables(of_values)

    def apply(self, image: Image.Image, out: np.ndarray) -> None:
        """Run all steps on an RGB image; write float32 (3, height, width) into `out`."""
        steps = iter(self._of_image)
        for step in steps:
            if isinstance(step, Crops):
                image = image.crop(_box(step, image.size))
                continue
            size, following = _target(step, image.size), self._crop_after[step]
            if step.filter in FILTERS and (following is None or math.prod(size) <= LARGEST):
                image = image.resize(size, FILTERS[step.filter])
                continue
            box = (0, 0, *size) if following is None else _box(following, size)
            resize, name = (
                (resized_window, step.filter)
                if step.filter in FILTERS
                else (torchvision_resize, TORCHVISION[step.filter])
            )
            image = Image.fromarray(resize(np.asarray(image), size, box, name))
            if following is not None:
                next(steps)  # the crop, which is done
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


def _target(step: Resizes, size: tuple[int, int]) -> tuple[int, int]:
    """The width and height that an image of this width and height is resized to."""
    match step:
        case Resize():
            return step.width, step.height
        case ResizeShortestEdge():
            return step.edge * size[0] // min(size), step.edge * size[1] // min(size)
        case ResizeShortestEdgeRounded():
            scale = step.edge / min(size)
            width, height = (math.ceil(round(side * scale) / step.multiple) * step.multiple for side in size)
            return width, height


def _box(step: Crops, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The left, upper, right and lower edge of the part that a crop keeps of an image of this width and height."""
    match step:
        case CenterCropShare():
            width, height = (int(share * min(size)) for share in (step.width_share, step.height_share))
        case _:
            width, height = step.width, step.height
    if isinstance(step, CenterCropRounded):
        left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    else:
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height
