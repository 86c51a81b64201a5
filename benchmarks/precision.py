"""Measure what each `export.precision` costs and changes: `make onnx-precision`.

digits-vit is exported in each precision by the second exporter, with the held-out digits as its labelled set; a ViT-B/16 with random weights
shows the sizes and differences of a large model. Its last layer is scaled, so that its answers differ between images as a trained one's do. Each file is then loaded by the server's own code, in a process of its own with
one thread. The figures go into docs/runtimes.md.
"""

import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.own_stand import PROJECT
from benchmarks.refresh_times import machine, place
from benchmarks.runtime_models import DRAW, HEAD_SCALE

PAGE = PROJECT / "docs" / "runtimes.md"
BEGIN, END = (
    "<!-- written by `make onnx-precision`, which replaces all text between these marks -->",
    "<!-- end of make onnx-precision -->",
)
SERVED = PROJECT / "include" / "served" / "digits-vit"
EXPORTER = PROJECT / "include" / "onnx_model" / "export_onnx.py"
GOLDEN = {"three": "3", "seven": "7", "eight": "8"}
FEW = 12  # labelled images for the model whose answers mean nothing
WAYS: dict[str, dict[str, str]] = {  # by what the table says: the settings
    "float32": {},
    "float16_weights": {"precision": "float16_weights"},
    "int8, dynamic": {"precision": "int8"},
    "int8, static": {"precision": "int8", "calibration": "labelled"},
}
MAKE_VIT_BASE = """
import sys, torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor
torch.manual_seed(7)
model = ViTForImageClassification(ViTConfig(num_labels=1000))
with torch.no_grad():
    model.classifier.weight.mul_(float(sys.argv[2]))
model.save_pretrained(sys.argv[1])
ViTImageProcessor().save_pretrained(sys.argv[1])
"""
BROKEN = 65  # the exporter's status if the model is further from 🤗 than its bound
APART = re.compile(r"([\d.]+|nan) apart")
LOAD = """
import json, sys, time
from pathlib import Path
import numpy as np
from onnx_server.session import Session
def kib(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])
before = kib("VmRSS")
session = Session(Path(sys.argv[1]), threads=1)
image = np.random.default_rng(0).standard_normal((1, *session.shape[1:]), dtype=np.float32)
session.run(image)
resident = kib("VmRSS") - before
times = []
for _ in range(20):
    began = time.process_time()
    session.run(image)
    times.append(time.process_time() - began)
json.dump({"resident_mb": resident / 1000, "cpu_ms": sorted(times)[len(times) // 2] * 1000}, sys.stdout)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A model whose export in one precision is refused, and how far its worst image is from 🤗."""

    model: str
    way: str
    difference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A model in one precision: its file, the export's card, and what loading it takes."""

    model: str
    way: str
    file_bytes: int
    card: Mapping[str, Any]
    resident_mb: float  # that loading it and one answer add
    cpu_ms: float  # of one image, at one thread


class ModelRefused(Exception):
    """The exporter refuses a model, because it is beyond its bound. Its line says how far."""


def python(environment: str, *words: str, path: Sequence[str] = ()) -> str:
    """Run the interpreter of one of `local`'s environments. Returns its standard output.

    Raises ModelRefused if it is the exporter and refuses the model; exits with its output if it fails otherwise.
    """
    built = subprocess.check_output([sys.executable, "-m", "local", "env", environment], cwd=PROJECT, text=True)
    command = [f"{built.splitlines()[-1]}/bin/python", *words]
    quiet = {"PATH": "/usr/bin:/bin", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**quiet, "PYTHONPATH": ":".join(path)}
    )
    if done.returncode == BROKEN and APART.search(done.stderr):
        raise ModelRefused(done.stderr)
    if done.returncode != 0:
        raise SystemExit(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def measure(model: str, checkpoint: Path, ways: Sequence[str], labelled: Path, scratch: Path) -> list[Row | Refused]:
    """Export a model in each of these ways, and load each export that is not refused."""
    golden = [
        {"name": name, "image": str(SERVED / "golden" / f"{name}.png"), "label": label, "min_confidence": 0.8}
        for name, label in (GOLDEN if model == "digits-vit" else {}).items()
    ]
    source = {"kind": "folder", "path": str(checkpoint)}
    rows: list[Row | Refused] = []
    for way in ways:
        out, request = scratch / f"{model}-{way}".replace(", ", "-"), scratch / "request.json"
        given = {"labelled": str(labelled)} if "int8" in way else {}
        request.write_text(
            json.dumps({"model": model, "source": source, "golden": golden, "settings": WAYS[way], **given})
        )
        try:
            python("onnx", str(EXPORTER), "--request", str(request), "--out", str(out))
        except ModelRefused as refused:
            rows.append(refusal(model, way, str(refused)))
            print(render_row(rows[-1]), flush=True)
            continue
        loaded = json.loads(python("onnx", "-c", LOAD, str(out / "model"), path=[str(PROJECT / "include/onnx_server")]))
        card = json.loads((out / "card" / "card.json").read_text(encoding="utf-8"))
        rows.append(
            Row(model=model, way=way, file_bytes=(out / "model" / "model.onnx").stat().st_size, card=card, **loaded)
        )
        print(render_row(rows[-1]), flush=True)
    return rows


def refusal(model: str, way: str, said: str) -> Refused:
    """What the exporter's line says of a model that it refuses."""
    found = APART.search(said)
    return Refused(model=model, way=way, difference=float(found[1]) if found else math.nan)


def render(rows: Sequence[Row | Refused], where: str) -> str:
    """The table."""
    versions = next(row.card["toolchain"] for row in rows if isinstance(row, Row))
    head = [
        "model",
        "precision",
        "model.onnx, MB",
        "resident, MB",
        "CPU ms an image",
        "largest difference",
        "labels changed",
        "correct",
    ]
    return "\n".join([
        f"On {where}, ONNX Runtime {versions['onnxruntime']}. Resident is what loading the file and one answer add to a process; CPU time is that",
        "of one image at one thread, without decoding. Differences of float32 and float16_weights are those of probabilities from 🤗's, on the",
        "golden and built-in images; those of int8 are of the confidence in float32, on the held-out digits that it was not calibrated with.",
        f"ViT-B/16 has random weights and a last layer that is multiplied by {HEAD_SCALE}, so that its answers differ between images; its labels mean",
        "nothing. A row that says refused has no export: the figure is that of its worst image.",
        "",
        f"| {' | '.join(head)} |",
        f"| --- | --- |{' ---: |' * (len(head) - 2)}",
        *map(render_row, rows),
    ])  # fmt: skip


def render_row(row: Row | Refused) -> str:
    """A line of the table."""
    if isinstance(row, Refused):
        return f"| {row.model} | `{row.way}` | - | - | - | {row.difference:.5f}, refused | - | - |"
    int8, parity = row.card.get("int8"), row.card["parity"]
    found = ["-", "-", "-"]
    if row.model == "digits-vit" and int8:
        changed, correct = f"{int8['labels_changed']} of {int8['images']}", int8["correct_int8"]
        found = [f"{int8['largest_difference']:.4f}", changed, f"{correct} (float32 {int8['correct_float32']})"]
    elif not int8:
        found[0] = f"{parity['largest_difference']:.5f}"
        found[1] = f"{parity['images'] - parity['labels_equal']} of {parity['images']}"
    cells = [row.model, f"`{row.way}`", f"{row.file_bytes / 1e6:.3g}", f"{row.resident_mb:.3g}", f"{row.cpu_ms:.3g}"]
    return f"| {' | '.join([*cells, *found])} |"


def main() -> int:
    """Measure, and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        held_out, few = scratch / "labelled.json", scratch / "few.json"
        held_out.write_text(python("model", "-c", DRAW, path=[str(PROJECT / "include/model")]), encoding="utf-8")
        few.write_text(json.dumps({"images": json.loads(held_out.read_text(encoding="utf-8"))["images"][:FEW]}))
        rows = measure("digits-vit", SERVED / "checkpoint", list(WAYS), held_out, scratch)
        python("onnx", "-c", MAKE_VIT_BASE, str(scratch / "vit-base"), str(HEAD_SCALE))
        rows += measure("vit-b-16", scratch / "vit-base", list(WAYS)[:3], few, scratch)
    PAGE.write_text(place(PAGE.read_text(encoding="utf-8"), render(rows, machine()), BEGIN, END), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
