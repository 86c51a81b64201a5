"""Generates image files of every kind: the set for each export's comparison with 🤗, and the larger set for the report."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

ORIENTATION = 0x0112
SIDES = (1, 3, 7, 16, 33, 64, 97, 150, 224, 333, 500, 900)


class SampleImage(NamedTuple):
    """An image file and its kind, under which figures are grouped."""

    kind: str
    name: str
    data: bytes


def built_in() -> list[SampleImage]:
    """The set that every export is compared on: each kind of file once, and sizes that are hard to resize."""
    whole = scene(320, 213)
    sizes = [(1, 1), (3, 7), (500, 33), (33, 500), (1200, 900)]
    return [
        *kinds_of(whole, "scene"),
        SampleImage("JPEG, EXIF-rotated", "upside", encoded(whole, "JPEG", exif=exif(6))),
        *(SampleImage("PNG", f"{width}x{height}", encoded(scene(width, height), "PNG")) for width, height in sizes),
    ]


def within(images: list[SampleImage], *, max_file_bytes: int, max_side: int) -> list[SampleImage]:
    """The images that a model with these limits accepts."""
    from PIL import Image

    return [
        image
        for image in images
        if len(image.data) <= max_file_bytes and max(Image.open(io.BytesIO(image.data)).size) <= max_side
    ]


def report_set() -> list[SampleImage]:
    """More than 200 files: scikit-learn's two photographs, whole, cropped, at many sizes and in every kind of file."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    photos = {name: Image.fromarray(load_sample_image(f"{name}.jpg")) for name in ("china", "flower")}
    large = {"4000x3000": (4000, 3000), "3000x4000": (3000, 4000), "1920x1080": (1920, 1080)}
    images = built_in()
    for name, photo in photos.items():
        images += kinds_of(photo, name)
        images += rotated(photo.crop((90, 30, 400, 250)), name)
        images += at_many_sizes(photo, name)
        images += [
            SampleImage("JPEG", f"{name} {size}", encoded(photo.resize(to), "JPEG", quality=90))
            for size, to in large.items()
        ]
    return images


def rotated(image: Any, name: str) -> Iterator[SampleImage]:
    """All eight EXIF orientations, in the three kinds of file that have them."""
    for kind in ("JPEG", "PNG", "WEBP"):
        for number in range(1, 9):
            shown = {"WEBP": "WebP"}.get(kind, kind)
            yield SampleImage(f"{shown}, EXIF-rotated", f"{name} {number}", encoded(image, kind, exif=exif(number)))


def at_many_sizes(photo: Any, name: str) -> Iterator[SampleImage]:
    """Crops and resizes of a photograph, some with extreme aspect ratios."""
    for place, width in enumerate(SIDES):
        for height in (width, SIDES[-1 - place], SIDES[(place * 5 + 3) % len(SIDES)]):
            part = photo.resize((width, height)) if place % 2 else photo.crop((40, 20, 40 + width, 20 + height))
            kind, options = ("PNG", {}) if min(width, height) < 16 or place % 3 else ("JPEG", {"quality": 85})  # noqa: PLR2004
            yield SampleImage(kind, f"{name} {width}x{height}", encoded(part, kind, **options))


def kinds_of(image: Any, name: str) -> Iterator[SampleImage]:
    """One image in every kind of file."""
    frames = [image.resize((200, 150)), image.resize((200, 150)).rotate(180)]
    alpha = image.convert("RGBA")
    alpha.putalpha(image.convert("L"))
    grey, black, palette = image.convert("L"), image.convert("1"), image.convert("P")
    plain: dict[str, Callable[[], bytes]] = {
        "JPEG": lambda: encoded(image, "JPEG", quality=90),
        "JPEG, full colour": lambda: encoded(image, "JPEG", quality=95, subsampling=0),
        "JPEG, progressive": lambda: encoded(image, "JPEG", quality=80, progressive=True),
        "JPEG, grey": lambda: encoded(grey, "JPEG"),
        "JPEG, CMYK": lambda: encoded(cmyk(image), "JPEG"),
        "PNG": lambda: encoded(image, "PNG"),
        "PNG, alpha": lambda: encoded(alpha, "PNG"),
        "PNG, grey": lambda: encoded(grey, "PNG"),
        "PNG, grey and alpha": lambda: encoded(alpha.convert("LA"), "PNG"),
        "PNG, palette": lambda: encoded(palette, "PNG"),
        "PNG, black and white": lambda: encoded(black, "PNG"),
        "PNG, 16 bits": lambda: png_of_16_bits(image),
        "PNG, grey of 16 bits": lambda: png_of_16_bits(grey),
        "GIF": lambda: encoded(frames[0], "GIF"),
        "GIF, transparent": lambda: encoded(palette, "GIF", transparency=palette.getpixel((0, 0))),
        "GIF, animated": lambda: encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "BMP": lambda: encoded(image, "BMP"),
        "BMP, 32 bits": lambda: encoded(alpha, "BMP"),
        "BMP, palette": lambda: encoded(palette, "BMP"),
        "BMP, grey": lambda: encoded(grey, "BMP"),
        "BMP, black and white": lambda: encoded(black, "BMP"),
        "WebP": lambda: encoded(image, "WEBP", quality=80),
        "WebP, alpha": lambda: encoded(alpha, "WEBP", quality=80),
        "WebP, lossless": lambda: encoded(image, "WEBP", lossless=True),
    }
    for kind, encode in plain.items():
        yield SampleImage(kind, name, encode())


def scene(width: int, height: int) -> Any:
    """An image with soft and hard edges and some noise, the same on every machine."""
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    noise = (x * 7919 + y * 104_729 + (x * y) % 251 * 31) % 23
    soft = [(x * 255) // max(width, 1), (y * 255) // max(height, 1), ((x + y) * 127) // max(width + height, 1) + 64]
    hard = ((x // 17 + y // 11) % 2) * 60
    return Image.fromarray(np.clip(np.stack(soft, axis=-1) + (hard + noise)[..., None] - 40, 0, 255).astype(np.uint8))


def cmyk(image: Any) -> Any:
    """The image in CMYK: black is the part that the three colours share."""
    import numpy as np
    from PIL import Image

    colours = 255 - np.asarray(image)
    black = colours.min(axis=-1)
    return Image.merge("CMYK", [*Image.fromarray(colours - black[..., None]).split(), Image.fromarray(black)])


def exif(number: int) -> bytes:
    """EXIF data with only this orientation."""
    from PIL import Image

    data = Image.Exif()
    data[ORIENTATION] = number
    return data.tobytes()


def encoded(image: Any, kind: str, **options: object) -> bytes:
    """The image as a file's bytes."""
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def png_of_16_bits(image: Any) -> bytes:
    """A PNG with 16 bits per channel, grey or RGB; PIL cannot write 16-bit RGB."""
    import numpy as np

    values = np.asarray(image).astype(np.uint16) * 257
    values[..., ::2] ^= 0x55  # so that the lower bytes differ from the upper ones
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 16, 2 if values.ndim == 3 else 0, 0, 0, 0)  # noqa: PLR2004
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
