"""Reads damaged files; conftest.py runs this in the exporter's environment. Its argument is a folder for them.

The same damage is done in each run. Prints one JSON object: for each kind of file, how many were accepted and refused, what
went wrong, the longest processor time of one file, and by how much the memory grew.
"""

import json
import os
import random
import resource
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file
from weights import refuse_other_files

FILES = 150  # of each kind
MIB = 1 << 20
NASTY = (b"\x00", b"\xff" * 8, b"\x1b[2J", b"\n", b"$(id)", b"\xed\xa0\x80", b"9" * 300, b'"', b"{", b"[" * 2000)


def damaged(good: bytes, count: int, head: int) -> Iterator[bytes]:
    """Damaged copies of a file, most of them in its first `head` bytes."""
    chance = random.Random(16)  # noqa: S311 - the same in each run
    for _ in range(count):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(min(head, len(data)) if chance.random() < 0.8 else len(data))
            how = chance.randrange(5)
            if how == 0:
                data[at] = chance.randrange(256)
            elif how == 1:
                words = chance.choice(NASTY)
                data[at : at + len(words)] = words
            elif how == 2:
                data[at : at + 8] = struct.pack(
                    chance.choice("<>") + "Q", chance.choice([0, 1, 2**31, 2**63, 2**64 - 1])
                )
            elif how == 3:
                data[at:at] = chance.choice(NASTY)
            else:
                data = data[: at + 1]
        yield bytes(data)


def in_children(read: Callable[[Path], None], path: Path, files: Iterator[bytes]) -> dict[str, object]:
    """Read each file in a process of its own, so that a crash and the memory of each are seen."""
    found: dict[str, object] = {"accepted": 0, "refused": 0, "seconds": 0.0, "mib": 0.0, "wrong": []}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, data in enumerate(files):
        path.write_bytes(data)
        child = os.fork()
        if not child:
            try:
                read(path)
            except Exception:
                os._exit(1)
            except BaseException:
                os._exit(2)
            os._exit(0)
        _, status, used = os.wait4(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code not in {0, 1}:
            found["wrong"].append(f"file {number}: ended with {code}")
        found["accepted" if code == 0 else "refused"] += 1
        found["seconds"] = max(found["seconds"], used.ru_utime + used.ru_stime)
        found["mib"] = max(found["mib"], (used.ru_maxrss - before) / 1024)
    return found


def read_safetensors(path: Path) -> None:
    """Read what the exporter reads: the library that saved it, and every weight."""
    with safe_open(path, "np") as opened:
        opened.metadata()
        for key in opened.keys():  # noqa: SIM118
            opened.get_tensor(key)


def read_h5(path: Path) -> None:
    """Look for links, and read every weight."""
    refuse_other_files(path)
    with h5py.File(path) as file:
        file.visititems(lambda _, item: item[()] if isinstance(item, h5py.Dataset) else None)


def good_weights(folder: Path) -> tuple[bytes, bytes]:
    """A small checkpoint's weights in both formats."""
    arrays = {name: np.arange(12, dtype=np.float32).reshape(3, 4) for name in ("vit.embeddings", "classifier.bias")}
    save_file(arrays, folder / "good.safetensors", metadata={"format": "tf"})
    with h5py.File(folder / "good.h5", "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name.replace(".", "/"), data=array)
            file.attrs[name] = "x"
    return (folder / "good.safetensors").read_bytes(), (folder / "good.h5").read_bytes()


def nested_headers() -> Iterator[bytes]:
    """Headers of safetensors that declare much in few bytes."""
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    for header in (
        b"{" * 100_000,
        b'{"a":' * 50_000,
        json.dumps({"a": {**entry, "shape": [2**62, 4]}}).encode(),
        json.dumps({"a": {**entry, "shape": [0] * 100_000}}).encode(),
        json.dumps({"a": {**entry, "data_offsets": [0, 2**63]}}).encode(),
        json.dumps({f"{at}": {**entry, "data_offsets": [0, 4]} for at in range(50_000)}).encode(),
    ):
        yield struct.pack("<Q", len(header)) + header + bytes(4)


def read_images() -> dict[str, object]:
    """Decode damaged images in one graph, as the server does."""
    import tensorflow as tf
    from decode import Limits, read_image
    from sample_images import encoded, scene

    limits = Limits(max_file_bytes=MIB, max_side=1000)

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def read(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return read_image(data, limits, catch=True)

    photo, exif = scene(40, 30), b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    options = {"JPEG": {"exif": exif}, "PNG": {"exif": exif}, "GIF": {}, "BMP": {}, "WEBP": {"exif": exif}}
    good = {kind: encoded(photo, kind, **more) for kind, more in options.items()}
    found: dict[str, object] = {"accepted": 0, "refused": 0, "seconds": 0.0, "wrong": []}
    for data in good.values():
        assert read(data)[1].numpy() == b""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for kind, data in good.items():
        for number, file in enumerate(damaged(data, FILES // 3, head=64)):
            began = time.process_time()
            try:
                image, why = read(file)
            except tf.errors.OpError as error:
                found["wrong"].append(f"{kind} {number}: {error.message[:200]}")
                continue
            found["seconds"] = max(found["seconds"], time.process_time() - began)
            words = why.numpy().decode()
            if not (words.isprintable() and max(image.shape) <= limits.max_side):
                found["wrong"].append(f"{kind} {number}: {words!r}, {image.shape}")
            found["refused" if words else "accepted"] += 1
    found["mib"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return found


def main() -> None:
    """Read the weights first: their processes are copies of this one, which must be small."""
    folder = Path(sys.argv[1])
    safetensors, h5 = good_weights(folder)
    results = {
        "safetensors": in_children(
            read_safetensors, folder / "fuzz.safetensors", damaged(safetensors, FILES, head=300)
        ),
        "safetensors headers": in_children(read_safetensors, folder / "fuzz.safetensors", nested_headers()),
        "HDF5": in_children(read_h5, folder / "fuzz.h5", damaged(h5, FILES, head=4000)),
        "images": read_images(),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
