"""Reads an image file's header in the graph: kind, size and orientation. Nothing is decoded.

Every function takes any bytes and raises nothing; if the bytes are invalid, the size is 0 x 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

UNKNOWN, JPEG, PNG, GIF, BMP, WEBP = range(6)
SEGMENTS = 1000  # the most that are read in a JPEG before its image data; a real file has about a dozen
BLOCKS = 70_000  # the most that are read in a GIF up to the end of its first frame, 255 bytes each
NAMES = 8  # the most places with a chunk's name that are checked; pixels contain it by chance once in 4 GB
EXIF_BYTES = 65_536  # the most that are read
NOTHING = (0, 0, 0)


class Header(NamedTuple):
    """Tensors in the graph: scalars, and in `detail` three numbers that depend on the kind.

    For a GIF: where its blocks, its first frame and the data after that frame begin. For a BMP: its height with its sign.
    """

    kind: Any
    height: Any
    width: Any
    orientation: Any  # 1 to 8, as EXIF numbers them
    is_unsupported: (
        Any  # CMYK JPEG without Adobe's marker, GIF with a first frame smaller than the image, animated WebP
    )
    detail: Any


def read_header(data: Any) -> Header:
    """Read the header of the file in a scalar string tensor."""
    import tensorflow as tf

    raw = tf.concat(
        [tf.io.decode_raw(data, tf.uint8), tf.zeros([64], tf.uint8)], axis=0
    )  # padding for reads past the end
    length = tf.strings.length(data)

    def read_by(reader: Callable[..., tuple[Any, ...]]) -> tuple[Any, ...]:
        return tuple(tf.cast(value, tf.int32) for value in reader(data, raw, length))

    kind = _kind(raw)
    readers = [_unknown, _jpeg, _png, _gif, _bmp, _webp]
    read = tf.switch_case(kind, [lambda reader=reader: read_by(reader) for reader in readers])
    height, width, exif, is_unsupported, detail = read
    end = tf.minimum(exif + EXIF_BYTES, length)
    orientation = tf.cond(exif > 0, lambda: _orientation(raw[exif:end]), lambda: tf.constant(1))
    return Header(kind, height, width, orientation, is_unsupported > 0, detail)


def _kind(raw: Any) -> Any:
    import tensorflow as tf

    signatures = [(JPEG, 0, b"\xff\xd8\xff"), (PNG, 0, b"\x89PNG\r\n\x1a\n"), (GIF, 0, b"GIF8"), (BMP, 0, b"BM")]
    kind = tf.where(_matches(raw, 0, b"RIFF") & _matches(raw, 8, b"WEBP"), WEBP, UNKNOWN)
    for number, at, words in signatures:
        kind = tf.where(_matches(raw, at, words), number, kind)
    return kind


def _matches(raw: Any, at: Any, words: bytes) -> Any:
    import tensorflow as tf

    return tf.reduce_all(raw[at : at + len(words)] == tf.constant(list(words), tf.uint8))


def number(raw: Any, at: Any, size: int, *, big: bool = False) -> Any:
    """The unsigned number in `size` bytes, as int64."""
    import tensorflow as tf

    digits = tf.cast(raw[at : at + size], tf.int64)
    powers = [256 ** (size - 1 - place if big else place) for place in range(size)]
    return tf.reduce_sum(digits * tf.constant(powers, tf.int64))


def _unknown(*_: Any) -> tuple[Any, ...]:
    return 0, 0, 0, 0, NOTHING


def _jpeg(_: Any, raw: Any, length: Any) -> tuple[Any, ...]:
    """Read the segments before the image data: size, orientation and Adobe's marker are each in one of them."""
    import tensorflow as tf

    def unfinished(at: Any, count: Any, *_: Any) -> Any:
        return (at < length) & (count < SEGMENTS)

    def step(at: Any, count: Any, frame: Any, exif: Any, adobe: Any) -> tuple[Any, ...]:
        here = tf.cast(raw[at : at + 10], tf.int32)
        marker, size = here[1], here[2] * 256 + here[3]
        is_frame = (marker >= 0xC0) & (marker <= 0xCF) & (marker != 0xC4) & (marker != 0xC8) & (marker != 0xCC)  # noqa: PLR2004
        is_exif = (marker == 0xE1) & _matches(raw, at + 4, b"Exif\0\0")  # noqa: PLR2004
        is_adobe = (marker == 0xEE) & (size >= 14) & _matches(raw, at + 4, b"Adobe")  # noqa: PLR2004
        is_end = (here[0] != 0xFF) | (marker == 0xDA) | (marker == 0xD9)  # noqa: PLR2004
        after = tf.where(marker == 0xFF, at + 1, at + 2 + size)  # noqa: PLR2004  # more than one FF is padding
        return (
            tf.where(is_end, length, after),
            count + 1,
            tf.where(is_frame, [here[5] * 256 + here[6], here[7] * 256 + here[8], here[9]], frame),
            tf.where(is_exif & (exif == 0), at + 10, exif),
            adobe | is_adobe,
        )

    begin = (2, 0, tf.zeros([3], tf.int32), 0, tf.zeros([], tf.bool))
    _, _, frame, exif, adobe = tf.while_loop(unfinished, step, begin)
    return frame[0], frame[1], exif, (frame[2] == 4) & ~adobe, NOTHING  # noqa: PLR2004  # four colours


def _png(data: Any, raw: Any, _: Any) -> tuple[Any, ...]:
    return number(raw, 20, 4, big=True), number(raw, 16, 4, big=True), _find(data, raw, b"eXIf", 0), 0, NOTHING


def _find(data: Any, raw: Any, words: bytes, gap: int) -> Any:
    """Where a chunk of this name has a TIFF header, `gap` bytes after its name; 0 if none of the first few has."""
    import tensorflow as tf

    # Comparing byte by byte would take dozens of times the file's size in memory.
    pieces = tf.raw_ops.StringSplitV2(input=[data], sep=words, maxsplit=NAMES).values
    places = tf.cumsum(tf.strings.length(pieces) + len(words))[:-1] + gap
    here = tf.gather(raw, places[:, None] + tf.range(4))
    fits = [tf.reduce_all(here == tf.constant(list(order), tf.uint8), axis=1) for order in (b"II*\0", b"MM\0*")]
    return tf.reduce_max(tf.concat([places[fits[0] | fits[1]][:1], [0]], axis=0))


def _gif(_: Any, raw: Any, length: Any) -> tuple[Any, ...]:
    """Read the blocks up to the end of the first frame; what comes after it is never decoded."""
    import tensorflow as tf

    def table(flags: Any) -> Any:
        return tf.where(flags & 0x80 > 0, 3 * tf.bitwise.left_shift(2, flags & 7), 0)

    def unfinished(at: Any, count: Any, inside: Any, frame: Any) -> Any:
        return (at < length) & (count < BLOCKS) & (inside | (frame == 0))

    def step(at: Any, count: Any, inside: Any, frame: Any) -> tuple[Any, ...]:
        here = tf.cast(raw[at : at + 10], tf.int32)
        is_frame, is_extension = ~inside & (here[0] == 0x2C), ~inside & (here[0] == 0x21)  # noqa: PLR2004
        after = tf.where(inside, at + 1 + here[0], tf.where(is_frame, at + 11 + table(here[9]), at + 2))
        return (
            tf.where(inside | is_frame | is_extension, after, length),
            count + 1,
            tf.where(inside, here[0] > 0, is_frame | is_extension),
            tf.where(is_frame, at, frame),
        )

    def sides(*places: Any) -> Any:
        return tf.stack([tf.cast(number(raw, at, 2), tf.int32) for at in places])

    start = 13 + table(tf.cast(raw[10], tf.int32))
    end, _, _, frame = tf.while_loop(unfinished, step, (start, 0, tf.zeros([], tf.bool), 0))
    corner, extent = sides(frame + 3, frame + 1), sides(frame + 7, frame + 5)
    size = tf.maximum(sides(8, 6), corner + extent)  # a frame may be larger than the size in the header
    is_part = tf.reduce_any((corner > 0) | (extent < size))
    size = tf.where((frame > 0) & (frame + 10 <= length), size, 0)
    return size[0], size[1], 0, is_part, (start, frame, tf.minimum(end, length))


def _bmp(_: Any, raw: Any, __: Any) -> tuple[Any, ...]:
    import tensorflow as tf

    signed = tf.bitcast(tf.cast(number(raw, 22, 4), tf.uint32), tf.int32)  # negative if rows go from top to bottom
    width = tf.bitcast(tf.cast(number(raw, 18, 4), tf.uint32), tf.int32)
    return tf.abs(tf.maximum(signed, -(2**31) + 1)), tf.maximum(width, 0), 0, 0, (signed, 0, 0)


def _webp(data: Any, raw: Any, _: Any) -> tuple[Any, ...]:
    """Three formats: extended, with its own canvas size (VP8X); lossless (VP8L); simple."""
    import tensorflow as tf

    extended, lossless = _matches(raw, 12, b"VP8X"), _matches(raw, 12, b"VP8L")
    packed, flags = number(raw, 21, 4), number(raw, 20, 1)
    sizes = tf.where(
        extended,
        [number(raw, 27, 3) + 1, number(raw, 24, 3) + 1],
        tf.where(
            lossless,
            [(packed // 2**14) % 2**14 + 1, packed % 2**14 + 1],
            [number(raw, 28, 2) % 2**14, number(raw, 26, 2) % 2**14],
        ),
    )
    exif = tf.maximum(_find(data, raw, b"EXIF", 4), _find(data, raw, b"EXIF", 10))  # some programs write Exif\0\0 first
    exif = tf.where(extended & (flags & 8 > 0), exif, tf.zeros_like(exif))
    return sizes[0], sizes[1], exif, extended & (flags & 2 > 0), NOTHING


def _orientation(tiff: Any) -> Any:
    """The orientation in a TIFF header's first directory; 1 if it is missing or invalid."""
    import tensorflow as tf

    tiff = tf.concat([tiff, tf.zeros([16], tf.uint8)], axis=0)
    end = tf.size(tiff, out_type=tf.int64) - 16
    is_big = _matches(tiff, 0, b"MM\0*")

    def read(at: Any, size: int) -> Any:
        return tf.where(is_big, number(tiff, at, size, big=True), number(tiff, at, size))

    start = tf.minimum(read(4, 4), end) + 2
    count = tf.minimum(read(start - 2, 2), tf.maximum(end - start, 0) // 12)
    entries = tf.cast(tf.reshape(tiff[start : start + count * 12], [-1, 12]), tf.int64)
    low, high = tf.where(is_big, 1, 0), tf.where(is_big, 0, 1)
    tags = tf.gather(entries, low, axis=1) + 256 * tf.gather(entries, high, axis=1)
    values = tf.gather(entries, 8 + low, axis=1) + 256 * tf.gather(entries, 8 + high, axis=1)
    found = tf.concat([[tf.constant(1, tf.int64)], tf.boolean_mask(values, tags == 0x0112)], axis=0)[-1]  # noqa: PLR2004
    is_valid = (is_big | _matches(tiff, 0, b"II*\0")) & (found >= 1) & (found <= 8)  # noqa: PLR2004
    return tf.where(is_valid, tf.cast(found, tf.int32), 1)
