"""How 🤗 sees an image file: opened by PIL, turned upright, in three channels. What every reference begins with."""

from __future__ import annotations

import io
from typing import Any

WIDE_GREY = ("I;16", "I;16B", "I;16L", "I")


def upright_pixels(data: bytes) -> Any:
    """The file's pixels as 🤗's `load_image` gives them, uint8 (height, width, 3). Raises OSError where PIL cannot.

    One difference: PIL cuts grey of 16 bits off at 255, so that nearly all of it is white; here it is scaled to 8 bits.
    """
    import numpy as np
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        grey = opened.mode in WIDE_GREY
        picture = Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8)) if grey else opened
        if grey:
            picture.info.update(opened.info)
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


def is_cmyk(data: bytes) -> bool:
    """Whether the file has a printer's four colours, which TensorFlow mixes a little darker than PIL."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        return opened.mode == "CMYK"


def prepare(processor: Any, pixels: Any) -> Any:
    """What the checkpoint's own processor makes of them, float32 (1, 3, height, width).

    Told where the channels are, because the processor would guess, and guess wrong for a picture 3 pixels high.
    """
    import numpy as np

    return processor(pixels, return_tensors="np", input_data_format="channels_last")["pixel_values"].astype(np.float32)
