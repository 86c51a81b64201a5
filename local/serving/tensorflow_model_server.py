#!/usr/bin/python3
"""A stand-in for `tensorflow_model_server`, for machines where the `tensorflow/serving` image cannot be pulled.

It serves one TensorFlow SavedModel over the same REST and gRPC addresses, with the same flags, answers and error
codes; README.md beside it says what it imitates and what it does not. It runs inside its own image, on the
environment of requirements.txt; nothing else imports it.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import gzip
import importlib.util
import json
import os
import re
import sys
import threading
import time
import types
import zlib
from concurrent import futures
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


def _leave_out_the_public_api() -> None:
    """Let `tensorflow.python…` be imported without running `tensorflow/__init__.py`.

    That file imports Keras and every public name: 8 s of a pod's start, where a session and a loader need under 2 s.
    """
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.submodule_search_locations is None:
        raise SystemExit("stand-in for tensorflow/serving: TensorFlow is not installed. Next: rebuild this image.")
    package = types.ModuleType("tensorflow")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules["tensorflow"] = package


_leave_out_the_public_api()

# Below the line above on purpose, and in TensorFlow's own order: pywrap loads the shared library first.
# isort: off
from tensorflow.python import pywrap_tensorflow  # noqa: E402, F401
from tensorflow.core.protobuf import config_pb2  # noqa: E402
from tensorflow.python.client import session as tf_session  # noqa: E402
from tensorflow.python.framework import dtypes, errors as tf_errors, ops, tensor_util  # noqa: E402
from tensorflow.python.platform import tf_logging  # noqa: E402
from tensorflow.python.saved_model import loader_impl  # noqa: E402
# isort: on

import grpc  # noqa: E402
import numpy as np  # noqa: E402
from google.protobuf import json_format  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

NAME = "stand-in for tensorflow/serving"
DEFAULT_SIGNATURE = "serving_default"
LOAD_FAILED = 255  # the real server's exit(-1)

# gRPC's codes as HTTP statuses, as tensorflow/serving maps them.
HTTP_STATUS = {
    "OK": 200,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}

# Flags of the real server that change nothing here; each is named in the log when it is given.
NOT_IMITATED = (
    "allow_version_labels_for_unavailable_models",
    "batching_parameters_file",
    "enable_batching",
    "enable_grpc_healthcheck_service",
    "enable_model_warmup",
    "enable_per_model_batching_parameters",
    "enable_profiler",
    "file_system_poll_wait_seconds",
    "flush_filesystem_caches",
    "grpc_channel_arguments",
    "monitoring_config_file",
    "num_load_threads",
    "num_request_iterations_for_warmup",
    "num_unload_threads",
    "per_process_gpu_memory_fraction",
    "prefer_tflite_model",
    "remove_unused_fields_from_bundle_metagraph",
    "response_compression_level",
    "rest_api_timeout_in_ms",
    "saved_model_tags",
    "tensorflow_session_config_file",
    "xla_cpu_compilation_enabled",
)


def log(line: str) -> None:
    """One event, one line on stderr."""
    print(f"{NAME}: {line}", file=sys.stderr, flush=True)


class ServingError(Exception):
    """A request that cannot be answered: one of gRPC's status codes by name, and the reason."""

    def __init__(self, code: str, message: str) -> None:
        """Name the code as gRPC does, such as INVALID_ARGUMENT."""
        super().__init__(message)
        self.code = code
        self.message = message


# --- flags ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What the command line asks for."""

    port: int
    rest_api_port: int
    rest_api_num_threads: int
    grpc_max_threads: int
    model_name: str
    model_base_path: str
    inter_op_threads: int
    intra_op_threads: int
    max_num_load_retries: int
    load_retry_interval_micros: int
    not_imitated: tuple[str, ...]


class _FlagParser(argparse.ArgumentParser):
    """Refuses in one line what it does not know."""

    def error(self, message: str) -> Any:
        """End the process; argparse's own usage text would bury the reason."""
        log(f"command line: {message}. Next: --help lists the flags of tensorflow_model_server known here.")
        raise SystemExit(LOAD_FAILED)


def parse_flags(arguments: list[str]) -> Flags:
    """The command line as Flags; an unknown or malformed one ends the process."""
    parser = _FlagParser(prog="tensorflow_model_server", description=__doc__, allow_abbrev=False)
    parser.add_argument("--port", type=int, default=8500, help="gRPC")
    parser.add_argument("--rest_api_port", type=int, default=0, help="REST; 0 leaves it off")
    parser.add_argument("--rest_api_num_threads", type=int, default=4 * (os.cpu_count() or 1))
    parser.add_argument("--grpc_max_threads", type=int, default=4 * (os.cpu_count() or 1))
    parser.add_argument("--model_name", default="default")
    parser.add_argument("--model_base_path", default="")
    parser.add_argument("--tensorflow_session_parallelism", type=int, default=0, help="both kinds of threads")
    parser.add_argument("--tensorflow_inter_op_parallelism", type=int, default=0)
    parser.add_argument("--tensorflow_intra_op_parallelism", type=int, default=0)
    parser.add_argument("--max_num_load_retries", type=int, default=5)
    parser.add_argument("--load_retry_interval_micros", type=int, default=60_000_000)
    for name in NOT_IMITATED:
        parser.add_argument(f"--{name}", nargs="?", const="true", help="accepted, changes nothing here")
    given = parser.parse_args(arguments)
    if not given.model_base_path:
        parser.error("--model_base_path is required (a --model_config_file is not imitated)")
    both = given.tensorflow_session_parallelism
    return Flags(
        port=given.port,
        rest_api_port=given.rest_api_port,
        rest_api_num_threads=max(1, given.rest_api_num_threads),
        grpc_max_threads=max(1, given.grpc_max_threads),
        model_name=given.model_name,
        model_base_path=given.model_base_path,
        inter_op_threads=both or given.tensorflow_inter_op_parallelism,
        intra_op_threads=both or given.tensorflow_intra_op_parallelism,
        max_num_load_retries=max(0, given.max_num_load_retries),
        load_retry_interval_micros=given.load_retry_interval_micros,
        not_imitated=tuple(name for name in NOT_IMITATED if getattr(given, name) is not None),
    )


# --- the model --------------------------------------------------------------------------------------------------------


def largest_version(base_path: Path) -> int | None:
    """The largest of the folders named by a number, or None when there is none yet."""
    if not base_path.is_dir():
        return None
    versions = [int(entry.name) for entry in base_path.iterdir() if entry.name.isdecimal() and entry.is_dir()]
    return max(versions, default=None)


def wait_for_version(base_path: Path, *, look_every_s: float = 1.0) -> int:
    """The largest version; while there is none this waits, without end, as the real server does."""
    version = largest_version(base_path)
    if version is None:
        log(f"No versions of servable found under base path {base_path}; waiting")
    while version is None:
        time.sleep(look_every_s)
        version = largest_version(base_path)
    return version


class Model:
    """One loaded version of the model; `predict` may be called from many threads."""

    def __init__(self, flags: Flags, version: int) -> None:
        """Load that version; TensorFlow's own error says what is wrong with it."""
        self.name = flags.model_name
        self.version = version
        self._session = tf_session.Session(
            graph=ops.Graph(),
            config=config_pb2.ConfigProto(
                inter_op_parallelism_threads=flags.inter_op_threads,
                intra_op_parallelism_threads=flags.intra_op_threads,
            ),
        )
        folder = Path(flags.model_base_path) / str(version)
        with self._session.graph.as_default():
            graph = loader_impl.load(self._session, ["serve"], str(folder))
        self.signatures: dict[str, Any] = {
            name: signature for name, signature in graph.signature_def.items() if not name.startswith("__")
        }
        self._callables: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._lock = threading.Lock()

    def signature(self, name: str) -> Any:
        """The SignatureDef of that name; "" means serving_default."""
        wanted = name or DEFAULT_SIGNATURE
        if wanted not in self.signatures:
            raise ServingError("FAILED_PRECONDITION", f'Serving signature key "{wanted}" not found.')
        return self.signatures[wanted]

    def predict(
        self, signature_name: str, inputs: dict[str, np.ndarray], wanted: tuple[str, ...] = ()
    ) -> dict[str, np.ndarray]:
        """The outputs by name: all of them, or those wanted. Bad inputs are INVALID_ARGUMENT, in TensorFlow's words."""
        signature = self.signature(signature_name)
        if set(inputs) != set(signature.inputs):
            raise ServingError(
                "INVALID_ARGUMENT",
                f"input size does not match signature: {len(inputs)}!={len(signature.inputs)}: "
                f"got {sorted(inputs)}, expected {sorted(signature.inputs)}",
            )
        for name, value in inputs.items():
            _check_input(name, value, signature.inputs[name])
        unknown = sorted(set(wanted) - set(signature.outputs))
        if unknown:
            raise ServingError("INVALID_ARGUMENT", f"output tensor alias not found in signature: {unknown[0]}")
        names = tuple(sorted(wanted or signature.outputs))
        run = self._callable(signature_name or DEFAULT_SIGNATURE, signature, names)
        try:
            answers = run(*(inputs[name] for name in sorted(signature.inputs)))
        except tf_errors.OpError as error:
            raise ServingError(CODE_NAMES.get(error.error_code, "UNKNOWN"), error.message) from error
        except (TypeError, ValueError) as error:
            raise ServingError("INVALID_ARGUMENT", str(error)) from error
        return {name: np.asarray(answer) for name, answer in zip(names, answers, strict=True)}

    def _callable(self, signature_name: str, signature: Any, outputs: tuple[str, ...]) -> Any:
        key = (signature_name, outputs)
        with self._lock:
            if key not in self._callables:
                self._callables[key] = self._session.make_callable(
                    [signature.outputs[name].name for name in outputs],
                    feed_list=[signature.inputs[name].name for name in sorted(signature.inputs)],
                )
            return self._callables[key]


def _check_input(name: str, value: np.ndarray, info: Any) -> None:
    """Refuse an input whose type or shape the signature does not allow."""
    expected = dtypes.as_dtype(info.dtype)
    found = dtypes.string if value.dtype.kind in "OSU" else dtypes.as_dtype(value.dtype)
    if found != expected:
        raise ServingError("INVALID_ARGUMENT", f"input {name}: expected {expected.name}, got {found.name}")
    if info.tensor_shape.unknown_rank:
        return
    sizes = [dim.size for dim in info.tensor_shape.dim]
    fits = len(sizes) == value.ndim and all(size in {-1, got} for size, got in zip(sizes, value.shape, strict=True))
    if not fits:
        raise ServingError("INVALID_ARGUMENT", f"input {name}: expected shape {sizes}, got {list(value.shape)}")


def load(flags: Flags, version: int) -> Model:
    """The loaded model. What cannot be loaded is tried again as the flags say; then the process ends."""
    tries = flags.max_num_load_retries + 1
    for attempt in range(1, tries + 1):
        began = time.monotonic()
        try:
            model = Model(flags, version)
        except Exception as error:
            reason = str(error).strip().splitlines()
            log(
                f"loading {flags.model_name} version {version} from {flags.model_base_path}/{version} failed "
                f"(try {attempt} of {tries}): {reason[0] if reason else type(error).__name__}"
            )
            if attempt < tries:
                time.sleep(flags.load_retry_interval_micros / 1e6)
        else:
            log(f"Successfully loaded servable version {model.name} {version} in {time.monotonic() - began:.1f} s")
            return model
    log(f"no version of {flags.model_name} could be loaded. Next: check the SavedModel in {flags.model_base_path}.")
    raise SystemExit(LOAD_FAILED)


class Served:
    """The one model that this server has, found by the name and version that a request gives."""

    def __init__(self, model: Model) -> None:
        """Serve that model and no other."""
        self._model = model

    def find(self, name: str, version: int | None) -> Model:
        """The model to ask; any other name or version is NOT_FOUND."""
        if name != self._model.name or version not in {None, self._model.version}:
            asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise ServingError("NOT_FOUND", f"Servable not found for request: {asked}")
        return self._model

    def status(self, name: str, version: int | None) -> Any:
        """The GetModelStatusResponse for a name and, where one is given, a version."""
        model = self._model
        if name != model.name or version not in {None, model.version}:
            which = "any versions" if version is None else f"version {version}"
            raise ServingError("NOT_FOUND", f"Could not find {which} of model {name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        entry = response.model_version_status.add(
            version=model.version, state=get_model_status_pb2.ModelVersionStatus.AVAILABLE
        )
        entry.status.error_code = 0
        return response


# --- JSON and tensors -------------------------------------------------------------------------------------------------


def is_b64(value: Any) -> bool:
    """Whether a JSON value is an object with the one key `b64` and a string."""
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def inputs_from_json(body: dict[str, Any], signature: Any) -> dict[str, np.ndarray]:
    """The request's `instances` (row format) or `inputs` (column format) as one array for each input."""
    if ("instances" in body) == ("inputs" in body):
        problem = "Not formatted correctly: both" if "inputs" in body else "Missing"
        raise ServingError("INVALID_ARGUMENT", f"{problem} 'inputs' or 'instances' key")
    columns = _columns(body, list(signature.inputs))
    return {name: tensor_from_json(name, columns[name], signature.inputs[name]) for name in columns}


def _columns(body: dict[str, Any], names: list[str]) -> dict[str, Any]:
    if "inputs" in body:
        given = body["inputs"]
        named = isinstance(given, dict) and not is_b64(given)
        if not named and len(names) != 1:
            raise ServingError("INVALID_ARGUMENT", "inputs is a plain value/list, but expecting an object")
        columns = given if named else {names[0]: given}
    else:
        columns = _columns_from_rows(body["instances"], names)
    if set(columns) != set(names):
        raise ServingError("INVALID_ARGUMENT", f"expected the inputs {sorted(names)}, got {sorted(columns)}")
    return columns


def _columns_from_rows(rows: Any, names: list[str]) -> dict[str, Any]:
    if not isinstance(rows, list):
        raise ServingError("INVALID_ARGUMENT", "Expecting 'instances' to be a list/array")
    if not rows:
        raise ServingError("INVALID_ARGUMENT", "'instances' is an empty list: no element to predict on")
    if not isinstance(rows[0], dict) or is_b64(rows[0]):
        if len(names) != 1:
            raise ServingError("INVALID_ARGUMENT", "instances is a plain list, but expecting list of objects")
        return {names[0]: rows}
    if any(not isinstance(row, dict) or set(row) != set(rows[0]) for row in rows):
        raise ServingError("INVALID_ARGUMENT", "instances must all be objects with the same keys")
    return {name: [row[name] for row in rows] for name in rows[0]}


def tensor_from_json(name: str, value: Any, info: Any) -> np.ndarray:
    """A JSON value as an array of the input's type; anything that is not of that type is refused."""
    dtype = dtypes.as_dtype(info.dtype)
    shape = _shape(value)
    leaves: list[Any] = []
    _flatten(name, value, shape, leaves)
    if dtype == dtypes.string:
        array = np.empty(len(leaves), dtype=object)
        for index, leaf in enumerate(leaves):
            array[index] = _bytes_of(name, leaf)
        return array.reshape(shape)
    for leaf in leaves:
        _check_number(name, leaf, dtype)
    try:
        return np.array(leaves, dtype=dtype.as_numpy_dtype).reshape(shape)
    except (OverflowError, ValueError) as error:
        raise ServingError("INVALID_ARGUMENT", f"input {name}: {error}") from error


def _shape(value: Any) -> tuple[int, ...]:
    sizes = []
    while isinstance(value, list):
        sizes.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(sizes)


def _flatten(name: str, value: Any, shape: tuple[int, ...], leaves: list[Any]) -> None:
    if not shape:
        if isinstance(value, list) or (isinstance(value, dict) and not is_b64(value)):
            raise ServingError("INVALID_ARGUMENT", f"input {name}: Encountered list or object at unexpected place")
        leaves.append(value)
        return
    if not isinstance(value, list) or len(value) != shape[0]:
        raise ServingError("INVALID_ARGUMENT", f"input {name}: Encountered list at unexpected size: not a tensor")
    for item in value:
        _flatten(name, item, shape[1:], leaves)


def _bytes_of(name: str, leaf: Any) -> bytes:
    if is_b64(leaf):
        try:
            return base64.b64decode(leaf["b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ServingError("INVALID_ARGUMENT", f"input {name}: Unable to base64 decode: {error}") from error
    if isinstance(leaf, str):
        return leaf.encode()
    raise ServingError(
        "INVALID_ARGUMENT", f"input {name}: JSON Value: {json.dumps(leaf)} is not of expected type: string"
    )


def _check_number(name: str, leaf: Any, dtype: Any) -> None:
    if dtype.is_bool:
        fits = isinstance(leaf, bool)
    elif dtype.is_integer:
        fits = isinstance(leaf, int) and not isinstance(leaf, bool)
    else:
        fits = isinstance(leaf, (int, float)) and not isinstance(leaf, bool)
    if not fits:
        raise ServingError(
            "INVALID_ARGUMENT", f"input {name}: JSON Value: {json.dumps(leaf)} is not of expected type: {dtype.name}"
        )


def answer_to_json(outputs: dict[str, np.ndarray], *, rows: bool) -> dict[str, Any]:
    """The body of the answer: `predictions` a row each, or `outputs` a column each; one output needs no name."""
    columns = {name: _plain(name, _readable(value).tolist()) for name, value in outputs.items()}
    if not rows:
        return {"outputs": next(iter(columns.values())) if len(columns) == 1 else columns}
    sizes = {value.shape[0] if value.ndim else None for value in outputs.values()}
    if len(sizes) != 1 or None in sizes:
        raise ServingError("INVALID_ARGUMENT", "Tensors have inconsistent batch size: ask in the column format instead")
    if len(columns) == 1:
        return {"predictions": next(iter(columns.values()))}
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def _readable(value: np.ndarray) -> np.ndarray:
    """32-bit floats with the nine digits that tell them apart, not the seventeen of their 64-bit neighbours."""
    if value.dtype != np.float32:
        return value
    nine = [float(f"{number:.9g}") for number in value.reshape(-1).tolist()]
    return np.array(nine, dtype=np.float64).reshape(value.shape)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(name, item) for item in value]
    if isinstance(value, bytes):
        if name.endswith("_bytes"):
            return {"b64": base64.b64encode(value).decode()}
        return value.decode(errors="replace")
    return value


# --- REST -------------------------------------------------------------------------------------------------------------

_MODEL_PATH = r"/v1/models/(?P<name>[^/:]+)(?:(?:/versions/(?P<version>\d+))|(?:/labels/(?P<label>[^/:]+)))?"
PREDICT_PATH = re.compile(rf"{_MODEL_PATH}:(?P<verb>predict|classify|regress)", re.IGNORECASE)
STATUS_PATH = re.compile(rf"{_MODEL_PATH}(?P<metadata>/metadata)?", re.IGNORECASE)


def rest_get(served: Served, path: str) -> dict[str, Any]:
    """The answer to a GET: status, or metadata."""
    match = STATUS_PATH.fullmatch(path)
    if match is None:
        raise ServingError("INVALID_ARGUMENT", f"Malformed request: GET {path}")
    version = _asked_version(match)
    if not match["metadata"]:
        status = served.status(match["name"], version)
        return {
            "model_version_status": [
                {
                    "version": str(entry.version),
                    "state": "AVAILABLE",
                    "status": {"error_code": "OK", "error_message": ""},
                }
                for entry in status.model_version_status
            ]
        }
    model = served.find(match["name"], version)
    return {
        "model_spec": {"name": model.name, "signature_name": "", "version": str(model.version)},
        "metadata": {"signature_def": _message_dict(_signature_map(model))},
    }


def rest_post(served: Served, path: str, body: bytes) -> dict[str, Any]:
    """The answer to a POST: a prediction."""
    match = PREDICT_PATH.fullmatch(path)
    if match is None:
        raise ServingError("INVALID_ARGUMENT", f"Malformed request: POST {path}")
    if match["verb"].lower() != "predict":
        raise ServingError("UNIMPLEMENTED", f"{match['verb']} is not imitated by this stand-in: only predict is")
    model = served.find(match["name"], _asked_version(match))
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise ServingError("INVALID_ARGUMENT", f"JSON Parse error: {error}") from error
    if not isinstance(asked, dict):
        raise ServingError("INVALID_ARGUMENT", "JSON is not an object")
    name = asked.get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(name, str):
        raise ServingError("INVALID_ARGUMENT", "'signature_name' key must be a string value")
    if (name or DEFAULT_SIGNATURE) not in model.signatures:
        raise ServingError("INVALID_ARGUMENT", f'Serving signature name: "{name}" not found in signature def')
    answer = model.predict(name, inputs_from_json(asked, model.signature(name)))
    return answer_to_json(answer, rows="instances" in asked)


def _asked_version(match: re.Match[str]) -> int | None:
    if match["label"]:
        raise ServingError("INVALID_ARGUMENT", f"Unrecognized servable version label: {match['label']}")
    return int(match["version"]) if match["version"] else None


def _message_dict(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _signature_map(model: Model) -> Any:
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in model.signatures.items():
        signatures.signature_def[name].CopyFrom(signature)
    return signatures


class RestServer(ThreadingHTTPServer):
    """REST on one port: a thread for each connection, and at most so many requests in the model at a time."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], served: Served, *, threads: int) -> None:
        """Listen; `threads` bounds the requests in the model at a time."""
        self.served = served
        self.slots = threading.BoundedSemaphore(threads)
        super().__init__(address, RestHandler)


class RestHandler(BaseHTTPRequestHandler):
    """Reads one request, asks, writes one answer; the connection stays open (HTTP/1.1)."""

    server: RestServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or a kept-alive answer waits 40 ms for the client's delayed ACK
    timeout = 600  # idle connections end some day

    def do_GET(self) -> None:
        """Answer a status or metadata question."""
        self._answer(lambda: rest_get(self.server.served, self._path()))

    def do_POST(self) -> None:
        """Answer a prediction question."""
        try:
            body = self._body()
        except ServingError as error:
            self.close_connection = True
            self._send(HTTP_STATUS[error.code], {"error": error.message})
            return
        self._answer(lambda: rest_post(self.server.served, self._path(), body))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the standard library's name)
        """Say nothing: the real server does not log requests either."""

    def _path(self) -> str:
        return self.path.partition("?")[0]

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            body = self._chunks()
        else:
            try:
                length = int(self.headers.get("Content-Length") or 0)
            except ValueError as error:
                raise ServingError("INVALID_ARGUMENT", "Content-Length is not a number") from error
            body = self.rfile.read(length)
        if self.headers.get("Content-Encoding", "").lower() == "gzip":
            try:
                return gzip.decompress(body)
            except (OSError, EOFError, zlib.error) as error:
                raise ServingError("INVALID_ARGUMENT", f"gzip body: {error}") from error
        return body

    def _chunks(self) -> bytes:
        pieces = []
        try:
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
        except ValueError as error:
            raise ServingError("INVALID_ARGUMENT", "malformed chunked body") from error
        while self.rfile.readline().strip():
            pass  # trailers say nothing here
        return b"".join(pieces)

    def _answer(self, ask: Any) -> None:
        try:
            with self.server.slots:
                answer = ask()
        except ServingError as error:
            self._send(HTTP_STATUS[error.code], {"error": error.message})
        except Exception as error:
            log(f"{self.command} {self.path}: {type(error).__name__}: {error}")
            self._send(500, {"error": f"{type(error).__name__}: {error}"})
        else:
            self._send(200, answer)

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body, indent=4, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self._headers_buffer.append(b"\r\n" + data)  # type: ignore[attr-defined]  # headers and body in one write
        self.flush_headers()


# --- gRPC -------------------------------------------------------------------------------------------------------------


def _version_of(spec: Any) -> int | None:
    if spec.version_label:
        raise ServingError("INVALID_ARGUMENT", f"Unrecognized servable version label: {spec.version_label}")
    return spec.version.value if spec.HasField("version") else None


def _name_model(spec: Any, model: Model, signature_name: str = "") -> None:
    spec.name = model.name
    spec.version.value = model.version
    spec.signature_name = signature_name


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]
    """`tensorflow.serving.PredictionService`: Predict and GetModelMetadata."""

    def __init__(self, served: Served) -> None:
        """Answer for what is served."""
        self._served = served

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 (the service's name)
        """Answer a PredictRequest; the response names the version that answered."""
        return _answered(context, lambda: self._predict(request))

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 (the service's name)
        """Answer with the signatures."""
        return _answered(context, lambda: self._metadata(request))

    def _predict(self, request: Any) -> Any:
        model = self._served.find(request.model_spec.name, _version_of(request.model_spec))
        try:
            inputs = {name: tensor_util.MakeNdarray(proto) for name, proto in request.inputs.items()}
        except (TypeError, ValueError) as error:
            raise ServingError("INVALID_ARGUMENT", str(error)) from error
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        response = predict_pb2.PredictResponse()
        for name, value in model.predict(signature, inputs, tuple(request.output_filter)).items():
            response.outputs[name].CopyFrom(tensor_util.make_tensor_proto(value))
        _name_model(response.model_spec, model, signature)
        return response

    def _metadata(self, request: Any) -> Any:
        if list(request.metadata_field) != ["signature_def"]:
            raise ServingError("INVALID_ARGUMENT", "metadata_field must be signature_def, and nothing else")
        model = self._served.find(request.model_spec.name, _version_of(request.model_spec))
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        _name_model(response.model_spec, model)
        response.metadata["signature_def"].Pack(_signature_map(model))
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc]
    """`tensorflow.serving.ModelService`: GetModelStatus."""

    def __init__(self, served: Served) -> None:
        """Answer for what is served."""
        self._served = served

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 (the service's name)
        """Answer with the state of the version."""
        return _answered(context, lambda: self._served.status(request.model_spec.name, _version_of(request.model_spec)))


def _answered(context: grpc.ServicerContext, ask: Any) -> Any:
    try:
        return ask()
    except ServingError as error:
        return context.abort(grpc.StatusCode[error.code], error.message)


def start_grpc(flags: Flags, served: Served) -> grpc.Server:
    """The gRPC server, listening."""
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=flags.grpc_max_threads, thread_name_prefix="grpc"),
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(served), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(served), server)
    try:
        server.add_insecure_port(f"0.0.0.0:{flags.port}")
    except RuntimeError as error:
        log(f"gRPC port {flags.port}: {error}. Next: choose a free one with --port.")
        raise SystemExit(LOAD_FAILED) from error
    server.start()
    log(f"Running gRPC ModelServer at 0.0.0.0:{flags.port} ...")
    return server


def start_rest(flags: Flags, served: Served) -> RestServer:
    """The REST server, answering in a thread of its own."""
    try:
        # All interfaces: a pod is reached by its own address.
        server = RestServer(("0.0.0.0", flags.rest_api_port), served, threads=flags.rest_api_num_threads)  # noqa: S104
    except OSError as error:
        log(f"REST port {flags.rest_api_port}: {error}. Next: choose a free one with --rest_api_port.")
        raise SystemExit(LOAD_FAILED) from error
    threading.Thread(target=server.serve_forever, name="rest", daemon=True).start()
    log(f"Exporting HTTP/REST API at:localhost:{flags.rest_api_port} ...")
    return server


def main(arguments: list[str]) -> int:
    """Load the model, then open the ports and serve until killed."""
    flags = parse_flags(arguments)
    tf_logging.set_verbosity(tf_logging.ERROR)
    log("this is not tensorflow/serving; it answers in its place where that image cannot be pulled")
    if flags.not_imitated:
        log(f"accepted but not imitated: {', '.join('--' + name for name in flags.not_imitated)}")
    version = wait_for_version(Path(flags.model_base_path))
    log(f"Building servable version {flags.model_name} {version} from {flags.model_base_path}/{version}")
    served = Served(load(flags, version))
    grpc_server = start_grpc(flags, served)
    if flags.rest_api_port:
        start_rest(flags, served)
    grpc_server.wait_for_termination()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
