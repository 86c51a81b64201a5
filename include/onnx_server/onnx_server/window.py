"""A part of a resized image, as PIL computes it, without the rest of it.

For an image of 1 x 8,192 pixels, whose shorter side becomes 256, PIL would make an image of 2 GB, of which the crop keeps little.
PIL computes with integers: each weight times 2²², rounded. It resizes one axis after the other and rounds to whole levels from 0
to 255 after each. This module does the same.
"""

import math

import numpy as np

SUPPORT = {"lanczos": 3.0, "bilinear": 1.0, "bicubic": 2.0, "box": 0.5, "hamming": 1.0}
Box = tuple[int, int, int, int]  # left, upper, right and lower edge
PRECISION_BITS = 22  # 32 bits, minus 8 for a pixel and 2 for sums


def resized_window(pixels: np.ndarray, size: tuple[int, int], box: Box, name: str) -> np.ndarray:
    """Of uint8 (height, width, 3), resized to this width and height, the part in a box: left, upper, right and lower edge."""
    height, width = pixels.shape[:2]
    # Since version 13 PIL resizes the height first if it loses more than twice as many pixels as the width.
    height_first = size[1] < height and height - size[1] > 2 * (width - size[0])
    one_axis = _nearest if name == "nearest" else _weighted
    for axis in (0, 1) if height_first else (1, 0):
        turned = np.swapaxes(pixels, 0, axis)
        kept = range(box[1 - axis], box[3 - axis])
        pixels = np.swapaxes(one_axis(turned, size[1 - axis], kept, name), 0, axis)
    return pixels


def _weighted(image: np.ndarray, size: int, kept: range, name: str) -> np.ndarray:
    """Resample the first axis to `size` rows and return those that are kept."""
    if image.shape[0] == size == len(kept):
        return image
    found = np.empty((len(kept), *image.shape[1:]), np.uint8)
    scale = image.shape[0] / size
    for row, place in enumerate(kept):
        first, weights = _weights(image.shape[0], (place + 0.5) * scale, scale, name)
        total = np.tensordot(weights, image[first : first + len(weights)].astype(np.int64), axes=1)
        found[row] = np.clip((total + (1 << (PRECISION_BITS - 1))) >> PRECISION_BITS, 0, 255)
    return found


def _weights(before: int, centre: float, scale: float, name: str) -> tuple[int, np.ndarray]:
    """One row's first source row, and the weights of that row and those after it."""
    stretch = max(scale, 1.0)  # a filter is wider when it shrinks, so that it uses every pixel
    support = SUPPORT[name] * stretch
    first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), before)
    raw = [_curve(name, (place - centre + 0.5) * (1.0 / stretch)) for place in range(first, last)]
    total = 0.0
    for weight in raw:  # in PIL's order
        total += weight
    shares = [weight / total * (1 << PRECISION_BITS) if total else 0.0 for weight in raw]
    return first, np.array([int(share - 0.5 if share < 0 else share + 0.5) for share in shares], np.int64)


def _curve(name: str, distance: float) -> float:
    """A filter's weight at this distance from its centre, in pixels."""
    x = abs(distance)
    match name:
        case "box":
            return 1.0 if -0.5 < distance <= 0.5 else 0.0  # noqa: PLR2004
        case "bilinear":
            return max(1.0 - x, 0.0)
        case "hamming":
            return _sinc(x) * (0.54 + 0.46 * math.cos(math.pi * x)) if x < 1.0 else 0.0
        case "bicubic":
            a = -0.5
            if x < 1.0:
                return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
            return (((x - 5.0) * x + 8.0) * x - 4.0) * a if x < 2.0 else 0.0  # noqa: PLR2004
        case _:
            return _sinc(x) * _sinc(x / 3.0) if -3.0 <= distance < 3.0 else 0.0  # noqa: PLR2004


def _sinc(x: float) -> float:
    return math.sin(math.pi * x) / (math.pi * x) if x else 1.0


def _nearest(image: np.ndarray, size: int, kept: range, _: str) -> np.ndarray:
    """Resample the first axis by nearest neighbour. Like PIL, add the steps one by one, so that ties agree."""
    scale = image.shape[0] / size
    steps = np.cumsum(np.concatenate([[scale * 0.5], np.full(kept.stop - 1, scale)]))
    return np.asarray(image[np.minimum(steps.astype(np.int64), image.shape[0] - 1)[kept.start :]])
