"""A SavedModel on disk: taken from an archive, loaded again to be asked, its signatures read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from errors import ExportRefused
from golden import SIGNATURE
from operations import check_operations
from reference_pixels import is_cmyk
from reproducible import normalise
from xla import refuse_xla


class ExportedGraph:
    """The written SavedModel, loaded again to check its answers."""

    def __init__(self, folder: Path) -> None:
        """Load the SavedModel in that folder."""
        import tensorflow as tf

        self._tf = tf
        self._loaded = tf.saved_model.load(str(folder))
        self.refusals = (tf.errors.OpError,)
        self.signatures = self._loaded.signatures
        self.input_name: str = self._input(SIGNATURE)

    def _input(self, signature: str) -> str:
        return next(iter(self.signatures[signature].structured_input_signature[1]))

    def call(self, signature: str, files: Sequence[str | bytes]) -> dict[str, Any]:
        """A signature's outputs for these files, as arrays. Raises tf.errors.OpError."""
        outputs = self.signatures[signature](**{self._input(signature): self._tf.constant(list(files))})
        return {name: value.numpy() for name, value in outputs.items()}

    def reason(self, refusal: Any) -> str:
        """Why a file was refused, in one line."""
        return str(refusal.message.splitlines()[0])

    def is_approximate(self, data: bytes) -> bool:
        """Whether the file is in CMYK: TensorFlow's decoder truncates where PIL rounds."""
        return is_cmyk(data)


def take_savedmodel(found: Path, savedmodel: Path, *, where: str) -> None:
    """Move an archive's SavedModel into place. Raises ExportRefused for one that clients could not call, or the server not run."""
    check_operations(found, where=f"source: {where}")
    refuse_other_signature(read_signatures(found).get(SIGNATURE, {}), where=where)
    refuse_xla(found, where=f"source: {where}")
    found.rename(savedmodel)
    normalise(savedmodel)


def read_signatures(savedmodel: Path) -> dict[str, Any]:
    """Each signature's inputs and outputs by name, with type and shape."""
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel.FromString((savedmodel / "saved_model.pb").read_bytes())
    serving = [graph for graph in proto.meta_graphs if "serve" in graph.meta_info_def.tags]
    found = serving[0].signature_def if serving else {}

    def described(tensors: Any) -> dict[str, Any]:
        return {
            name: {
                "dtype": types_pb2.DataType.Name(info.dtype),
                "shape": None if info.tensor_shape.unknown_rank else [dim.size for dim in info.tensor_shape.dim],
            }
            for name, info in sorted(tensors.items())
        }

    return {
        name: {"inputs": described(found[name].inputs), "outputs": described(found[name].outputs)}
        for name in sorted(found)
        if not name.startswith("__")  # TensorFlow's own
    }


def refuse_other_signature(signature: dict[str, Any], *, where: str) -> None:
    """Refuse a SavedModel that clients could not call; the message says what signature it has."""
    if not signature:
        raise ExportRefused(f"source: {where}: it has no signature serving_default. Next: save it with one.")
    inputs = {name: info["dtype"] for name, info in signature["inputs"].items()}
    outputs = {name: info["dtype"] for name, info in signature["outputs"].items()}
    if list(inputs.values()) != ["DT_STRING"] or outputs != {"label": "DT_STRING", "confidence": "DT_FLOAT"}:
        raise ExportRefused(
            f"source: {where}: its serving_default has inputs {inputs} and outputs {outputs}. "
            "Next: save it with one string input and the outputs label (string) and confidence (float)."
        )
