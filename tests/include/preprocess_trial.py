"""Run by conftest.py in the exporter's environment: every kind of image through the graph's preprocessing and through 🤗's own.

Prints one JSON object: for each processor and image the largest and mean difference, in levels of 0 to 255.
"""

import io
import json

import numpy as np
import tensorflow as tf
from PIL import Image
from preprocess import Normalise, Rescale, apply, decode, plan_preprocess
from sklearn.datasets import load_sample_image
from transformers import ConvNextImageProcessor, DeiTImageProcessor, MobileViTImageProcessor, ViTImageProcessor

PHOTO = Image.fromarray(load_sample_image("china.jpg"))  # 640 x 427
EDGE = {"shortest_edge": 64}


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The image as a file's bytes."""
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def images() -> dict[str, bytes]:
    """Each image's bytes by name."""
    frames = [PHOTO.crop((0, 0, 200, 150)), PHOTO.crop((300, 100, 500, 250))]
    grey = PHOTO.convert("L")
    sizes = [(1, 1), (3, 7), (7, 3), (33, 500), (500, 33), (32, 32), (97, 64)]
    return {
        "photo.jpg": encoded(PHOTO, "JPEG", quality=90),
        "full-colour.jpg": encoded(PHOTO, "JPEG", quality=95, subsampling=0),
        "progressive.jpg": encoded(PHOTO, "JPEG", quality=85, progressive=True),
        "grey.jpg": encoded(grey, "JPEG"),
        "rgb.png": encoded(PHOTO, "PNG"),
        "rgba.png": encoded(PHOTO.convert("RGBA"), "PNG"),
        "grey.png": encoded(grey, "PNG"),
        "grey-alpha.png": encoded(PHOTO.convert("LA"), "PNG"),
        "palette.png": encoded(PHOTO.convert("P"), "PNG"),
        "black-and-white.png": encoded(PHOTO.convert("1"), "PNG"),
        "still.gif": encoded(frames[0], "GIF"),
        "animated.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "rgb.bmp": encoded(PHOTO, "BMP"),
        "rgba.bmp": encoded(PHOTO.convert("RGBA"), "BMP"),
        "palette.bmp": encoded(PHOTO.convert("P"), "BMP"),
        "grey.bmp": encoded(grey, "BMP"),
        **{f"{w}x{h}.png": encoded(PHOTO.crop((100, 100, 100 + w, 100 + h)), "PNG") for w, h in sizes},
    }


def processors() -> dict[str, object]:
    """Each 🤗 processor by name."""
    size = {"height": 32, "width": 48}
    return {
        "vit-bilinear": ViTImageProcessor(size=size),
        "vit-bicubic": ViTImageProcessor(size=size, resample=3),
        "vit-nearest": ViTImageProcessor(size=size, resample=0),
        "vit-lanczos": ViTImageProcessor(size=size, resample=1),
        "deit-crop": DeiTImageProcessor(size={"height": 64, "width": 64}, crop_size={"height": 56, "width": 48}),
        "convnext-small": ConvNextImageProcessor(size=EDGE, crop_pct=0.875),
        "convnext-large": ConvNextImageProcessor(size={"shortest_edge": 384}),
        "mobilevit": MobileViTImageProcessor(size=EDGE, crop_size={"height": 60, "width": 60}),
    }


def levels(steps: tuple) -> float:
    """How much one level of 0 to 255 is worth after the steps, in the least spread channel."""
    worth = next(step.factor for step in steps if isinstance(step, Rescale))
    return worth / max((max(step.std) for step in steps if isinstance(step, Normalise)), default=1.0)


def main() -> None:
    """Compare every processor on every image."""
    answer: dict[str, dict[str, list[float]]] = {}
    pictures = images()
    for name, processor in processors().items():
        steps = plan_preprocess(type(processor).__name__, processor.to_dict())
        ours = tf.function(lambda data, steps=steps: apply(steps, decode(data)), autograph=False)
        answer[name] = {}
        for image, data in pictures.items():
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            theirs = processor(pixels, return_tensors="np", input_data_format="channels_last")["pixel_values"][0]
            got = ours(tf.constant(data)).numpy()
            if got.shape != theirs.shape:
                answer[name][image] = [999.0, 999.0]
                continue
            apart = np.abs(got - theirs) / levels(steps)
            answer[name][image] = [round(float(apart.max()), 3), round(float(apart.mean()), 4)]
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
