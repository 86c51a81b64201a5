"""Reads large files that begin like images and continue with zeros; conftest.py runs this in the exporter's environment.

Its argument is a folder for the files. Prints one JSON object: for each file, by how many times its size the peak memory
grew after the small files were read.
"""

import json
import os
import resource
import sys
from pathlib import Path

import tensorflow as tf
from decode import Limits, read_image
from sample_images import encoded, scene

MIB = 1 << 20
LIMITS = Limits(max_file_bytes=16 * MIB, max_side=8192)


def peak() -> int:
    """The peak memory of the process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def read(path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Read the file at `path`. TensorFlow leaves out the parts whose results are not used."""
    return read_image(tf.io.read_file(path), LIMITS, catch=True)


def main() -> None:
    """Read small files first, so that one-time costs do not count; then the large ones."""
    picture, folder = scene(90, 60), Path(sys.argv[1])
    beginnings = {
        "PNG": encoded(picture, "PNG")[:100],
        "WebP": encoded(picture, "WEBP", exif=b"II*\0")[:60],
    }

    def read_file(kind: str, size: int) -> str:
        path = folder / kind
        path.write_bytes(beginnings[kind])
        os.truncate(path, size)
        return read(str(path))[1].numpy().decode()

    for kind in beginnings:
        read_file(kind, 1000)
    before, answer = peak(), {}
    for size in (40 * MIB, 16 * MIB):  # the size that needs less memory first: a peak never goes down
        for kind in beginnings:
            why = read_file(kind, size)
            answer[f"{kind} of {size // MIB} MiB"] = {"why": why, "times": (peak() - before) / size}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
