"""PIL's resize in TensorFlow operations, exact to the last bit.

PIL computes with integers: each weight times 2²², rounded. It resizes one axis after the other and rounds to whole levels
from 0 to 255 after each. This module does the same integer arithmetic, so the results are equal.
"""

from __future__ import annotations

import math
from typing import Any

# Each filter's radius in source pixels at full size.
SUPPORT = {"lanczos": 3.0, "bilinear": 1.0, "bicubic": 2.0, "box": 0.5, "hamming": 1.0}
PRECISION_BITS = 22  # 32 bits, minus 8 for a pixel and 2 for sums


def resize(image: Any, height: Any, width: Any, name: str, window: tuple[int, int] | None = None) -> Any:
    """Resize a uint8 image (height, width, 3) as PIL does. With `window`, return only the central part of that size.

    Only that part is computed: the whole resize of an image of 1 x 1,000 pixels may be a thousand times as large.
    """
    import tensorflow as tf

    before = tf.shape(image)
    one_axis = _nearest if name == "nearest" else _weighted
    # Since version 13 PIL resizes the height first if it loses more than twice as many pixels as the width.
    down_first = (height < before[0]) & (before[0] - height > 2 * (before[1] - width))
    stay, turn = tf.constant([0, 1, 2]), tf.constant([1, 0, 2])
    sizes = tf.where(down_first, [height, width], [width, height])
    wanted = sizes if window is None else tf.where(down_first, window, window[::-1])
    once = one_axis(tf.transpose(image, tf.where(down_first, stay, turn)), sizes[0], wanted[0], name)
    twice = one_axis(tf.transpose(once, turn), sizes[1], wanted[1], name)
    return tf.transpose(twice, tf.where(down_first, turn, stay))


def _weighted(image: Any, size: Any, count: Any, name: str) -> Any:
    """Resample the first axis to `size` rows and return the central `count`."""
    import tensorflow as tf

    before = tf.shape(image)[0]
    first, weights = _weights(before, size, count, name)
    begin = tf.fill([count, tf.shape(image)[1], 3], 1 << (PRECISION_BITS - 1))  # a half, so that truncating rounds

    def add(tap: Any, total: Any) -> tuple[Any, Any]:
        # Taps past the image's edge have weight 0; it does not matter which row they read.
        rows = tf.cast(tf.gather(image, tf.minimum(first + tap, before - 1)), tf.int32)
        return tap + 1, total + rows * weights[:, tap, None, None]

    taps = tf.shape(weights)[1]
    _, total = tf.while_loop(lambda tap, _: tap < taps, add, (0, begin), parallel_iterations=1)
    return tf.cast(tf.clip_by_value(tf.bitwise.right_shift(total, PRECISION_BITS), 0, 255), tf.uint8)


def _weights(before: Any, size: Any, count: Any, name: str) -> tuple[Any, Any]:
    """For each wanted row: its first source row, and the weights of that row and those after it."""
    import tensorflow as tf

    scale = _quotient(before, size)
    stretch = tf.maximum(scale, 1.0)  # a filter is wider when it shrinks, so that it uses every pixel
    support = SUPPORT[name] * stretch
    centre = (tf.cast((size - count) // 2 + tf.range(count), tf.float64) + 0.5) * scale
    first = tf.maximum(_truncated(centre - support + 0.5), 0)
    last = tf.minimum(_truncated(centre + support + 0.5), before)
    taps = tf.range(2 * tf.cast(tf.math.ceil(support), tf.int32) + 1)
    distance = tf.cast(first[:, None] + taps[None, :], tf.float64) - centre[:, None] + 0.5
    raw = tf.where(taps[None, :] < (last - first)[:, None], _curve(name, distance * (1.0 / stretch)), 0.0)
    share = tf.math.divide_no_nan(raw, tf.reduce_sum(raw, axis=1, keepdims=True)) * float(1 << PRECISION_BITS)
    return first, _truncated(share + tf.where(share < 0, tf.constant(-0.5, tf.float64), 0.5))


def _curve(name: str, distance: Any) -> Any:
    """A filter's weight at this distance from its centre, in pixels."""
    import tensorflow as tf

    x = tf.abs(distance)
    match name:
        case "box":
            return tf.where((distance > -0.5) & (distance <= 0.5), tf.ones_like(x), 0.0)  # noqa: PLR2004
        case "bilinear":
            return tf.maximum(1.0 - x, 0.0)
        case "hamming":
            window = 0.54 + 0.46 * tf.cos(math.pi * x)
            return tf.where(x < 1.0, _sinc(x) * window, 0.0)
        case "bicubic":
            a = -0.5
            near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
            far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
            return tf.where(x < 1.0, near, tf.where(x < 2.0, far, 0.0))  # noqa: PLR2004
        case _:
            return tf.where((distance >= -3.0) & (distance < 3.0), _sinc(x) * _sinc(x / 3.0), 0.0)  # noqa: PLR2004


def _sinc(x: Any) -> Any:
    import tensorflow as tf

    return tf.where(x > 0.0, tf.math.divide_no_nan(tf.sin(math.pi * x), math.pi * x), 1.0)


def _nearest(image: Any, size: Any, count: Any, _: str) -> Any:
    """Resample the first axis by nearest neighbour. Like PIL, add the steps one by one in 64-bit floats, so that ties agree."""
    import tensorflow as tf

    scale = _quotient(tf.shape(image)[0], size)
    start = (size - count) // 2
    steps = tf.concat([[scale * 0.5], tf.fill([start + count - 1], scale)], axis=0)
    return tf.gather(image, tf.minimum(_truncated(tf.cumsum(steps)), tf.shape(image)[0] - 1)[start:])


def _quotient(before: Any, after: Any) -> Any:
    """The quotient in 64 bits. Not a plain division: the optimiser would multiply by the reciprocal, which gives other values."""
    import tensorflow as tf

    return tf.math.divide_no_nan(tf.cast(before, tf.float64), tf.cast(after, tf.float64))


def _truncated(value: Any) -> Any:
    import tensorflow as tf

    return tf.cast(value, tf.int32)
