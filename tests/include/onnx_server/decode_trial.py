"""Reads the same files with the ONNX server and with TensorFlow's graph; conftest.py runs this in the exporter's environment.

Prints one JSON object. `bad`: for each bad image what both say. `damaged`: for each kind of file how often they agree.
`pixels`: for each good image how far the server's upright pixels are from PIL's. `inputs`: for each processor and image how far
the server's input of the model is from 🤗's, in float32 values that differ. `windows`: the same for the part of a resized image
that the server computes alone, compared with PIL's whole.
"""

import json
import time
from collections import Counter

import numpy as np
import tensorflow as tf
from checkpoint_trial import bad_images
from decode import Limits, read_base64, read_image
from fuzz_trial import damaged
from PIL import Image
from preprocess import plan_preprocess
from preprocess_trial import images, processors
from reference_pixels import prepare, upright_pixels
from sample_images import encoded, scene

from onnx_server import decode as server
from onnx_server.preprocess import FILTERS, Preprocess, step_of
from onnx_server.window import resized_window

LIMITS = {"max_file_bytes": 200_000, "max_side": 2000}
KINDS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
DAMAGED = 120  # of each kind
WINDOWS = (  # an image's height and width, its shorter side after the resize, the crop
    (1, 40, 32, 28), (40, 1, 32, 32), (3, 500, 64, 60), (500, 3, 64, 64), (300, 200, 64, 48), (200, 300, 64, 48), (37, 41, 64, 64),
    (700, 20, 30, 30), (20, 700, 30, 25), (64, 64, 64, 64), (90, 64, 64, 64), (1000, 900, 50, 44),
)  # fmt: skip
TEXTS = (
    b"", b"aGk", b"aGk=", b"aGk==", b"aGVsbG8=", b"aGVsbG8", b"aGVs", b"a", b"ab", b"ab=", b"ab==", b"_-8=", b"+/8=", b"a=Gk",
    b"aGk=aGk=", b"aGk ", b"\xff\xff", b"====", b"=", b"a GVs", b"aGVsbG8=\n",
)  # fmt: skip


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def graph(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The graph's pixels, and why it does not decode a file."""
    return read_image(data, Limits(**LIMITS), catch=True)


def said_by_graph(data: bytes) -> str:
    """Why the graph does not decode a file, or an empty text."""
    return graph(data)[1].numpy().decode()


def said_by_server(data: bytes) -> str:
    """Why the server does not decode a file, or an empty text."""
    try:
        server.read_image(data, server.Limits(**LIMITS))
    except server.BadImage as bad:
        return str(bad)
    return ""


def decoded(text: bytes) -> tuple[object, object]:
    """What both decode from a base64 text: hex, or None if it is refused."""
    data, why = read_base64(tf.constant(text))
    try:
        ours = server.read_base64(text).hex()
    except server.BadImage:
        ours = None
    return (None if why.numpy() else data.numpy().hex()), ours


def agreement(kind: str) -> dict[str, object]:
    """How often both say the same of damaged files, how often only one of them reads the file, and the server's longest time for one."""
    found: Counter[str] = Counter()
    slowest = 0.0
    for data in damaged(encoded(scene(40, 30), kind), DAMAGED, head=64):
        theirs, began = said_by_graph(data), time.process_time()
        ours = said_by_server(data)
        slowest = max(slowest, time.process_time() - began)
        same = "same" if theirs == ours else f"graph {theirs or 'reads'}, server {ours or 'reads'}"
        found[same] += 1
    return {"said": found, "seconds": slowest}


def inputs(name: str, files: list[tuple[str, bytes]]) -> dict[str, int]:
    """How many values of the model's input differ from those of 🤗's processor."""
    processor = processors()[name]
    steps = plan_preprocess(type(processor).__name__, processor.to_dict())
    ours = Preprocess(tuple(step_of(written(step)) for step in steps))
    limits, found = server.Limits(max_file_bytes=1 << 24, max_side=8192), {}
    for image, data in files:
        value = np.empty((3, ours.height, ours.width), np.float32)
        ours.apply(server.read_image(data, limits), value)
        theirs = prepare(processor, upright_pixels(data))[0]
        found[image] = int((value != theirs).sum()) if value.shape == theirs.shape else value.size
    return found


def written(step: object) -> dict[str, object]:
    """An exporter's step as model.json has it."""
    names = {"Resize": "resize", "ResizeShortestEdge": "resize_shortest_edge", "CenterCrop": "center_crop",
             "Rescale": "rescale", "Normalise": "normalise", "FlipChannels": "flip_channels"}  # fmt: skip
    settings = {name: getattr(step, name) for name in type(step).__slots__}
    return {
        "kind": names[type(step).__name__],
        **{k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()},
    }


def windows() -> dict[str, int]:
    """How many values of a resized image's central part differ from those of PIL's whole image."""
    found, chance = {}, np.random.default_rng(18)
    for height, width, edge, crop in WINDOWS:
        image = Image.fromarray(chance.integers(0, 256, (height, width, 3), dtype=np.uint8))
        size = (edge * height // min(height, width), edge * width // min(height, width))
        top, left = ((side - crop) // 2 for side in size)
        for name, number in FILTERS.items():
            box = (left, top, left + crop, top + crop)
            whole = image.resize(size[::-1], number).crop(box)
            part = resized_window(np.asarray(image), size[::-1], box, name)
            found[f"{height} x {width} to {edge}, {crop}, {name}"] = int((part != np.asarray(whole)).sum())
    return found


def main() -> None:
    """Read all files."""
    files = [(f"{image.kind}: {image.name}", image.data) for image in images()]
    wide = server.Limits(max_file_bytes=1 << 24, max_side=8192)
    print(
        json.dumps({
            "bad": {name: [said_by_graph(data), said_by_server(data)] for name, data in bad_images().items()},
            "base64": {text.decode("latin-1"): decoded(text) for text in TEXTS},
            "damaged": {kind: agreement(kind) for kind in KINDS},
            "pixels": {
                name: int(np.abs(np.asarray(server.read_image(data, wide)).astype(int) - upright_pixels(data)).max())
                for name, data in files
            },
            "windows": windows(),
            "inputs": {name: inputs(name, files) for name in processors()},
        })
    )  # fmt: skip


if __name__ == "__main__":
    main()
