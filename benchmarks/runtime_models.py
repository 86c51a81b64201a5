"""The two models of `make bench-runtimes`, exported for both runtimes from one checkpoint each.

ViT-B/16 has random weights: the time does not depend on them. The exports are made by the exporters' own programs, in the exporters' own
environments; so is the checkpoint, by this file as a program. digits-vit's int8 is made with the held-out digits, and must hold its bounds on
them. ViT-B/16 has no labelled set, and the exporter refuses its float16_weights as too far from 🤗: both are made from the exported float32
model by the exporter's code alone, which judges nothing.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
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


DRAW = """
import base64, io, json, sys
from train_digits import load_digits
_, held_out = load_digits()
images = []
for number, (image, label) in enumerate(zip(held_out.images, held_out.labels)):
    out = io.BytesIO()
    image.save(out, "PNG")
    data = base64.urlsafe_b64encode(out.getvalue()).decode()
    images.append({"name": f"{label}/{number:03}.png", "label": str(label), "data": data})
json.dump({"images": images}, sys.stdout)
"""  # a labelled set, as the exporter reads it: the held-out digits
INT8_MAX_CHANGED, INT8_MAX_DROP = 0.02, 0.01  # the defaults of gate.quality


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model to measure: its checkpoint, the image that is sent, and how many requests make one measurement."""

    name: str
    checkpoint: Path
    image: Path
    labels: tuple[str, ...]  # that the image may have
    calls: dict[int, int]  # in process, in one measurement: by batch size
    requests: dict[int, int]  # through a server, for each connection, in one measurement: by batch size
    is_labelled: bool  # whether it has a labelled set, which its int8 is held to

    @property
    def config(self) -> dict[str, Any]:
        """The checkpoint's config.json."""
        read: dict[str, Any] = json.loads((self.checkpoint / "config.json").read_text(encoding="utf-8"))
        return read


def digits(_folder: Path) -> Model:
    """The embedded example."""
    return Model(
        name="digits-vit", checkpoint=SERVED / "checkpoint", image=SERVED / "golden" / "three.png", labels=("3",),
        calls={1: 60, 8: 20}, requests={1: 40, 8: 12}, is_labelled=True,
    )  # fmt: skip


def vit_b16(folder: Path) -> Model:
    """ViT-B/16; makes its checkpoint and its photograph in this folder if they are missing."""
    if not (folder / "photo.jpg").exists():
        subprocess.run([python_of("model"), __file__, "checkpoint", folder], check=True)
    labels = tuple(f"LABEL_{number}" for number in range(LABELS))
    return Model(
        name="ViT-B/16", checkpoint=folder / "checkpoint", image=folder / "photo.jpg", labels=labels,
        calls={1: 3, 8: 1}, requests={1: 4, 8: 1}, is_labelled=False,
    )  # fmt: skip


def exported(model: Model, runtime: str, folder: Path, precision: str = FLOAT32) -> Path:
    """What the server of this runtime serves. Makes it in the folder if it is missing."""
    out = folder / f"{runtime}-{precision}"
    content = out / CONTENTS[runtime]
    if content.exists():
        return content
    environment, program = PROGRAMS[runtime]
    if precision != FLOAT32 and not model.is_labelled:
        float32 = exported(model, runtime, folder)
        subprocess.run([str(python_of(environment)), __file__, precision, str(float32), str(content)], check=True)
        return content
    request = folder / f"{out.name}.json"
    labelled = draw_labelled(folder / "labelled.json") if precision == INT8 else None
    request.write_text(json.dumps(export_request(model, precision, labelled)))
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


def draw_labelled(file: Path) -> Path:
    """Write the held-out digits there. Returns the file."""
    command = [str(python_of("model")), "-c", DRAW]
    path = os.environ | {"PYTHONPATH": str(PROJECT / "include" / "model")}
    file.write_bytes(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=path).stdout)
    return file


def int8_of(model: Model, folder: Path) -> str:
    """What the labels say of a model's int8. Raises RuntimeError if it is beyond the bounds."""
    if not model.is_labelled:
        return (
            "Its int8 was held to no bound, because random weights have no labelled set; nor were its float16_weights."
        )
    card = json.loads((folder / f"{ONNX}-{INT8}" / "card" / "card.json").read_text(encoding="utf-8"))
    return judge_int8_card(card["int8"])


def judge_int8_card(found: Mapping[str, Any]) -> str:
    """What a card says of int8. Raises RuntimeError if it is beyond the bounds."""
    images, changed = found["images"], found["labels_changed"]
    lost = found["correct_float32"] - found["correct_int8"]
    said = f"its int8 changed {changed} of {images} labels of the held-out digits, and lost {lost} correct ones"
    if changed > INT8_MAX_CHANGED * images or lost > INT8_MAX_DROP * images:
        raise RuntimeError(f"{said}: more than the default bounds of gate.quality allow")
    return f"{said[0].upper()}{said[1:]}: within the default bounds of `gate.quality`."


def export_request(model: Model, precision: str, labelled: Path | None = None) -> dict[str, Any]:
    """The request of either exporter."""
    labels = list(model.labels)
    golden = {"name": "one", "image": str(model.image), "label": labels, "min_confidence": 0.001}
    settings = {} if precision == FLOAT32 else {"precision": precision}
    name = model.name.lower().replace("/", "-")
    source = {"kind": "folder", "path": str(model.checkpoint)}
    given = {"labelled": str(labelled)} if labelled else {}
    return {"model": name, "source": source, "golden": [golden], "settings": settings, **given}


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


def make_smaller(precision: str, float32: Path, out: Path) -> None:
    """Write a model folder in another precision as the exporter makes it, int8 without calibration; nothing is judged."""
    # First, because a file of this folder has the name of one of the exporter's.
    sys.path[:0] = [str(PROJECT / "include" / name) for name in ("onnx_model", "model", "onnx_server")]
    import onnx_ir
    from onnx_file import MODEL, save_quantised, store_as_float16, write_normalised

    partial = out.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was ended
    shutil.copytree(float32, partial)
    if precision == INT8:
        save_quantised(partial, [])
    else:
        model = onnx_ir.load(partial / MODEL)
        onnx_ir.external_data.load_to_model(model)  # the file is written anew
        store_as_float16(model)
        write_normalised(model, partial)
    partial.rename(out)


if __name__ == "__main__":
    if sys.argv[1] == "checkpoint":
        make_checkpoint(Path(sys.argv[2]))
    else:
        make_smaller(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
