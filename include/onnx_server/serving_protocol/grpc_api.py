"""The gRPC API: PredictionService's Predict and GetModelMetadata, ModelService's GetModelStatus. Other methods are UNIMPLEMENTED.

The servers decide how a method is called: in a thread (`grpc.server`) or in an event loop (`grpc.aio.server`).
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from . import metrics
from .messages import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    PredictRequest,
    PredictResponse,
    SignatureDefMap,
)
from .versions import Versions
from .words import START_FAILED, invalid, log, too_late

PREDICTION, MODEL = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
METHODS = {
    (PREDICTION, "Predict"): (PredictRequest, PredictResponse),
    (PREDICTION, "GetModelMetadata"): (GetModelMetadataRequest, GetModelMetadataResponse),
    (MODEL, "GetModelStatus"): (GetModelStatusRequest, GetModelStatusResponse),
}
UNLIMITED = -1


def options(most_bytes: int = UNLIMITED) -> list[tuple[str, int]]:
    """The options of a server which takes messages of so many bytes."""
    return [
        ("grpc.max_receive_message_length", most_bytes),
        ("grpc.max_send_message_length", UNLIMITED),
        ("grpc.so_reuseport", 0),
    ]


def handlers(calls: Mapping[str, Callable[..., Any]]) -> tuple[grpc.GenericRpcHandler, ...]:
    """The handlers of the two services. `calls` has a function of request and context for each method."""
    found: dict[str, dict[str, Any]] = {}
    for (service, method), (request, response) in METHODS.items():
        found.setdefault(service, {})[method] = grpc.unary_unary_rpc_method_handler(
            calls[method], request_deserializer=request.FromString, response_serializer=response.SerializeToString
        )
    return tuple(grpc.method_handlers_generic_handler(service, methods) for service, methods in found.items())


def open_port(server: Any, port: int) -> None:
    """Listen on all interfaces. Ends the process if the port is in use."""
    try:
        server.add_insecure_port(f"0.0.0.0:{port}")
    except RuntimeError as error:
        log(f"gRPC port {port}: {error}. Next: choose a free port with --port.")
        raise SystemExit(START_FAILED) from error


def deadline_of(context: Any) -> float | None:
    """The caller's deadline by time.monotonic(); None if there is none. Raises ServingError if it has passed."""
    left_s: float | None = context.time_remaining()
    if left_s is None:
        return None
    if left_s < 0.001:  # noqa: PLR2004  # milliseconds are the real server's unit
        raise too_late()
    return time.monotonic() + left_s


class Service:
    """What each method answers. Raises ServingError."""

    def __init__(self, versions: Versions) -> None:
        """Serve these versions."""
        self._versions = versions

    def predict(self, request: Any, deadline_s: float | None) -> Any:
        """The response to a PredictRequest. It names the version that answered."""
        spec = _spec_of(request)
        model = self._versions.find(spec.name, _version_of(spec), spec.version_label)
        return model.answer(request, deadline_s=deadline_s)

    def metadata(self, request: Any) -> Any:
        """The signatures."""
        spec = _spec_of(request)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        model = self._versions.find(spec.name, _version_of(spec), spec.version_label)
        response = GetModelMetadataResponse()
        response.model_spec.name = model.name
        response.model_spec.version.value = model.version
        response.metadata["signature_def"].Pack(SignatureDefMap(signature_def=model.signatures))
        return response

    def status(self, request: Any) -> Any:
        """The state of each version."""
        spec = _spec_of(request)
        return self._versions.status(spec.name, _version_of(spec))


def count(request: Any, code: str, began_s: float) -> None:
    """Count a prediction by its code. Only an answered one has a latency."""
    name = request.model_spec.name
    if code == "OK":
        metrics.REQUEST_LATENCY.add((time.monotonic() - began_s) * 1e6, name, "Predict", "GRPC")
    metrics.REQUESTS.add(name, code)


def _version_of(spec: Any) -> int | None:
    return spec.version.value if spec.HasField("version") else None


def _spec_of(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return request.model_spec
