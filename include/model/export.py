"""Export a 🤗 vision model as a SavedModel for TF Serving, with golden cases.

REQUEST.json:
  {"model": "digits-vit",
   "source": {"kind": "folder", "path": "/…/checkpoint"}
           | {"kind": "hub", "repo": "google/vit-base-patch16-224", "revision": "<40 hex>", "kept": "/…/folder"}
           | {"kind": "savedmodel", "url": "https://…tar.gz", "sha256": "<64 hex>", "kept": "/…/file"},
  `kept` is where fetch.py, which reads the same request, has put the source; a checkpoint may have "allow": ["h5"]
   "golden": [{"name": "three", "image": "/…/three.png", "label": "3" or ["3", "8"], "min_confidence": 0.85}],
   "settings": {"top_k": 5, "max_file_bytes": 16777216, "max_side": 8192, "on_bad_image": "refuse" or "mark",
                "warmup_batches": [1, 4]}, optional
   "limits": {"memory_mib": 16384, "cpu_s": 7200, "disk_mib": 32768, "download_mib": 16384}, optional
   "without_sandbox": false, optional: whether archives and old formats are opened where the kernel has no sandbox
   "origin": {"location": "…", "revision": "…"}}, optional: where the source is from, shown on the card

OUT, only after success: savedmodel/, golden/<name>/{rest.json,grpc.bin,case.json}, descriptors.bin, export.json,
card/{card.json,README.md,<name>.png}.
Status 0: OUT is complete. 1: refused. 65: the model does not do what was promised.
It shuts itself in before it opens the model (sandbox.py): no network, and no files but its own.
This program runs in its own environment, made from requirements.txt in this folder.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from errors import ExportRefused
from exporting import run
from request import Settings
from toolchain import Checkpoint


class TensorFlow:
    """Exports with 🤗's TensorFlow classes, as a SavedModel."""

    name = "TensorFlow"
    exporter = "2.3.1"
    content = "SavedModel"
    folder = "savedmodel"
    code = (Path(__file__).parent,)
    packages = ("tensorflow-cpu", "tf-keras", "transformers", "pillow", "numpy")

    def quiet(self) -> None:
        """Turn off the GPU and TensorFlow's messages."""
        os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", TF_USE_LEGACY_KERAS="1")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("JOBLIB_MULTIPROCESSING", "0")  # the sandbox has no semaphores of several processes
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

    def load(self) -> None:
        """Load TensorFlow and transformers."""
        for name in ("tensorflow", "transformers"):
            importlib.import_module(name)

    def versions(self, checkpoint: Checkpoint | None) -> dict[str, str | None]:
        """The version of transformers only for a checkpoint: it does not touch an archive."""
        import tensorflow as tf
        import transformers

        return {"tensorflow": tf.__version__, "transformers": transformers.__version__ if checkpoint else None}

    def refuse_settings(self, settings: Settings) -> None:
        """Refuse another precision than float32."""
        if settings.precision != "float32":
            raise ExportRefused(
                f"settings.precision: {settings.precision} is only for the runtime onnxruntime. Next: use float32."
            )

    def take_archive(self, found: Path, saved: Path, *, where: str) -> None:
        """Move an archive's SavedModel into place if it only computes, without XLA, and has the signature that clients use."""
        from savedmodel import take_savedmodel

        take_savedmodel(found, saved, where=where)

    def load_checkpoint(self, folder: Path) -> Checkpoint:
        """Load a checkpoint with its TensorFlow class and slow processor."""
        from served_graph import load_checkpoint

        return load_checkpoint(folder)

    def save(self, checkpoint: Checkpoint, saved: Path, settings: Settings) -> str:
        """Write the SavedModel."""
        from served_graph import save_served_graph

        return save_served_graph(checkpoint, saved, settings)

    def quantise(self, saved: Path, calibration: Sequence[Any]) -> None:  # noqa: ARG002
        """Refuse it: TensorFlow's graph stays in float32."""
        raise ExportRefused(f"{saved}: int8 is only for the runtime onnxruntime. Next: use float32.")

    def check(self, saved: Path, *, where: str) -> None:
        """Refuse operations that do more than compute."""
        from operations import check_operations

        check_operations(saved, where=where)

    def predict_request(self, model: str, input_name: str, values: Sequence[str | bytes], signature: str) -> Any:
        """A PredictRequest made by tensorflow-serving-api."""
        from grpc_files import predict_request

        return predict_request(model, input_name, values, signature)

    def descriptors(self) -> bytes:
        """The descriptors that tensorflow-serving-api brings."""
        from grpc_files import descriptors

        return descriptors()

    def write_warmup(self, saved: Path, requests: Sequence[Any]) -> None:
        """Write them where TF Serving looks for them."""
        from grpc_files import write_warmup

        write_warmup(saved, requests)

    def open(self, saved: Path) -> Any:
        """Load the SavedModel."""
        from savedmodel import ExportedGraph

        return ExportedGraph(saved)

    def reader(self, checkpoint: Checkpoint, settings: Settings) -> Any:
        """The graph's decoder and processor."""
        from served_graph import ImageReader

        return ImageReader(checkpoint, settings)

    def signatures(self, saved: Path) -> dict[str, Any]:
        """The SavedModel's signatures."""
        from savedmodel import read_signatures

        return read_signatures(saved)


if __name__ == "__main__":
    sys.exit(run(TensorFlow(), __doc__ or ""))
