"""The written model, asked in this process by the server's own code: what is judged here is what is served."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnx_file import describe_step
from processor import Step
from request import Settings

from onnx_server.classifier import INPUTS, load_classifier
from onnx_server.decode import Limits, read_image
from onnx_server.preprocess import Preprocess, step_of
from serving_protocol.messages import PredictRequest
from serving_protocol.tensors import TYPES, fill_proto
from serving_protocol.words import ServingError

SIGNATURE = "serving_default"


class ServedFolder:
    """A model folder, loaded as the server loads it."""

    input_name = INPUTS[SIGNATURE]
    refusals = (ServingError,)

    def __init__(self, folder: Path) -> None:
        """Load the model in that folder, with a thread for each processor."""
        self._classifier = load_classifier(folder, threads=0)

    def call(self, signature: str, files: Sequence[str | bytes]) -> dict[str, Any]:
        """A signature's outputs for these files, as arrays. Raises ServingError."""
        names = sorted(self._classifier.signatures[signature].outputs)
        inputs = {INPUTS[signature]: _texts(files)}
        return dict(zip(names, self._classifier.run(signature, inputs, names, None), strict=True))

    def reason(self, refusal: Any) -> str:
        """Why a file was refused, in one line."""
        return str(refusal.message)

    def is_approximate(self, data: bytes) -> bool:  # noqa: ARG002
        """No file's pixels differ from PIL's: the server decodes with PIL."""
        return False

    def signatures(self) -> dict[str, Any]:
        """Each signature's inputs and outputs by name, with type and shape."""

        def described(tensors: Any) -> dict[str, Any]:
            return {
                name: {
                    "dtype": {"string": "DT_STRING", "float32": "DT_FLOAT"}[TYPES[info.dtype].name],
                    "shape": [dim.size for dim in info.tensor_shape.dim],
                }
                for name, info in sorted(tensors.items())
            }

        return {
            name: {"inputs": described(found.inputs), "outputs": described(found.outputs)}
            for name, found in sorted(self._classifier.signatures.items())
        }


class ServerReader:
    """Reads files with the server's decoder and processor."""

    def __init__(self, steps: Sequence[Step], settings: Settings) -> None:
        """Run these steps, within the settings' limits."""
        self.steps = steps
        self._limits = Limits(max_file_bytes=settings.max_file_bytes, max_side=settings.max_side)
        self._preprocess = Preprocess(tuple(step_of(describe_step(step)) for step in steps))

    def pixels(self, data: bytes) -> Any:
        """The model's input for one file, float32 (3, height, width). Raises BadImage."""
        import numpy as np

        out = np.empty((3, self._preprocess.height, self._preprocess.width), np.float32)
        self._preprocess.apply(read_image(data, self._limits), out)
        return out


def predict_request(model: str, input_name: str, values: Sequence[str | bytes], signature: str) -> Any:
    """A tensorflow.serving.PredictRequest with these strings and no version: the sender sets the version."""
    request = PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    fill_proto(request.inputs[input_name], _texts(values))
    return request


def write_warmup(folder: Path, requests: Sequence[Any]) -> None:
    """Write the smallest PredictRequest of each signature where the server looks for its warmup requests.

    The server computes larger ones in the same small runs, so they would warm nothing more, and delay the start.
    """
    warmup = folder / "warmup"
    warmup.mkdir()
    smallest: dict[str, Any] = {}
    for request in sorted(requests, key=lambda request: request.ByteSize()):
        smallest.setdefault(request.model_spec.signature_name, request)
    for number, name in enumerate(sorted(smallest), 1):
        (warmup / f"{number:04}.bin").write_bytes(smallest[name].SerializeToString(deterministic=True))


def _texts(values: Sequence[str | bytes]) -> Any:
    import numpy as np

    array = np.empty(len(values), object)
    array[:] = [value.encode() if isinstance(value, str) else value for value in values]
    return array
