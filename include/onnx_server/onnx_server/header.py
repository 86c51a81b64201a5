"""Reads an image file's header: kind, size, and what makes it a file that is not read. Nothing is decoded.

Every function takes any bytes and raises nothing; if the bytes are invalid, the size is 0 x 0. The rules are those of the
TensorFlow graph that the other exporter makes (include/model/header.py): a test reads the same files with both.
"""

from typing import NamedTuple

JPEG, PNG, GIF, BMP, WEBP = "JPEG", "PNG", "GIF", "BMP", "WEBP"
SEGMENTS = 1000  # the most that are read in a JPEG before its image data; a real file has about a dozen
BLOCKS = 70_000  # the most that are read in a GIF up to the end of its first frame, 255 bytes each
NO_SIZE = (0, 0)
MASKS = bytes((0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0))  # the usual red, green and blue masks of a 32-bit BMP
NOT_READ = {
    JPEG: "is a CMYK JPEG without the marker of Adobe that says how its colours are meant",
    GIF: "is a GIF whose first frame is not the whole picture, only whole ones are read",
    WEBP: "is an animated WebP, only still ones are read",
    BMP: "is a BMP of a kind that is not read: compressed, or of 16 bits",
}


class Header(NamedTuple):
    """What a file says about itself. `kind` is PIL's name of the format; None if it is none that is read."""

    kind: str | None
    height: int
    width: int
    is_read: bool = True  # False: a kind of file that is not read, see NOT_READ
    is_whole: bool = True  # False: the file is shorter than its header says


def read_header(data: bytes) -> Header:
    """Read the header of a file."""
    for kind, begin, read in READERS:
        if data.startswith(begin) and (kind != WEBP or data[8:12] == b"WEBP"):
            return read(data)
    return Header(None, *NO_SIZE)


def number(data: bytes, at: int, size: int, order: str = "little") -> int:
    """The unsigned number in `size` bytes. Bytes past the end count as zeros."""
    return int.from_bytes(data[at : at + size].ljust(size, b"\0"), order)  # type: ignore[arg-type]


def _jpeg(data: bytes) -> Header:
    """Read the segments before the image data: the size and Adobe's marker are each in one of them."""
    at, height, width, colours, has_adobe = 2, 0, 0, 0, False
    for _ in range(SEGMENTS):
        here = data[at : at + 10].ljust(10, b"\0")
        marker = here[1]
        if at >= len(data) or here[0] != 0xFF or marker in {0xDA, 0xD9}:  # noqa: PLR2004
            break
        if marker == 0xFF:  # noqa: PLR2004  # more than one FF is padding
            at += 1
            continue
        size = number(here, 2, 2, "big")
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:  # noqa: PLR2004
            height, width, colours = number(here, 5, 2, "big"), number(here, 7, 2, "big"), here[9]
        has_adobe = has_adobe or (marker == 0xEE and size >= 14 and here[4:9] == b"Adobe")  # noqa: PLR2004
        at += 2 + size
    return Header(JPEG, height, width, is_read=colours != 4 or has_adobe)  # noqa: PLR2004


def _png(data: bytes) -> Header:
    height, width = (int.from_bytes(data[at : at + 4].ljust(4, b"\0"), "big", signed=True) for at in (20, 16))
    return Header(PNG, height, width)  # negative ones are invalid, as in the graph


def _gif(data: bytes) -> Header:
    """Read the blocks up to the end of the first frame; what comes after it is never decoded."""

    def table(flags: int) -> int:
        return 3 * (2 << (flags & 7)) if flags & 0x80 else 0

    at, inside, frame = 13 + table(number(data, 10, 1)), False, 0
    for _ in range(BLOCKS):
        if at >= len(data) or not (inside or frame == 0):
            break
        here = number(data, at, 1)
        if inside:
            inside = here > 0
            at += 1 + here
        elif here == 0x2C:  # noqa: PLR2004  # a frame
            frame, inside = at, True
            at += 11 + table(number(data, at + 9, 1))
        elif here == 0x21:  # noqa: PLR2004  # an extension
            inside = True
            at += 2
        else:
            break
    if not 0 < frame <= len(data) - 10:
        return Header(GIF, *NO_SIZE)
    top, left = number(data, frame + 3, 2), number(data, frame + 1, 2)
    high, wide = number(data, frame + 7, 2), number(data, frame + 5, 2)
    # A frame may be larger than the size in the header.
    height, width = max(number(data, 8, 2), top + high), max(number(data, 6, 2), left + wide)
    return Header(GIF, height, width, is_read=not (top or left or high < height or wide < width))


def _bmp(data: bytes) -> Header:
    """The size, and whether the rows are not compressed, of a depth that is read, and all in the file."""
    signed = int.from_bytes(
        data[22:26].ljust(4, b"\0"), "little", signed=True
    )  # negative if rows go from top to bottom
    height = min(abs(signed), 2**31 - 1)
    width = max(int.from_bytes(data[18:22].ljust(4, b"\0"), "little", signed=True), 0)
    offset, size, bits, compression = (number(data, at, count) for at, count in ((10, 4), (14, 4), (28, 2), (30, 4)))
    is_plain = compression == 0 or (compression == 3 and bits == 32 and data[54:66] == MASKS)  # noqa: PLR2004
    is_read = size >= 40 and bits in {1, 4, 8, 24, 32} and is_plain  # noqa: PLR2004
    stride = (width * bits + 31) // 32 * 4
    return Header(BMP, height, width, is_read=is_read, is_whole=offset + stride * height <= len(data))


def _webp(data: bytes) -> Header:
    """Three formats: extended, with its own canvas size (VP8X); lossless (VP8L); simple."""
    kind = data[12:16]
    if kind == b"VP8X":
        animated = bool(number(data, 20, 1) & 2)
        return Header(WEBP, number(data, 27, 3) + 1, number(data, 24, 3) + 1, is_read=not animated)
    if kind == b"VP8L":
        packed = number(data, 21, 4)
        return Header(WEBP, (packed >> 14) % 2**14 + 1, packed % 2**14 + 1)
    return Header(WEBP, number(data, 28, 2) % 2**14, number(data, 26, 2) % 2**14)


READERS = (
    (JPEG, b"\xff\xd8\xff", _jpeg),
    (PNG, b"\x89PNG\r\n\x1a\n", _png),
    (GIF, b"GIF8", _gif),
    (BMP, b"BM", _bmp),
    (WEBP, b"RIFF", _webp),
)
