"""The model `colours` (make_colours.py) in a folder, and images for it."""

import base64
import json
import shutil
import struct
import zlib
from pathlib import Path

HERE = Path(__file__).parent
LABELS = ["red", "green", "blue", "Grün ✓"]
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
DESCRIPTION = {
    "format": 1,
    "labels": LABELS,
    "top_k": 5,
    "max_file_bytes": 1_000_000,
    "max_side": 4000,
    "on_bad_image": "refuse",
    "processor": "ViTImageProcessor",
    "steps": [
        {"kind": "resize", "height": 8, "width": 8, "filter": "bilinear"},
        {"kind": "rescale", "factor": 1 / 255},
        {"kind": "normalise", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    ],
    "precision": "float32",
    "opset": 20,
    "may_join": True,
}


def write_model(folder, **changes):
    """Write the model with changes to its description; None leaves a key out. Returns the version's folder."""
    version = folder / "7"
    version.mkdir(parents=True)
    shutil.copy(HERE / "colours.onnx", version / "model.onnx")
    (version / "model.json").write_text(json.dumps(DESCRIPTION | changes))
    return version


def png(colour, width=20, height=None):
    """A PNG file of one colour, by its name; without a height it is square."""
    height = height or width

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = (b"\0" + bytes(COLOURS[colour]) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def web_safe(data):
    """A file as `serving_default` takes it."""
    return base64.urlsafe_b64encode(data).decode()


def rows(*colours, **more):
    """The body of a request for these colours."""
    return {"instances": [web_safe(png(colour)) for colour in colours], **more}


def raw(*files, signature="raw_bytes"):
    """The body of a request with these files as they are."""
    return {"signature_name": signature, "instances": [{"b64": base64.b64encode(file).decode()} for file in files]}


SLOW = png("red", 4000)  # takes a good part of a second to decode


def slow(count):
    """The body of a request that takes long."""
    return raw(*[SLOW] * count)
