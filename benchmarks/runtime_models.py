"""The two models of `make bench-runtimes`, exported for both runtimes from one checkpoint each.

ViT-B/16 has random weights: the time does not depend on them. The exports are made by the exporters' own programs, in the exporters' own
environments; so is the checkpoint, by this file as a program. int8 is made from the exported float32 model by the exporter's code: the
exporter itself makes it only for a model with a labelled set, which random weights cannot have.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
SERVED = PROJECT / "include" / "served" / "digits-vit"
LABELS = 1000  # ViT-B/16's
HEAD_SCALE = 12  # random weights under a larger head give answers that differ between images
PHOTO = (640, 480)  # pixels
TENSORFLOW, ONNX = "tensorflow", "onnx"
PROGRAMS = {TENSORFLOW: ("model", "model/export.py"), ONNX: ("onnx", "onnx_model/export_onnx.py")}
CONTENTS = {TENSORFLOW: "savedmodel", ONNX: "model"}
FLOAT32, FLOAT16_WEIGHTS, INT8 = "float32", "float16_weights", "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model to measure: its checkpoint, the image that is sent, and how many requests make one measurement."""

    name: str
    checkpoint: Path
    image: Path
    labels: tuple[str, ...]  # that the image may have
    calls: dict[int, int]  # in process, in one measurement: by batch size
    requests: dict[int, int]  # through a server, for each connection, in one measurement: by batch size

    @property
    def config(self) -> dict[str, Any]:
        """The checkpoint's config.json."""
        read: dict[str, Any] = json.loads((self.checkpoint / "config.json").read_text(encoding="utf-8"))
        return read


def digits(_folder: Path) -> Model:
    """The embedded example."""
    return Model(
        name="digits-vit", checkpoint=SERVED / "checkpoint", image=SERVED / "golden" / "three.png", labels=("3",),
        calls={1: 60, 8: 20}, requests={1: 40, 8: 12},
    )  # fmt: skip


def vit_b16(folder: Path) -> Model:
    """ViT-B/16; makes its checkpoint and its photograph in this folder if they are missing."""
    if not (folder / "photo.jpg").exists():
        subprocess.run([python_of("model"), __file__, "checkpoint", folder], check=True)
    labels = tuple(f"LABEL_{number}" for number in range(LABELS))
    return Model(
        name="ViT-B/16", checkpoint=folder / "checkpoint", image=folder / "photo.jpg", labels=labels,
        calls={1: 3, 8: 1}, requests={1: 4, 8: 1},
    )  # fmt: skip


def exported(model: Model, runtime: str, folder: Path, precision: str = FLOAT32) -> Path:
    """What the server of this runtime serves. Makes it in the folder if it is missing."""
    out = folder / f"{runtime}-{precision}"
    content = out / CONTENTS[runtime]
    if content.exists():
        return content
    environment, program = PROGRAMS[runtime]
    if precision == INT8:
        float32 = exported(model, runtime, folder)
        subprocess.run([python_of(environment), __file__, "int8", float32, content], check=True)
        return content
    request = folder / f"{out.name}.json"
    request.write_text(json.dumps(export_request(model, precision)))
    command: list[str | Path] = [
        python_of(environment),
        PROJECT / "include" / program,
        "--request",
        request,
        "--out",
        out,
    ]
    subprocess.run(command, check=True)
    return content


def export_request(model: Model, precision: str) -> dict[str, Any]:
    """The request of either exporter."""
    labels = list(model.labels)
    golden = {"name": "one", "image": str(model.image), "label": labels, "min_confidence": 0.001}
    settings = {} if precision == FLOAT32 else {"precision": precision}
    name = model.name.lower().replace("/", "-")
    source = {"kind": "folder", "path": str(model.checkpoint)}
    return {"model": name, "source": source, "golden": [golden], "settings": settings}


def python_of(environment: str) -> Path:
    """The interpreter of one of the project's environments."""
    built = subprocess.check_output([sys.executable, "-m", "local", "env", environment], text=True, cwd=PROJECT)
    return Path(built.splitlines()[-1]) / "bin" / "python"


def make_checkpoint(folder: Path) -> None:
    """Write ViT-B/16 with random weights, and a photograph as a JPEG."""
    import tensorflow as tf
    from PIL import Image
    from sklearn.datasets import load_sample_image
    from transformers import TFViTForImageClassification, ViTConfig, ViTImageProcessor

    tf.keras.utils.set_random_seed(7)
    model = TFViTForImageClassification(ViTConfig(num_labels=LABELS))
    model.build_in_name_scope()
    model.classifier.kernel.assign(model.classifier.kernel * HEAD_SCALE)
    model.save_pretrained(folder / "checkpoint", safe_serialization=True)
    ViTImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(folder / "checkpoint")
    Image.fromarray(load_sample_image("china.jpg")).resize(PHOTO).save(folder / "photo.jpg", "JPEG", quality=92)


def make_int8(float32: Path, out: Path) -> None:
    """Write a model folder with its products in int8 as the exporter makes them, without calibration."""
    sys.path += [str(PROJECT / "include" / name) for name in ("onnx_model", "model", "onnx_server")]
    from onnx_file import save_quantised

    partial = out.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was ended
    shutil.copytree(float32, partial)
    save_quantised(partial, [])
    partial.rename(out)


if __name__ == "__main__":
    if sys.argv[1] == "checkpoint":
        make_checkpoint(Path(sys.argv[2]))
    else:
        make_int8(Path(sys.argv[2]), Path(sys.argv[3]))
