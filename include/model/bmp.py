"""Decodes BMP files in the graph.

TensorFlow's decoder reads palette indices as grey levels, and does not read depths under 8 bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from header import Header, number

MASKS = (0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0)  # the usual red, green and blue masks of a 32-bit BMP


class Layout(NamedTuple):
    """Where the pixels are in a BMP file, as int64 scalars in the graph."""

    offset: Any  # where the rows begin
    stride: Any  # bytes in a row
    height: Any
    width: Any
    bits: Any
    table: Any  # where the palette begins
    colours: Any  # in the palette
    is_plain: Any  # not compressed, and of a supported depth


def layout(data: Any, header: Header) -> Layout:
    """Read the layout from the file's header."""
    import tensorflow as tf

    raw = tf.concat([tf.io.decode_raw(tf.strings.substr(data, 0, 128), tf.uint8), tf.zeros([128], tf.uint8)], axis=0)
    size, bits, compression, used = (number(raw, at, count) for at, count in ((14, 4), (28, 2), (30, 4), (46, 4)))
    usual = tf.reduce_all(raw[54:66] == tf.constant(MASKS, tf.uint8))
    depth = tf.reduce_any(bits == tf.constant([1, 4, 8, 24, 32], tf.int64))
    plain = (compression == 0) | ((compression == 3) & (bits == 32) & usual)  # noqa: PLR2004
    height, width = tf.cast(header.height, tf.int64), tf.cast(header.width, tf.int64)
    return Layout(
        offset=number(raw, 10, 4),
        stride=(width * bits + 31) // 32 * 4,
        height=height,
        width=width,
        bits=bits,
        table=14 + size,
        colours=tf.where((used > 0) & (used < 256), used, 256),  # noqa: PLR2004
        is_plain=(size >= 40) & depth & plain,  # noqa: PLR2004
    )


def is_whole(data: Any, found: Layout) -> Any:
    """Whether the file has all its rows."""
    import tensorflow as tf

    return found.offset + found.stride * found.height <= tf.cast(tf.strings.length(data), tf.int64)


def decode_bmp(data: Any, header: Header) -> Any:
    """The pixels of a plain and complete BMP, uint8 (height, width, 3)."""
    import tensorflow as tf

    found, raw = layout(data, header), tf.io.decode_raw(data, tf.uint8)
    rows = tf.reshape(raw[found.offset : found.offset + found.stride * found.height], [found.height, found.stride])

    def looked_up() -> Any:
        palette = raw[found.table : found.table + 4 * found.colours]
        palette = tf.concat([palette, tf.zeros([1024], tf.uint8)], axis=0)[:1024]
        bits = tf.cast(found.bits, tf.int32)
        each = tf.range(8 // bits - 1, -1, -1) * bits  # a byte's highest bits hold its leftmost pixel
        places = tf.bitwise.right_shift(tf.cast(rows, tf.int32)[..., None], each) & (2**bits - 1)
        places = tf.reshape(places, [found.height, found.stride * 8 // found.bits])[:, : found.width]
        return tf.gather(tf.reshape(palette, [256, 4])[:, 2::-1], places)

    def direct() -> Any:
        pixels = rows[:, : found.width * found.bits // 8]
        return tf.reshape(pixels, [found.height, found.width, found.bits // 8])[..., 2::-1]

    image = tf.cond(found.bits <= 8, looked_up, direct)  # noqa: PLR2004
    return tf.cond(header.detail[0] < 0, lambda: image, lambda: tf.reverse(image, [0]))
