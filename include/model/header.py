"""What an image file says of itself in its first bytes: its kind, its size and which way is up. Nothing is decoded.

Every function here takes any bytes at all and raises nothing: where the bytes make no sense, the size is 0 x 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

UNKNOWN, JPEG, PNG, GIF, BMP, WEBP = range(6)
SEGMENTS = 1000  # of a JPEG, before its picture; a real one has a dozen
BLOCKS = 70_000  # of a GIF, up to the end of its first frame: 255 bytes each


class Header(NamedTuple):
    """Scalars of a graph. `detail` is the kind's own: where a GIF's first frame ends, whether a WebP is animated."""

    kind: Any
    height: Any
    width: Any
    orientation: Any  # 1 to 8, as EXIF numbers them
    detail: Any


def read_header(data: Any) -> Header:
    """The header of the file in a scalar string tensor."""
    import tensorflow as tf

    raw = tf.concat([tf.io.decode_raw(data, tf.uint8), tf.zeros([64], tf.uint8)], axis=0)  # room to look past the end
    length = tf.strings.length(data)
    kind = _kind(raw)
    readers = [_unknown, _jpeg, _png, _gif, _bmp, _webp]
    height, width, exif, detail = tf.switch_case(
        kind, [lambda read=read: tuple(tf.cast(value, tf.int32) for value in read(raw, length)) for read in readers]
    )
    orientation = tf.cond(exif > 0, lambda: _orientation(raw[exif:length]), lambda: tf.constant(1))
    return Header(kind, height, width, orientation, detail)


def _kind(raw: Any) -> Any:
    import tensorflow as tf

    signatures = [(JPEG, 0, b"\xff\xd8\xff"), (PNG, 0, b"\x89PNG\r\n\x1a\n"), (GIF, 0, b"GIF8"), (BMP, 0, b"BM")]
    kind = tf.where(_says(raw, 0, b"RIFF") & _says(raw, 8, b"WEBP"), WEBP, UNKNOWN)
    for number, at, words in signatures:
        kind = tf.where(_says(raw, at, words), number, kind)
    return kind


def _says(raw: Any, at: Any, words: bytes) -> Any:
    import tensorflow as tf

    return tf.reduce_all(raw[at : at + len(words)] == tf.constant(list(words), tf.uint8))


def number(raw: Any, at: Any, size: int, *, big: bool = False) -> Any:
    """An unsigned number of so many bytes, as int64."""
    import tensorflow as tf

    digits = tf.cast(raw[at : at + size], tf.int64)
    worth = [256 ** (size - 1 - place if big else place) for place in range(size)]
    return tf.reduce_sum(digits * tf.constant(worth, tf.int64))


def _unknown(*_: Any) -> tuple[Any, ...]:
    return 0, 0, 0, 0


def _jpeg(raw: Any, length: Any) -> tuple[Any, ...]:
    """Walks from segment to segment up to the picture: the size is in one of them, the orientation in another."""
    import tensorflow as tf

    def goes_on(at: Any, count: Any, *_: Any) -> Any:
        return (at < length) & (count < SEGMENTS)

    def step(at: Any, count: Any, height: Any, width: Any, exif: Any) -> tuple[Any, ...]:
        here = tf.cast(raw[at : at + 10], tf.int32)
        marker, size = here[1], here[2] * 256 + here[3]
        is_frame = (marker >= 0xC0) & (marker <= 0xCF) & (marker != 0xC4) & (marker != 0xC8) & (marker != 0xCC)  # noqa: PLR2004
        is_exif = (marker == 0xE1) & _says(raw, at + 4, b"Exif\0\0")  # noqa: PLR2004
        is_end = (here[0] != 0xFF) | (marker == 0xDA) | (marker == 0xD9)  # noqa: PLR2004
        after = tf.where(marker == 0xFF, at + 1, at + 2 + size)  # noqa: PLR2004  # more than one FF is padding
        return (
            tf.where(is_end, length, after),
            count + 1,
            tf.where(is_frame, here[5] * 256 + here[6], height),
            tf.where(is_frame, here[7] * 256 + here[8], width),
            tf.where(is_exif & (exif == 0), at + 10, exif),
        )

    _, _, height, width, exif = tf.while_loop(goes_on, step, [tf.constant(value) for value in (2, 0, 0, 0, 0)])
    return height, width, exif, 0


def _png(raw: Any, _: Any) -> tuple[Any, ...]:
    return number(raw, 20, 4, big=True), number(raw, 16, 4, big=True), _find(raw, b"eXIf", 4), 0


def _find(raw: Any, words: bytes, after: int) -> Any:
    """Where a chunk of this name with a TIFF header in it begins its content, `after` bytes behind its name; else 0."""
    import tensorflow as tf

    signs = [*enumerate(words), *((after + at, code) for at, code in enumerate(b"II*\0"))]
    other = [*enumerate(words), *((after + at, code) for at, code in enumerate(b"MM\0*"))]
    room = tf.size(raw) - after - 4
    found = [
        tf.reduce_all(tf.stack([raw[at : room + at] == code for at, code in pattern]), axis=0)
        for pattern in (signs, other)
    ]
    places = tf.where(found[0] | found[1])[:, 0] + after
    return tf.reduce_max(tf.concat([places[:1], [tf.constant(0, tf.int64)]], axis=0))


def _gif(raw: Any, length: Any) -> tuple[Any, ...]:
    """Walks from block to block to the end of the first frame: what comes after it is never decoded."""
    import tensorflow as tf

    def table(flags: Any) -> Any:
        return tf.where(flags & 0x80 > 0, 3 * tf.bitwise.left_shift(2, flags & 7), 0)

    def goes_on(at: Any, count: Any, inside: Any, framed: Any, _: Any) -> Any:
        return (at < length) & (count < BLOCKS) & (inside | ~framed)

    def step(at: Any, count: Any, inside: Any, framed: Any, size: Any) -> tuple[Any, ...]:
        here = tf.cast(raw[at : at + 10], tf.int32)
        is_frame, is_extension = ~inside & (here[0] == 0x2C), ~inside & (here[0] == 0x21)  # noqa: PLR2004
        after = tf.where(inside, at + 1 + here[0], tf.where(is_frame, at + 11 + table(here[9]), at + 2))
        reach = [here[3] + here[4] * 256 + here[7] + here[8] * 256, here[1] + here[2] * 256 + here[5] + here[6] * 256]
        return (
            tf.where(inside | is_frame | is_extension, after, length),
            count + 1,
            tf.where(inside, here[0] > 0, is_frame | is_extension),
            framed | is_frame,
            tf.where(is_frame, tf.maximum(size, reach), size),  # a frame may be larger than the picture says it is
        )

    start = 13 + table(tf.cast(raw[10], tf.int32))
    size = [tf.cast(number(raw, at, 2), tf.int32) for at in (8, 6)]
    no = tf.zeros([], tf.bool)
    end, *_, size = tf.while_loop(goes_on, step, [start, tf.constant(0), no, no, tf.stack(size)])
    return size[0], size[1], 0, tf.minimum(end, length)


def _bmp(raw: Any, _: Any) -> tuple[Any, ...]:
    import tensorflow as tf

    signed = tf.bitcast(tf.cast(number(raw, 22, 4), tf.uint32), tf.int32)  # below zero where rows go from top to bottom
    width = tf.bitcast(tf.cast(number(raw, 18, 4), tf.uint32), tf.int32)
    return tf.abs(tf.maximum(signed, -(2**31) + 1)), tf.maximum(width, 0), 0, signed


def _webp(raw: Any, _: Any) -> tuple[Any, ...]:
    """Three kinds: with a canvas of its own (VP8X), lossless (VP8L), plain."""
    import tensorflow as tf

    extended, lossless = _says(raw, 12, b"VP8X"), _says(raw, 12, b"VP8L")
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
    exif = tf.maximum(_find(raw, b"EXIF", 8), _find(raw, b"EXIF", 14))  # some writers put Exif\0\0 before it
    exif = tf.where(extended & (flags & 8 > 0), exif, tf.zeros_like(exif))
    return sizes[0], sizes[1], exif, tf.where(extended, flags & 2, tf.zeros_like(flags))


def _orientation(tiff: Any) -> Any:
    """The orientation in a TIFF header's first directory, 1 where it has none or makes no sense."""
    import tensorflow as tf

    tiff = tf.concat([tiff[:65536], tf.zeros([16], tf.uint8)], axis=0)  # EXIF is 64 KB at most
    room = tf.size(tiff, out_type=tf.int64) - 16
    is_big = _says(tiff, 0, b"MM\0*")

    def read(at: Any, size: int) -> Any:
        return tf.where(is_big, number(tiff, at, size, big=True), number(tiff, at, size))

    start = tf.minimum(read(4, 4), room) + 2
    count = tf.minimum(read(start - 2, 2), tf.maximum(room - start, 0) // 12)
    entries = tf.cast(tf.reshape(tiff[start : start + count * 12], [-1, 12]), tf.int64)
    low, high = tf.where(is_big, 1, 0), tf.where(is_big, 0, 1)
    tags = tf.gather(entries, low, axis=1) + 256 * tf.gather(entries, high, axis=1)
    values = tf.gather(entries, 8 + low, axis=1) + 256 * tf.gather(entries, 8 + high, axis=1)
    found = tf.concat([[tf.constant(1, tf.int64)], tf.boolean_mask(values, tags == 0x0112)], axis=0)[-1]  # noqa: PLR2004
    makes_sense = (is_big | _says(tiff, 0, b"II*\0")) & (found >= 1) & (found <= 8)  # noqa: PLR2004
    return tf.where(makes_sense, tf.cast(found, tf.int32), 1)
