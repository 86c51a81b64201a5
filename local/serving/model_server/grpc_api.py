"""The gRPC API: PredictionService and ModelService, with the messages of tensorflow-serving-api."""

import contextlib
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from . import metrics
from .models import Versions
from .words import START_FAILED, ServingError, invalid, log

LONGEST_TIMEOUT_MS = 2**31 - 1
OWN_CALL_LIMIT_S = 5


def _version_of(spec: Any) -> int | None:
    return spec.version.value if spec.HasField("version") else None


def _answered(context: grpc.ServicerContext, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except ServingError as error:
        return context.abort(grpc.StatusCode[error.code], error.message)


def _timeout_ms(context: grpc.ServicerContext) -> int:
    """The time left until the caller's deadline; 0 if there is none. Raises ServingError if the deadline has passed."""
    left_s = context.time_remaining()
    if left_s is None:
        return 0
    if not int(left_s * 1000):
        raise ServingError("DEADLINE_EXCEEDED", "the caller's deadline passed before the run")
    return min(int(left_s * 1000), LONGEST_TIMEOUT_MS)


def _with_spec(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return request.model_spec


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]
    """`tensorflow.serving.PredictionService`: Predict and GetModelMetadata. Other methods are UNIMPLEMENTED."""

    def __init__(self, versions: Versions) -> None:
        """Serve these versions."""
        self._versions = versions

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 (the service's name)
        """Answer a PredictRequest. The response names the version that answered."""
        name = request.model_spec.name
        began = time.monotonic()
        try:
            response = self._predict(request, _timeout_ms(context))
        except ServingError as error:
            metrics.REQUESTS.add(name, error.code)
            return context.abort(grpc.StatusCode[error.code], error.message)
        metrics.REQUEST_LATENCY.add((time.monotonic() - began) * 1e6, name, "Predict", "GRPC")
        metrics.REQUESTS.add(name, "OK")
        return response

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 (the service's name)
        """Answer with the signatures."""
        return _answered(context, lambda: self._metadata(request))

    def _predict(self, request: Any, timeout_ms: int) -> Any:
        spec = _with_spec(request)
        return self._versions.find(spec.name, _version_of(spec), spec.version_label).answer(
            request, timeout_ms=timeout_ms
        )

    def _metadata(self, request: Any) -> Any:
        spec = _with_spec(request)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        model = self._versions.find(spec.name, _version_of(spec), spec.version_label)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = model.name
        response.model_spec.version.value = model.version
        response.metadata["signature_def"].Pack(get_model_metadata_pb2.SignatureDefMap(signature_def=model.signatures))
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc]
    """`tensorflow.serving.ModelService`: GetModelStatus. HandleReloadConfigRequest is UNIMPLEMENTED."""

    def __init__(self, versions: Versions) -> None:
        """Serve these versions."""
        self._versions = versions

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 (the service's name)
        """Answer with the state of each version."""
        return _answered(context, lambda: self._status(request))

    def _status(self, request: Any) -> Any:
        spec = _with_spec(request)
        return self._versions.status(spec.name, _version_of(spec))


def _make_first_call(port: int) -> None:
    """Make the first call to this server: unlike in the real server, it takes milliseconds longer in Python's gRPC."""
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel, contextlib.suppress(grpc.RpcError):
        model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(
            get_model_status_pb2.GetModelStatusRequest(), timeout=OWN_CALL_LIMIT_S
        )


def start_grpc(versions: Versions, port: int, threads: int) -> grpc.Server:
    """The gRPC server, listening. Ends the process if the port is in use."""
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=max(threads, 1), thread_name_prefix="grpc"),
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(versions), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(versions), server)
    try:
        server.add_insecure_port(f"0.0.0.0:{port}")
    except RuntimeError as error:
        log(f"gRPC port {port}: {error}. Next: choose a free port with --port.")
        raise SystemExit(START_FAILED) from error
    server.start()
    _make_first_call(port)
    log(f"Running gRPC ModelServer at 0.0.0.0:{port} ...")
    return server
