"""Export a 🤗 vision model from its PyTorch class as an ONNX model for include/onnx_server, with golden cases.

REQUEST.json is that of include/model/export.py (its --help has the shape), with two more settings and one more file:
  "settings": {"precision": "float32", "float16_weights" or "int8", "calibration": "none" or "labelled"}, optional
  "labelled": "a file with {"images": [{"name": "…", "label": "…", "data": "the image file in web-safe base64"}]}", for int8
A SavedModel archive and weights in HDF5 are refused: there is no PyTorch class to export.

OUT, only after success: model/{model.onnx,model.json,warmup/0001.bin,…}, golden/<name>/{rest.json,grpc.bin,case.json},
descriptors.bin, export.json, card/{card.json,README.md,<name>.png}.
Status 0: OUT is complete. 1: refused. 65: the model does not do what was promised.
It shuts itself in before it opens the model: no network, and no files but its own.
This program runs in its own environment, made from requirements.txt in this folder.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SHARED, SERVER = HERE.parent / "model", HERE.parent / "onnx_server"
sys.path += [str(SHARED), str(SERVER)]

from errors import ExportRefused  # noqa: E402 - the line before makes it importable
from exporting import run  # noqa: E402
from request import Settings  # noqa: E402
from toolchain import Checkpoint  # noqa: E402


class OnnxRuntime:
    """Exports with 🤗's PyTorch classes, as an ONNX model."""

    name = "PyTorch"
    exporter = "1.0.0"
    content = "ONNX model"
    folder = "model"
    code = (HERE, SERVER)
    packages = ("torch", "transformers", "timm", "torchvision", "onnx", "onnxscript", "onnxruntime", "pillow", "numpy")

    def quiet(self) -> None:
        """Turn off the GPU and the libraries' messages."""
        os.environ.update(CUDA_VISIBLE_DEVICES="-1", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("TORCH_LOGS", "-all")

    def load(self) -> None:
        """Load PyTorch, transformers and ONNX Runtime."""
        for name in ("torch", "transformers", "onnxscript"):
            importlib.import_module(name)
        with silent_stderr():  # it warns that it finds no GPU in the sandbox, before its log can be turned off
            importlib.import_module("onnxruntime")
        importlib.import_module("transformers.utils.logging").disable_progress_bar()

    def versions(self, checkpoint: Checkpoint | None) -> dict[str, str | None]:  # noqa: ARG002
        """The versions of the three libraries that an answer depends on."""
        from importlib.metadata import version

        return {name: version(name) for name in ("onnxruntime", "torch", "transformers")}

    def refuse_settings(self, settings: Settings) -> None:
        """Nothing to refuse: this program writes every precision."""

    def take_archive(self, found: Path, saved: Path, *, where: str) -> None:  # noqa: ARG002
        """Refuse it: a SavedModel runs on TensorFlow only."""
        raise ExportRefused(
            f"source: {where}: a SavedModel has no PyTorch class to export to ONNX. "
            "Next: use a 🤗 checkpoint, or the runtime tensorflow."
        )

    def load_checkpoint(self, folder: Path) -> Checkpoint:
        """Load a checkpoint with its PyTorch class and the processor that it names."""
        from torch_checkpoint import load_checkpoint

        return load_checkpoint(folder)

    def save(self, checkpoint: Checkpoint, saved: Path, settings: Settings) -> str:
        """Write the model's folder."""
        from onnx_file import save_model

        return save_model(checkpoint, saved, settings)

    def quantise(self, saved: Path, calibration: Sequence[Any]) -> None:
        """Let the written model compute its products in int8."""
        from onnx_file import save_quantised

        save_quantised(saved, calibration)

    def check(self, saved: Path, *, where: str) -> None:
        """Nothing more to check: 🤗's class made the graph, and ONNX Runtime's operations only compute."""

    def predict_request(self, model: str, input_name: str, values: Sequence[str | bytes], signature: str) -> Any:
        """A PredictRequest made from the server's descriptors."""
        from served_onnx import predict_request

        return predict_request(model, input_name, values, signature)

    def descriptors(self) -> bytes:
        """The server's descriptors."""
        return (SERVER / "serving_protocol" / "descriptors.bin").read_bytes()

    def write_warmup(self, saved: Path, requests: Sequence[Any]) -> None:
        """Write them where the server looks for them."""
        from served_onnx import write_warmup

        write_warmup(saved, requests)

    def open(self, saved: Path) -> Any:
        """Load the folder as the server does."""
        from served_onnx import ServedFolder

        return ServedFolder(saved)

    def reader(self, checkpoint: Checkpoint, settings: Settings) -> Any:
        """The server's decoder, and its steps for this checkpoint's processor."""
        from onnx_file import plan
        from served_onnx import ServerReader

        return ServerReader(plan(checkpoint), settings)

    def signatures(self, saved: Path) -> dict[str, Any]:
        """The server's signatures for this model."""
        from served_onnx import ServedFolder

        return ServedFolder(saved).signatures()


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Discard what is written to standard error, by C++ too."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


if __name__ == "__main__":
    sys.exit(run(OnnxRuntime(), __doc__ or ""))
