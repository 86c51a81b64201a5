"""Run by conftest.py in the exporter's environment: large files that begin as images do and go on with zeros.

Its argument is a folder for them. Prints one JSON object: for each file how often its own size the process's peak of
memory has grown by, since it was asked about small ones.
"""

import json
import os
import resource
import sys
from pathlib import Path

import tensorflow as tf
from decode import Limits, read_image
from pictures import encoded, scene

MIB = 1 << 20
LIMITS = Limits(max_file_bytes=16 * MIB, max_side=8192)


def peak() -> int:
    """The most bytes that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def read(path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """All that is read of the file there: what nobody wants TensorFlow leaves out."""
    return read_image(tf.io.read_file(path), LIMITS, catch=True)


def main() -> None:
    """Ask about each in a small size, so that what is made once is there; then about the large ones."""
    picture, folder = scene(90, 60), Path(sys.argv[1])
    beginnings = {
        "PNG": encoded(picture, "PNG")[:100],
        "WebP": encoded(picture, "WEBP", exif=b"II*\0")[:60],
    }

    def ask(kind: str, size: int) -> str:
        path = folder / kind
        path.write_bytes(beginnings[kind])
        os.truncate(path, size)
        return read(str(path))[1].numpy().decode()

    for kind in beginnings:
        ask(kind, 1000)
    before, answer = peak(), {}
    for size in (40 * MIB, 16 * MIB):  # the least hungry first: a peak does not go down again
        for kind in beginnings:
            why = ask(kind, size)
            answer[f"{kind} of {size // MIB} MiB"] = {"why": why, "times": (peak() - before) / size}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
