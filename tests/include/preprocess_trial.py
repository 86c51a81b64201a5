"""Compares the graph's preprocessing with 🤗's on every kind of image; conftest.py runs this in the exporter's environment.

Prints one JSON object: for each processor and image the largest difference, in levels of 0 to 255.
"""

import json

import numpy as np
import tensorflow as tf
from decode import Limits, read_image
from parity import one_level
from PIL import Image
from preprocess import apply
from processor import plan_preprocess
from reference_pixels import prepare, upright_pixels
from sample_images import SampleImage, at_many_sizes, built_in, encoded, kinds_of, rotated
from sklearn.datasets import load_sample_image
from transformers import ConvNextImageProcessor, DeiTImageProcessor, MobileViTImageProcessor, ViTImageProcessor

PHOTO = Image.fromarray(load_sample_image("china.jpg")).resize((320, 214))
EDGE = {"shortest_edge": 64}
LIMITS = Limits(max_file_bytes=1 << 24, max_side=8192)


def images() -> list[SampleImage]:
    """The built-in set, and a photograph in every kind of file, every orientation and some sizes."""
    alpha = PHOTO.convert("RGBA")
    alpha.putalpha(PHOTO.convert("L"))
    transparent = SampleImage("GIF, transparent", "photo of many alphas", encoded(alpha, "GIF"))
    return [
        transparent,
        *built_in(),
        *kinds_of(PHOTO, "photo"),
        *rotated(PHOTO, "photo"),
        *list(at_many_sizes(PHOTO, "photo"))[::3],
    ]


def processors() -> dict[str, object]:
    """Each 🤗 processor by name."""
    size = {"height": 32, "width": 48}
    return {
        "vit-bilinear": ViTImageProcessor(size=size),
        "vit-bicubic": ViTImageProcessor(size=size, resample=3),
        "vit-nearest": ViTImageProcessor(size=size, resample=0),
        "vit-lanczos": ViTImageProcessor(size=size, resample=1),
        "vit-box": ViTImageProcessor(size=size, resample=4),
        "vit-hamming": ViTImageProcessor(size=size, resample=5),
        "vit-own-numbers": ViTImageProcessor(
            size=48, rescale_factor=0.01, image_mean=[0.1, 0.2, 0.3], image_std=[0.3, 0.7, 0.9]
        ),
        "vit-bare": ViTImageProcessor(size=size, do_rescale=False, do_normalize=False),
        "deit-crop": DeiTImageProcessor(size={"height": 64, "width": 64}, crop_size={"height": 56, "width": 48}),
        "convnext-small": ConvNextImageProcessor(size=EDGE, crop_pct=0.875),
        "convnext-large": ConvNextImageProcessor(size={"shortest_edge": 384}),
        "mobilevit": MobileViTImageProcessor(size=EDGE, crop_size={"height": 60, "width": 60}),
    }


def main() -> None:
    """Compare every processor on every image."""
    answer: dict[str, dict[str, float]] = {}
    files = [(f"{image.kind}: {image.name}", image.data) for image in images()]
    seen = {name: upright_pixels(data) for name, data in files}
    for name, processor in processors().items():
        steps = plan_preprocess(type(processor).__name__, processor.to_dict())
        ours = tf.function(
            lambda data, steps=steps: apply(steps, read_image(data, LIMITS)[0]),
            input_signature=[tf.TensorSpec([], tf.string)],
            autograph=False,
        )
        answer[name] = {}
        for image, data in files:
            theirs, got = prepare(processor, seen[image])[0], ours(data).numpy()
            levels = (np.abs(got - theirs) / one_level(steps)).max() if got.shape == theirs.shape else np.inf
            answer[name][image] = min(float(levels), 999.0)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
