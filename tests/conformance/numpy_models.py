"""The models of savedmodels.py in NumPy, for the ONNX server: `write_models` writes their folders, and this program serves them.

The program is onnx_model_server itself but for one function: a folder with the file `sample` becomes a model in NumPy. All else
(flags, ports, queue, protocol, warmup, versions, metrics) is the server's own. Any other folder is loaded as it always is.
"""

import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

SERVER = Path(__file__).parents[2] / "include" / "onnx_server"
sys.path.insert(0, str(SERVER))

from serving_protocol.batching import Batcher, parameters_of  # noqa: E402
from serving_protocol.configs import read_batching  # noqa: E402
from serving_protocol.messages import PredictRequest, SignatureDef  # noqa: E402
from serving_protocol.models import DEFAULT_SIGNATURE, Model  # noqa: E402
from serving_protocol.tensors import TYPES  # noqa: E402
from serving_protocol.words import invalid, too_late  # noqa: E402

NUMBERS = {known.name: known.number for known in TYPES.values()}
FLOAT, TEXT = NUMBERS["float32"], NUMBERS["string"]
SAMPLE = "sample"


def no_negatives(x: np.ndarray) -> dict[str, np.ndarray]:
    """Refuses a whole batch for one negative number."""
    if (x < 0).any():
        raise invalid("assertion failed: [no negatives please]")
    return {"y": x}


def text(text: np.ndarray) -> dict[str, np.ndarray]:
    """The same bytes under a plain name and one that ends in `_bytes`."""
    sizes = np.array([len(value) for value in text.flat], np.int32).reshape(text.shape)
    return {"echo": text, "echo_bytes": text, "length": sizes}


KINDS = {"small": "int32", "large": "int64", "byte": "uint8", "flag": "bool", "fine": "float64"}

# For each signature: the types of its inputs and outputs, the size of a row, and what it computes; None never ends.
SIGNATURES: dict[str, tuple[dict[str, int], dict[str, int], tuple[int, ...], Callable[..., object] | None]] = {
    DEFAULT_SIGNATURE: ({"x": FLOAT}, {"y": FLOAT}, (), lambda x: {"y": np.float32(0.5) * x + np.float32(2)}),
    "two": (
        {"a": FLOAT, "b": FLOAT}, {"sum": FLOAT, "difference": FLOAT}, (), lambda a, b: {"sum": a + b, "difference": a - b},
    ),
    "pairs": ({"pair": FLOAT}, {"swapped": FLOAT}, (2,), lambda pair: {"swapped": pair[:, ::-1]}),
    "text": ({"text": TEXT}, {"echo": TEXT, "echo_bytes": TEXT, "length": NUMBERS["int32"]}, (), text),
    "types": (*[{name: NUMBERS[kind] for name, kind in KINDS.items()}] * 2, (), dict),
    "scalar": ({"x": FLOAT}, {"total": FLOAT}, (), lambda x: {"total": x.sum()}),
    "uneven": ({"x": FLOAT}, {"once": FLOAT, "twice": FLOAT}, (), lambda x: {"once": x, "twice": np.concatenate([x, x])}),
    "half": ({"x": NUMBERS["float16"]}, {"y": NUMBERS["float16"]}, (), lambda x: {"y": x}),
    "no_negatives": ({"x": FLOAT}, {"y": FLOAT}, (), no_negatives),
    "never": ({"x": FLOAT}, {"y": FLOAT}, (), None),
}  # fmt: skip


def definition(inputs: dict[str, int], outputs: dict[str, int], row: tuple[int, ...]) -> SignatureDef:
    """The SignatureDef of a signature."""
    found = SignatureDef(method_name="tensorflow/serving/predict")
    for described, types in ((found.inputs, inputs), (found.outputs, outputs)):
        for name, number in types.items():
            described[name].name, described[name].dtype = f"{name}:0", number
            for size in (-1, *row):
                described[name].tensor_shape.dim.add(size=size)
    return found


def computed(
    signature: str, inputs: dict[str, np.ndarray], names: list[str], deadline_s: float | None
) -> list[np.ndarray]:
    """A signature's outputs. Raises ServingError."""
    types, _, _, compute = SIGNATURES[signature]
    for name, value in inputs.items():
        if value.dtype != TYPES[types[name]].array_type:
            raise invalid(f"{name} is of another type")
    if compute is None:
        time.sleep(max(deadline_s - time.monotonic(), 0))
        raise too_late()
    outputs = compute(**inputs)
    return [np.asarray(outputs[name]) for name in names]


def sample_loader(flags):
    """The server's own loader, with the sample where a folder has it. Its runs are joined as the flags say."""
    from onnx_server.loader import RUNTIME, Loader

    batcher = Batcher(parameters_of(read_batching(flags.batching_parameters_file))) if flags.enable_batching else None
    joined = {name: batcher.wrap(partial(computed, name)) for name in SIGNATURES} if batcher else {}

    def run(signature, inputs, names, deadline_s):
        return joined.get(signature, partial(computed, signature))(inputs, names, deadline_s)

    class SampleLoader(Loader):
        def model_in(self, found):
            if not (found.folder / SAMPLE).exists():
                return super().model_in(found)
            signatures = {name: definition(*parts[:3]) for name, parts in SIGNATURES.items()}
            return Model(flags.model_name, found.version, signatures, run, RUNTIME)

    return SampleLoader(flags)


def predictions(signature: str, *x: float) -> bytes:
    """A warmup request with these rows for one signature."""
    request = PredictRequest()
    request.model_spec.name = "sample"
    request.model_spec.signature_name = signature
    request.inputs["x"].dtype = FLOAT
    request.inputs["x"].tensor_shape.dim.add(size=len(x))
    request.inputs["x"].float_val.extend(x)
    return request.SerializeToString()


def write_models(root: Path) -> None:
    """Write the folders of savedmodels.py's models."""
    plain = root / "plain" / "00007"
    plain.mkdir(parents=True)
    (plain / SAMPLE).touch()
    good = predictions("", 1.0)
    warmups = {
        "sample": [good, predictions("scalar", 2.0)],
        "warmup-full": [good] * 1000,
        "warmup-too-many": [good] * 1001,
        "warmup-unreadable": [good, b"\xff\xff no record"],
        "warmup-no-tfrecord": [b"x" * 100],
        "warmup-large": [predictions("", 1.0, 2.0, 3.0)],
        "warmup-failing": [good, predictions("no_negatives", -1.0)],
    }
    for name, requests in warmups.items():
        shutil.copytree(plain, root / name / "7")
        (root / name / "7" / "warmup").mkdir()
        for place, request in enumerate(requests):
            (root / name / "7" / "warmup" / f"{place:04}.bin").write_bytes(request)
    shutil.copytree(plain, root / "sample" / "3")
    shutil.copytree(plain, root / "compiled" / "7")
    for name in ("broken", "fixed"):
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "model.json").write_bytes(b"no model")


if __name__ == "__main__":
    from onnx_server.flags import ServerFlags
    from onnx_server.program import NAME, serve
    from serving_protocol.flags import parse_flags
    from serving_protocol.words import name_program

    name_program(NAME)
    given = parse_flags(sys.argv[1:], ServerFlags)
    serve(given, sample_loader(given))
