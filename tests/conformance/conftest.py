"""The fixtures of the conformance suite, which holds a server to TensorFlow Serving's documents and source.

The tests do not depend on which server they send requests to (see servers.py). Each test and each case names its source:
a path below `tensorflow_serving/` in tensorflow/serving at tag 2.20.0, or below `tensorflow/` in tensorflow/tensorflow at
v2.20.0.
"""

import shutil
import subprocess
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tests.conformance.numpy_models import write_models
from tests.conformance.servers import (
    IMAGE,
    IN_IMAGE,
    NOT_ONNX,
    ONNX,
    PROGRAMS,
    PROJECT,
    SERVERS,
    STAND_IN,
    start_container,
    start_process,
    wait_until_open,
)

DESCRIPTORS = PROJECT / "include" / "onnx_server" / "serving_protocol" / "descriptors.bin"


@pytest.fixture(scope="session", params=SERVERS)
def kind(request):
    """Which server the cases run against."""
    return request.param


@pytest.fixture(autouse=True)
def applies(request):
    """A case that does not apply to the ONNX server must fail there, or the list of them is wrong."""
    if ONNX in request.node.name:
        for words, reason in NOT_ONNX.items():
            if words in request.node.name:
                request.applymarker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.fixture(scope="session")
def root(kind, request, tmp_path_factory):
    """The suite's folder: models that can be served and models that cannot, and configuration files."""
    folder = tmp_path_factory.mktemp("conformance")
    if kind == ONNX:
        write_models(folder)
    else:
        python = request.getfixturevalue("model_python")
        command = [python, Path(__file__).with_name("savedmodels.py"), folder]
        subprocess.run(command, check=True, capture_output=True, timeout=1200)
    (folder / "monitoring.txt").write_text("prometheus_config { enable: true }\n")
    (folder / "batching.txt").write_text(
        "max_batch_size { value: 2 }\nbatch_timeout_micros { value: 30000000 }\n"
        "max_enqueued_batches { value: 1 }\nnum_batch_threads { value: 1 }\nallowed_batch_sizes: 2\n"
    )
    (folder / "unknown-field.txt").write_text("max_batch_sizes { value: 2 }\n")
    return folder


@pytest.fixture(scope="session")
def start(kind, root, request, tmp_path_factory):
    """Starts a server of a model. In flags, `{root}` is the suite's folder as the server sees it."""
    started = []

    def run(model, *flags):
        given = [flag.format(root=IN_IMAGE if IMAGE else root) for flag in flags]
        if IMAGE:
            server = start_container(root, model, given)
        else:
            python = request.getfixturevalue({STAND_IN: "serving_python", ONNX: "onnx_server_python"}[kind])
            log = tmp_path_factory.mktemp("server") / "log"
            server = start_process((python, PROGRAMS[kind]), root, log, model, given)
        started.append(server)
        return server

    yield run
    for server in started:
        server.end()


@pytest.fixture(scope="session")
def sample(start):
    """A running server of `sample`, with metrics and a REST time limit of 2 s."""
    server = start("sample", "--monitoring_config_file={root}/monitoring.txt", "--rest_api_timeout_in_ms=2000")
    wait_until_open(server)
    return server


@pytest.fixture(scope="session")
def batching(start):
    """A server that batches two rows and waits half a minute for the second one."""
    server = start(
        "plain", "--enable_batching", "--batching_parameters_file={root}/batching.txt",
        "--monitoring_config_file={root}/monitoring.txt",
    )  # fmt: skip
    wait_until_open(server)
    return server


@pytest.fixture(scope="session")
def refused(start):
    """Servers that cannot start, by name. All are started at once, since each takes seconds."""
    once = "--max_num_load_retries=0"
    wanted = {
        "broken": ("broken", once),
        "warmup-unreadable": ("warmup-unreadable", once),
        "warmup-no-tfrecord": ("warmup-no-tfrecord", once),
        "warmup-failing": ("warmup-failing", once),
        "warmup-too-many": ("warmup-too-many", once),
        "warmup-large": ("warmup-large", once, "--enable_batching", "--batching_parameters_file={root}/batching.txt"),
        "no number": ("plain", "--grpc_max_threads=many"),
        "batching file alone": ("plain", "--batching_parameters_file={root}/batching.txt"),
        "no batching file": ("plain", "--enable_batching", "--batching_parameters_file={root}/nowhere.txt"),
        "unknown field": ("plain", "--enable_batching", "--batching_parameters_file={root}/unknown-field.txt"),
    }
    return {name: start(*arguments) for name, arguments in wanted.items()}


@pytest.fixture
def complete(root):
    """Creates a version of a model from `plain`'s files, in one step."""

    def copy(model, version):
        there = root / model / version
        shutil.copytree(root / "plain" / "00007", there.with_name(f"arriving-{version}"))
        shutil.rmtree(there, ignore_errors=True)
        there.with_name(f"arriving-{version}").rename(there)

    return copy


@pytest.fixture(scope="session")
def message():
    """Makes a message of a type from keyword arguments."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        pool.Add(file)

    def make(name, **fields):
        package = "tensorflow.serving"
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))(**fields)

    return make


@pytest.fixture(scope="session")
def call(message):
    """Calls a method with a request. Returns the response, or the code and message of the error."""

    def run(server, method, request, timeout_s=60):
        service = "ModelService" if method == "GetModelStatus" else "PredictionService"
        with grpc.insecure_channel(server.grpc) as channel:
            method_call = channel.unary_unary(
                f"/tensorflow.serving.{service}/{method}",
                request_serializer=lambda sent: sent.SerializeToString(),
                response_deserializer=type(message(f"{method}Response")).FromString,
            )
            try:
                return method_call(request, timeout=timeout_s)
            except grpc.RpcError as error:
                return error.code().name, error.details()

    return run


@pytest.fixture(scope="session")
def request_of(message):
    """Makes a PredictRequest from lists of floats or bytes."""

    def make(signature="", wanted=(), name="sample", version=None, **inputs):
        request = message("PredictRequest", output_filter=wanted)
        request.model_spec.name = name
        request.model_spec.signature_name = signature
        if version is not None:
            request.model_spec.version.value = version
        for alias, values in inputs.items():
            text = isinstance(values[0], bytes)
            tensor = request.inputs[alias]
            tensor.dtype = 7 if text else 1
            tensor.tensor_shape.dim.add(size=len(values))
            (tensor.string_val if text else tensor.float_val).extend(values)
        return request

    return make
