"""Reads the same files with the ONNX server and with TensorFlow's graph; conftest.py runs this in the exporter's environment.

Prints one JSON object. `bad`: for each bad image what both say. `damaged`: for each kind of file how often they agree.
`pixels`: for each good image how far the server's upright pixels are from PIL's. `inputs`: for each processor and image how far
the server's input of the model is from 🤗's, in float32 values that differ.
"""

import json
from collections import Counter

import numpy as np
import tensorflow as tf
from checkpoint_trial import bad_images
from decode import Limits, read_base64, read_image
from fuzz_trial import damaged
from preprocess import plan_preprocess
from preprocess_trial import images, processors
from reference_pixels import prepare, upright_pixels
from sample_images import encoded, scene

from onnx_server import decode as server
from onnx_server.preprocess import Preprocess, step_of

LIMITS = {"max_file_bytes": 200_000, "max_side": 2000}
KINDS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
DAMAGED = 120  # of each kind
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


def agreement(kind: str) -> dict[str, int]:
    """How often both say the same of damaged files, and how often only one of them reads the file."""
    found: Counter[str] = Counter()
    for data in damaged(encoded(scene(40, 30), kind), DAMAGED, head=64):
        theirs, ours = said_by_graph(data), said_by_server(data)
        same = "same" if theirs == ours else f"graph {theirs or 'reads'}, server {ours or 'reads'}"
        found[same] += 1
    return dict(found)


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
            "inputs": {name: inputs(name, files) for name in processors()},
        })
    )  # fmt: skip


if __name__ == "__main__":
    main()
