"""How 🤗 reads an image file, for every reference answer: opened by PIL, turned upright, in three channels."""

from __future__ import annotations

import io
from typing import Any

WIDE_GREY = ("I;16", "I;16B", "I;16L", "I")


def upright_pixels(data: bytes) -> Any:
    """The file's pixels as 🤗's `load_image` returns them, uint8 (height, width, 3). Raises OSError if PIL cannot open it.

    One difference: PIL clips 16-bit grey at 255, so nearly all of it is white; this function scales it to 8 bits.
    """
    import numpy as np
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        grey = opened.mode in WIDE_GREY
        image = Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8)) if grey else opened
        if grey:
            image.info.update(opened.info)
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def is_cmyk(data: bytes) -> bool:
    """Whether the file is in CMYK, which TensorFlow converts to slightly darker colours than PIL."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        return opened.mode == "CMYK"


def prepare(processor: Any, pixels: Any) -> Any:
    """The output of the checkpoint's own processor, float32 (1, 3, height, width).

    States where the channels are: otherwise the processor guesses, wrongly for an image 3 pixels high.
    """
    import numpy as np

    return processor(pixels, return_tensors="np", input_data_format="channels_last")["pixel_values"].astype(np.float32)
