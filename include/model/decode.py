"""Decodes image files to upright pixels in the graph; refuses what it cannot decode before it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bmp import decode_bmp, is_whole, layout
from header import BMP, GIF, JPEG, PNG, UNKNOWN, WEBP, Header, read_header

BROKEN = "is broken or cut short"
UNSUPPORTED = {  # no apostrophes: TensorFlow's error messages put backslashes before them
    JPEG: "is a CMYK JPEG without the marker of Adobe that says how its colours are meant",
    GIF: "is a GIF whose first frame is not the whole picture, only whole ones are read",
    WEBP: "is an animated WebP, only still ones are read",
}
# Exactly the texts that TensorFlow decodes. Checked first, because catching TensorFlow's error costs milliseconds.
WEB_SAFE = "([A-Za-z0-9_-]{4})*([A-Za-z0-9_-]{2}(==)?|[A-Za-z0-9_-]{3}=?)?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest file and the longest side that are decoded."""

    max_file_bytes: int
    max_side: int  # pixels


def read_image(data: Any, limits: Limits, *, catch: bool = False) -> tuple[Any, Any]:
    """A file's upright pixels, uint8 (height, width, 3), without alpha; of an animation the first frame.

    Returns the pixels and an empty text; or one black pixel and why the file is not decoded, worded to follow "image 3".
    A file with a valid header and broken image data raises INVALID_ARGUMENT, unless `catch` is true.
    """
    import tensorflow as tf

    size = tf.strings.length(data)
    header = read_header(tf.strings.substr(data, 0, tf.where(size > limits.max_file_bytes, 64, size)))
    why = _reason_to_refuse(data, header, limits)
    black = tf.zeros([1, 1, 3], tf.uint8)

    def attempt(work: Callable[[Any], Any]) -> tuple[Any, Any]:
        if not catch:
            return work(data), tf.constant("")
        return _caught(lambda file: (work(file), ""), data, otherwise=(black, tf.constant(BROKEN)))

    def decoded() -> tuple[Any, Any]:
        decoders = _decoders(header)
        return tf.switch_case(header.kind, [lambda work=work: attempt(work) for work in decoders])

    image, why = tf.cond(why == "", decoded, lambda: (black, why))
    return _upright(tf.ensure_shape(image, [None, None, 3]), header.orientation), why


def read_base64(text: Any) -> tuple[Any, Any]:
    """Decode web-safe base64: the bytes and an empty text, or no bytes and what is wrong."""
    import tensorflow as tf

    good = tf.strings.regex_full_match(text, WEB_SAFE)
    data = tf.io.decode_base64(tf.where(good, text, ""))
    return data, tf.where(good, "", "is not in web-safe base64")


def _reason_to_refuse(data: Any, header: Header, limits: Limits) -> Any:
    """Why the file is not decoded, from its length and header alone; empty if it is."""
    import tensorflow as tf

    size, text, bmp = tf.strings.length(data), tf.strings.as_string, layout(data, header)
    area = tf.strings.join([text(header.width), " x ", text(header.height)])
    found = [
        (size == 0, "is empty"),
        (
            size > limits.max_file_bytes,
            tf.strings.join(["has ", text(size), f" bytes, {limits.max_file_bytes} are allowed"]),
        ),
        (header.kind == UNKNOWN, "is no JPEG, PNG, GIF, BMP or WebP image"),
        (
            tf.maximum(header.height, header.width) > limits.max_side,
            tf.strings.join(["has ", area, f" pixels, a side of {limits.max_side} is allowed"]),
        ),
        (tf.minimum(header.height, header.width) < 1, BROKEN),
        *((header.is_unsupported & (header.kind == kind), why) for kind, why in UNSUPPORTED.items()),
        ((header.kind == BMP) & ~bmp.is_plain, "is a BMP of a kind that is not read: compressed, or of 16 bits"),
        ((header.kind == BMP) & ~is_whole(data, bmp), BROKEN),
    ]
    words = tf.constant("")
    for holds, why in reversed(found):
        words = tf.where(holds, why, words)
    return words


def _decoders(header: Header) -> list[Callable[[Any], Any]]:
    """The decoders, in the order of the numbers of the kinds."""
    import tensorflow as tf

    def png(data: Any) -> Any:
        return tf.io.decode_png(data, channels=3)  # keeps the upper 8 of 16 bits

    def gif(data: Any) -> Any:
        # The blocks before the frame are left out: one of them makes a colour transparent, which TensorFlow paints black.
        start, frame, end = tf.unstack(header.detail)
        parts = [tf.strings.substr(data, 0, start), tf.strings.substr(data, frame, end - frame), b"\x3b"]
        return tf.io.decode_gif(tf.strings.join(parts))[0]

    def webp(data: Any) -> Any:
        return tf.io.decode_webp(data)[0, ..., :3]

    def jpeg(data: Any) -> Any:
        return _jpeg(data, header)

    def bmp(data: Any) -> Any:
        return decode_bmp(data, header)

    kinds = {UNKNOWN: png, JPEG: jpeg, PNG: png, GIF: gif, BMP: bmp, WEBP: webp}
    return [kinds[kind] for kind in sorted(kinds)]


def _jpeg(data: Any, header: Header) -> Any:
    import tensorflow as tf

    # Refuse a file in which TensorFlow finds another size than read_header did: that size was never checked.
    agree = tf.reduce_all(tf.io.extract_jpeg_shape(data)[:2] == [header.height, header.width])
    with tf.control_dependencies([tf.debugging.Assert(agree, ["the JPEG has two sizes"])]):
        # PIL uses the accurate transform; TensorFlow's default is a faster one.
        return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")


def _upright(image: Any, orientation: Any) -> Any:
    """Turn and mirror the image as its EXIF orientation says."""
    import tensorflow as tf

    def mirrored(picture: Any, axis: int, numbers: list[int]) -> Any:
        applies = tf.reduce_any(orientation == tf.constant(numbers))
        return tf.cond(applies, lambda: tf.reverse(picture, [axis]), lambda: picture)

    turned = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)  # noqa: PLR2004
    return mirrored(mirrored(turned, 1, [2, 3, 6, 7]), 0, [3, 4, 7, 8])


def _caught(work: Any, data: Any, *, otherwise: tuple[Any, ...]) -> Any:
    """The result of `work` on `data`, or `otherwise` if it raises. Inside a graph only a data set can catch an error.

    `work` is set up again for each image, so keep it small. Reducing a data set instead costs ten times as much.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False
    attempts = tf.data.Dataset.from_tensors(data).map(work).ignore_errors()
    return (
        attempts.concatenate(tf.data.Dataset.from_tensors(otherwise)).take(1).with_options(options).get_single_element()
    )
