"""Makes a checkpoint heavier without a change of its answers: more hidden units in each layer, all of whose weights are zero."""

import json
from pathlib import Path


def widen(checkpoint: Path, size: int) -> None:
    """Give each of the encoder's layers `size` intermediate units. gelu(0) is 0, so the new ones add nothing."""
    config = json.loads((checkpoint / "config.json").read_text())
    was, config["intermediate_size"] = config["intermediate_size"], size
    (checkpoint / "config.json").write_text(json.dumps(config))
    file = checkpoint / "model.safetensors"
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8:start]), bytearray()
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        begin, end = (start + offset for offset in tensor["data_offsets"])
        found = data[begin:end]
        if "/encoder/" in name and was in tensor["shape"]:
            found, tensor["shape"] = _padded(found, tensor["shape"], was, size)
        tensor["data_offsets"] = [len(body), len(body) + len(found)]
        body += found
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + body)


def _padded(data: bytes, shape: list[int], was: int, size: int) -> tuple[bytes, list[int]]:
    """A float32 tensor with zeros up to `size` in the dimension that has `was` entries."""
    if shape[-1] != was:  # rows are added at the end
        return data + bytes(4 * (size - was) * shape[-1]), [size, *shape[1:]]
    rows = [data[at : at + 4 * was] + bytes(4 * (size - was)) for at in range(0, len(data), 4 * was)]
    return b"".join(rows), [*shape[:-1], size]
