"""torchvision's resize of 8-bit images on a processor, exact to the last bit, of the part that is kept.

It is PIL's, with two differences: its weights are 16-bit integers, with as many binary digits as the largest of them allows; and the
width is always resized first. Each sum is a product of matrices, exact because a float64 holds every integer that occurs.
(PyTorch: aten/src/ATen/native/cpu/UpSampleKernel.cpp, compute_index_ranges_int16_weights.)
"""

import math

import numpy as np

from .window import SUPPORT, Box

NAMES = ("bilinear", "bicubic", "lanczos")
ROWS = 4096  # whose weights are computed together
BLOCK = 32  # rows of the result for each product: more would multiply by more zeros
MOST_DIGITS, LARGEST_WEIGHT = 22, 1 << 15


def torchvision_resize(pixels: np.ndarray, size: tuple[int, int], box: Box, name: str) -> np.ndarray:
    """Of uint8 (height, width, 3), resized to this width and height, the part in a box: left, upper, right and lower edge."""
    wide = _one_axis(np.swapaxes(pixels, 0, 1), size[0], range(box[0], box[2]), name)
    return _one_axis(np.swapaxes(wide, 0, 1), size[1], range(box[1], box[3]), name)


def _one_axis(image: np.ndarray, size: int, kept: range, name: str) -> np.ndarray:
    """Resample the first axis to `size` rows and return those that are kept."""
    before = image.shape[0]
    if size == before:  # no resize at all
        return image[kept.start : kept.stop]
    first, weights, digits = _weights(before, size, kept, name)
    found = np.empty((len(kept), *image.shape[1:]), np.uint8)
    for start in range(0, len(kept), BLOCK):
        block = slice(start, min(start + BLOCK, len(kept)))
        begin, end = int(first[block].min()), int(min(first[block].max() + weights.shape[1], before))
        matrix = np.zeros((block.stop - start, end - begin + weights.shape[1]))
        places = (first[block] - begin)[:, None] + np.arange(weights.shape[1])
        np.put_along_axis(matrix, places, weights[block], axis=1)
        source = image[begin:end].reshape(end - begin, -1).astype(np.float64)
        total = (matrix[:, : end - begin] @ source).astype(np.int64) + (1 << (digits - 1))
        found[block] = np.clip(total >> digits, 0, 255).reshape(-1, *image.shape[1:])
    return found


def _weights(before: int, size: int, kept: range, name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """For each row: its first source row and the weights of that row and those after it; and the weights' binary digits."""
    scale = before / size
    support = SUPPORT[name] * max(scale, 1.0)
    taps = np.arange(math.ceil(support) * 2 + 1)

    def shares(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        centre = scale * (rows + 0.5)
        first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
        count = np.minimum((centre + support + 0.5).astype(np.int64), before) - first
        distance = (taps + (first - centre)[:, None] + 0.5) * min(1.0 / scale, 1.0)
        values = np.where(taps < count[:, None], _curve(name, np.abs(distance)), 0.0)
        return first, values / values.sum(axis=1, keepdims=True)

    every = (np.arange(start, min(start + ROWS, size)) for start in range(0, size, ROWS))
    largest = max(float(shares(rows)[1].max()) for rows in every)  # of all rows, kept or not
    digits = 0
    while digits < MOST_DIGITS and int(0.5 + largest * (1 << (digits + 1))) < LARGEST_WEIGHT:
        digits += 1
    first, wanted = shares(np.array(kept))
    return first, np.trunc(wanted * (1 << digits) + np.where(wanted < 0, -0.5, 0.5)), digits


def _curve(name: str, x: np.ndarray) -> np.ndarray:
    """A filter's weight at these distances from its centre, in pixels."""
    if name == "bilinear":
        return np.asarray(np.maximum(1.0 - x, 0.0))
    if name == "bicubic":
        a = -0.5
        near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
        far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
        return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))  # noqa: PLR2004
    return np.where(x < 3.0, np.sinc(x) * np.sinc(x / 3.0), 0.0)  # noqa: PLR2004
