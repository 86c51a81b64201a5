"""The runtimes that a model can be served with, and everything in which they differ.

Their servers take the same flags and speak the same protocol, so previews, gates, load tests and rollbacks know no runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slipway.paths import INCLUDE

RuntimeName = Literal["tensorflow", "onnxruntime"]
Precision = Literal["float32", "float16_weights", "int8"]
Calibration = Literal["none", "labelled"]
IMAGE_LABEL_RUNTIME = "slipway.runtime"  # of a server's image; TensorFlow Serving's has no such label


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A model server, and the exporter that makes models for it."""

    name: RuntimeName
    exporter: Path  # the exporter's program
    code: tuple[Path, ...]  # the folders of its code and locks
    lock: str  # of its environment
    python_variable: str  # the Variable with the environment's interpreter
    default_python: str  # where the Dockerfile installs it
    exporter_image_variable: str  # the Variable with an image of the environment, for exports in a pod
    lock_in_image: str  # the path of the lock in that image
    model_folder: str  # of the served model among the exporter's results
    serving_image: str | None  # the server's published image; None if none is
    image_variable: str  # the Variable with an image in its place
    image_source: str  # where such an image comes from
    precisions: tuple[Precision, ...]  # of the weights, the default first
    serves_saved_models: bool  # whether a SavedModel archive can be served as it is
    reads_h5: bool  # whether the exporter reads weights in HDF5
    has_inter_op: (
        bool  # whether the server has threads for operations that run at the same time; otherwise it ignores that flag
    )
    decodes_in_batch: bool  # whether a bad image fails the requests that are joined with its own

    @property
    def has_precision(self) -> bool:
        """Whether the exporter is told a precision."""
        return len(self.precisions) > 1


TENSORFLOW = Runtime(
    name="tensorflow",
    exporter=INCLUDE / "model" / "export.py",
    code=(INCLUDE / "model",),
    lock="include/model/requirements.txt",
    python_variable="slipway_exporter_python",
    default_python="/opt/slipway/model/bin/python",
    exporter_image_variable="slipway_exporter_image",
    lock_in_image="/opt/slipway/model.txt",
    model_folder="savedmodel",
    serving_image="tensorflow/serving:2.20.0",
    image_variable="slipway_serving_image",
    image_source="tensorflow/serving, or one built with include/base-image/Dockerfile",
    precisions=("float32",),
    serves_saved_models=True,
    reads_h5=True,
    has_inter_op=True,
    decodes_in_batch=True,
)
ONNXRUNTIME = Runtime(
    name="onnxruntime",
    exporter=INCLUDE / "onnx_model" / "export_onnx.py",
    code=(INCLUDE / "onnx_model", INCLUDE / "model", INCLUDE / "onnx_server"),  # it uses modules of all three
    lock="include/onnx_model/requirements.txt",
    python_variable="slipway_onnx_exporter_python",
    default_python="/opt/slipway/onnx/bin/python",
    exporter_image_variable="slipway_onnx_exporter_image",
    lock_in_image="/opt/slipway/onnx.txt",
    model_folder="model",
    serving_image=None,
    image_variable="slipway_onnx_serving_image",
    image_source="one built with include/onnx_server/Dockerfile",
    precisions=("float32", "float16_weights", "int8"),
    serves_saved_models=False,
    reads_h5=False,
    has_inter_op=False,
    decodes_in_batch=False,
)
RUNTIMES: Mapping[RuntimeName, Runtime] = {runtime.name: runtime for runtime in (TENSORFLOW, ONNXRUNTIME)}


def runtime_of_image(labels: Mapping[str, str]) -> str:
    """The name of the runtime that a server's image is for, by the image's labels."""
    return labels.get(IMAGE_LABEL_RUNTIME) or TENSORFLOW.name
