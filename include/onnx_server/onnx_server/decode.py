"""Decodes image files to upright pixels; refuses what it cannot decode before it starts.

Refusals, limits and texts are those of the TensorFlow graph (include/model/decode.py): a client gets the same answer.
"""

import binascii
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from .header import NOT_READ, read_header

BROKEN = "is broken or cut short"
NOT_BASE64 = "is not in web-safe base64"
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
WIDE_GREY = frozenset({"I;16", "I;16B", "I;16L", "I"})
WEB_SAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
TO_STANDARD = bytes.maketrans(b"-_", b"+/")
PADDED = {b"": {0, 2, 3}, b"=": {3}, b"==": {2}}  # the digits of the last group of four, by the padding after them

Image.MAX_IMAGE_PIXELS = None  # the limit is the model's own: max_side


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest file and the longest side that are decoded."""

    max_file_bytes: int
    max_side: int  # pixels


class BadImage(Exception):
    """An image is not decoded. The reason is worded to follow "image 3"."""


def read_image(data: bytes, limits: Limits) -> Image.Image:
    """A file's upright pixels in RGB, without alpha; of an animation the first frame. Raises BadImage."""
    kind, size = _checked(data, limits)
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as opened:
            found = _upright(opened) if opened.size == size else None
    except Exception as error:  # PIL raises a dozen types of errors for invalid files
        raise BadImage(BROKEN) from error
    if found is None:  # its decoder finds another size, which was not checked
        raise BadImage(BROKEN)
    return found


def _checked(data: bytes, limits: Limits) -> tuple[str, tuple[int, int]]:
    """PIL's name of the file's format and the size in its header. Raises BadImage for what its length and header rule out."""
    if not data:
        raise BadImage("is empty")
    if len(data) > limits.max_file_bytes:
        raise BadImage(f"has {len(data)} bytes, {limits.max_file_bytes} are allowed")
    header = read_header(data)
    if header.kind is None:
        raise BadImage("is no JPEG, PNG, GIF, BMP or WebP image")
    if max(header.height, header.width) > limits.max_side:
        raise BadImage(f"has {header.width} x {header.height} pixels, a side of {limits.max_side} is allowed")
    if min(header.height, header.width) < 1:
        raise BadImage(BROKEN)
    if not header.is_read:
        raise BadImage(NOT_READ[header.kind])
    if not header.is_whole:
        raise BadImage(BROKEN)
    return header.kind, (header.width, header.height)


def _upright(opened: Any) -> Image.Image:
    """The image as 🤗's `load_image` returns it, except that 16-bit grey is scaled to 8 bits: PIL would clip it at 255."""
    opened.load()
    way = UPRIGHT.get(_orientation(opened))
    image = Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8)) if opened.mode in WIDE_GREY else opened
    image = image.convert("RGB") if image.mode != "RGB" else image
    return image.transpose(way) if way is not None else image


def _orientation(opened: Any) -> Any:
    """The EXIF orientation; None if it is missing or invalid."""
    try:
        return opened.getexif().get(ORIENTATION)
    except Exception:  # EXIF that cannot be read turns nothing
        return None


def read_base64(text: bytes) -> bytes:
    """Decode web-safe base64, with or without padding. Raises BadImage."""
    rest = text.translate(None, WEB_SAFE)
    digits = text[: len(text) - len(rest)]
    if len(digits) % 4 not in PADDED.get(rest, ()) or not text.endswith(rest):
        raise BadImage(NOT_BASE64)
    return binascii.a2b_base64(digits.translate(TO_STANDARD) + b"=" * (-len(digits) % 4))
