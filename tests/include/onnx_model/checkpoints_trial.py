"""Run in the second exporter's environment: `checkpoints_trial.py DIGITS FOLDER` spoils checkpoints and loads them.

Prints as JSON why each is refused, how far the digits' answers are from those of the same weights in PyTorch's layout, and what a
process that has exported may still do.
"""

import contextlib
import io
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from errors import ExportRefused, PromiseBroken
from export_onnx import OnnxRuntime
from exporting import enter_sandbox, export, export_checkpoint, prove_parity
from family_checkpoints import colourful, make_checkpoint
from onnx_file import plan_of, save_model
from reference_pixels import upright_pixels
from request import Folder, GoldenImage, Request, Settings
from safetensors.numpy import load_file, save_file
from served_onnx import ServerReader
from toolchain import Checkpoint, NoReference
from torch_checkpoint import load_checkpoint, load_processor, prepared
from transformers import ViTImageProcessor, ViTImageProcessorPil

HEAD = "classifier.weight"


def change_json(file: Path, **changes: object) -> None:
    """Change a JSON file's fields; None deletes one."""
    found = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in found.items() if value is not None}))


def change_weights(folder: Path, change: Callable[[dict[str, np.ndarray]], None], layout: str = "pt") -> None:
    """Change the weights, and say which library saved them."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": layout})


def spoilers() -> dict[str, Callable[[Path], None]]:
    """By name: what is done to the checkpoint of a good ViT."""
    config, processor = "config.json", "preprocessor_config.json"
    short = {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": {"height": 36, "width": 36}}
    return {
        "a weight is missing": lambda folder: change_weights(folder, lambda weights: weights.pop(HEAD)),
        "a weight has another shape": lambda folder: change_weights(
            folder, lambda weights: weights.update({HEAD: weights[HEAD][:-1].copy()})
        ),
        "a weight is left over": lambda folder: change_weights(
            folder, lambda weights: weights.update({"extra.weight": weights[HEAD].copy()})
        ),
        "PyTorch's names in TensorFlow's layout": lambda folder: change_weights(folder, lambda _: None, "tf"),
        "not safetensors": lambda folder: (folder / "model.safetensors").write_bytes(b"hello"),
        "HDF5": lambda folder: (folder / "model.safetensors").rename(folder / "tf_model.h5"),
        "another model type": lambda folder: change_json(
            folder / config, model_type="bert", architectures=["BertModel"]
        ),
        "colours instead of pixels": lambda folder: change_json(folder / config, model_type="imagegpt"),
        "patches instead of pixels": lambda folder: change_json(folder / config, model_type="siglip2"),
        "one of two classes": lambda folder: change_json(folder / config, model_type="deit", architectures=None),
        "code of its own": lambda folder: change_json(
            folder / config, model_type="mine", auto_map={"AutoConfig": "mine.MyConfig"}
        ),
        "another processor": lambda folder: change_json(
            folder / processor, image_processor_type="ImageGPTImageProcessor"
        ),
        "a border": lambda folder: change_json(folder / processor, do_pad=True, pad_size={"height": 40, "width": 40}),
        "images of another size": lambda folder: change_json(folder / processor, size={"height": 36, "width": 36}),
        "a filter of PIL alone": lambda folder: change_json(
            folder / processor, image_processor_type="BitImageProcessorFast", resample=4, **short
        ),
    }


def refusal(folder: Path) -> str | None:
    """Why the checkpoint is refused; None if it is exported."""
    try:
        save_model(load_checkpoint(folder), folder / "model", Settings())
    except ExportRefused as refused:
        return str(refused).replace(str(folder), "here")
    return None


def libraries(good: Path, folder: Path) -> dict[str, str]:
    """What a processor computes with, by its name and by the version of transformers that saved the model."""
    shutil.copytree(good, folder)
    found = {}
    for name in ("ViTImageProcessor", "ViTImageProcessorFast", "ViTImageProcessorPil", "ViTFeatureExtractor"):
        for version in (None, "4.57.6", "5.24.0"):
            change_json(folder / "config.json", transformers_version=version)
            change_json(folder / "preprocessor_config.json", image_processor_type=name)
            found[f"{name} {version}"] = load_processor(folder).backend
    return found


def as_the_author(good: Path, folder: Path) -> dict[str, list[float]]:
    """By the class that transformers 5 saves: the largest differences of a value from the author's processor, loaded and in the plan's steps."""
    shutil.copytree(good, folder)
    found = {}
    for kind in (ViTImageProcessor, ViTImageProcessorPil):
        author = kind(size={"height": 32, "width": 32}, resample=3)
        author.save_pretrained(folder)
        if kind is ViTImageProcessorPil:  # which transformers leaves out of the name
            change_json(folder / "preprocessor_config.json", image_processor_type=kind.__name__)
        loaded = load_processor(folder)
        reader, apart = ServerReader(plan_of(loaded), Settings()), [0.0, 0.0]
        for image in colourful():
            pixels = upright_pixels(image.data)
            theirs = prepared(author, pixels)
            for place, ours in enumerate((prepared(loaded, pixels), reader.pixels(image.data))):
                apart[place] = max(apart[place], float(np.abs(ours - theirs).max()))
        found[kind.__name__] = apart
    return found


def compared(good: Path, folder: Path, smallest: int) -> list[str]:
    """What an export says of its comparison if 🤗's processor refuses all images with fewer rows."""
    checkpoint, toolchain, said = (
        export_checkpoint(good, folder, Settings(), OnnxRuntime()),
        OnnxRuntime(),
        io.StringIO(),
    )

    def prepare(pixels: np.ndarray) -> np.ndarray:
        if len(pixels) < smallest:
            raise NoReference(f"{len(pixels)} rows are too few.")
        return checkpoint.prepare(pixels)

    request = Request(model="vit", source=Folder(path=good), golden=())
    with contextlib.redirect_stdout(said):
        try:
            figures = prove_parity(request, replace(checkpoint, prepare=prepare), toolchain.open(folder), toolchain)
            return [*said.getvalue().splitlines(), f"skipped: {figures['skipped']}"]
        except ExportRefused as refused:
            return [str(refused)]


def of_another_size(good: Path, folder: Path) -> str:
    """What is said of a processor that gives another size than its settings say."""
    shutil.copytree(good, folder)

    class Wider(OnnxRuntime):
        def load_checkpoint(self, folder: Path) -> Checkpoint:
            loaded = super().load_checkpoint(folder)
            return replace(
                loaded, prepare=lambda pixels: np.pad(loaded.prepare(pixels), ((0, 0), (0, 0), (0, 0), (0, 4)))
            )

    checkpoint = export_checkpoint(folder, folder / "wider", Settings(), Wider())
    try:
        checkpoint.prepare(upright_pixels(colourful()[0].data))
    except PromiseBroken as broken:
        return str(broken)
    return "nothing is wrong"


def in_pytorchs_layout(digits: Path, folder: Path) -> dict[str, float]:
    """The largest differences between a checkpoint in TensorFlow's layout and the same one that PyTorch saved: of a weight, of a logit."""
    first = load_checkpoint(digits)
    first.model.save_pretrained(folder)
    shutil.copy(digits / "preprocessor_config.json", folder)
    again = load_checkpoint(folder)
    ours, theirs = first.model.state_dict(), again.model.state_dict()
    assert ours.keys() == theirs.keys()
    pixels = np.random.default_rng(7).normal(size=(1, 3, 32, 32)).astype(np.float32)
    return {
        "weights": max(float((ours[name] - theirs[name]).abs().max()) for name in ours),
        "logits": float(np.abs(first.logits(pixels) - again.logits(pixels)).max()),
    }


def left_to_do(digits: Path, folder: Path) -> dict[str, str]:
    """Export the digits, shut in as the program is, and then try what it must not."""
    image = digits.parent / "golden" / "three.png"
    case = GoldenImage(name="three", image=image, label="3", min_confidence=0.85)
    request = Request(model="digits", source=Folder(path=digits), golden=(case,))
    secret, toolchain = folder / "secret", OnnxRuntime()
    partial = folder / "work" / "partial"
    partial.mkdir(parents=True)
    secret.write_text("secret")
    sandbox = enter_sandbox(request, partial, toolchain)
    export(request, partial, sandbox, toolchain)
    attempts: dict[str, Callable[[], object]] = {
        "read its input": (digits / "config.json").read_text,
        "write to its folder": lambda: (partial / "new").write_text("x"),
        "read another file": secret.read_text,
        "read /etc": Path("/etc/passwd").read_text,
        "read its environment": Path("/proc/self/environ").read_text,
        "write elsewhere": lambda: (folder / "elsewhere").write_text("x"),
        "write to its input": lambda: (digits / "config.json").write_text("x"),
        "make a socket": socket.socket,
        "fork": os.fork,
    }
    found = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            found[name] = "done"
        except OSError as error:
            found[name] = str(error.strerror)
    return {"sandbox": str(sandbox), **found}


def main() -> None:
    """Try everything; progress lines go to stderr."""
    out, sys.stdout = sys.stdout, sys.stderr
    digits, root = Path(sys.argv[1]), Path(sys.argv[2])
    toolchain = OnnxRuntime()
    toolchain.quiet()
    good = root / "good"
    make_checkpoint("vit", good)
    found: dict[str, object] = {}
    for number, (name, spoil) in enumerate(spoilers().items()):
        folder = root / str(number)
        shutil.copytree(good, folder)
        spoil(folder)
        found[name] = refusal(folder)
    labels = root / "labels"
    shutil.copytree(good, labels)
    names = json.loads((labels / "config.json").read_text())["id2label"]
    checkpoint = load_checkpoint(labels)
    object.__setattr__(checkpoint, "labels", tuple(names.values())[:-1])  # as if the config had one label fewer
    try:
        save_model(checkpoint, labels / "model", Settings())
    except ExportRefused as refused:
        found["one label fewer"] = str(refused)
    json.dump(
        {
            "refused": found,
            "good": refusal(good),
            "libraries": libraries(good, root / "libraries"),
            "as the author": as_the_author(good, root / "author"),
            "few": compared(good, root / "few", 2),
            "too few": compared(good, root / "too few", 10_000),
            "of another size": of_another_size(good, root / "wider"),
            "layouts": in_pytorchs_layout(digits, root / "pytorch"),
            "left": left_to_do(digits, root / "shut-in"),
        },
        out,
    )


if __name__ == "__main__":
    main()
