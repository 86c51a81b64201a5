"""The gRPC server: each call in a thread of a bounded pool."""

import contextlib
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc

from serving_protocol.grpc_api import Service, count, deadline_of, handlers, open_port, options
from serving_protocol.versions import Versions
from serving_protocol.words import ServingError, log

OWN_CALL_LIMIT_S = 5


def start_grpc(versions: Versions, port: int, threads: int) -> grpc.Server:
    """The gRPC server, listening. Ends the process if the port is in use."""
    pool = futures.ThreadPoolExecutor(max_workers=max(threads, 1), thread_name_prefix="grpc")
    server = grpc.server(pool, options=options())
    server.add_generic_rpc_handlers(handlers(_calls(Service(versions))))
    open_port(server, port)
    server.start()
    _make_first_call(port)
    log(f"Running gRPC ModelServer at 0.0.0.0:{port} ...")
    return server


def _calls(service: Service) -> dict[str, Callable[..., Any]]:
    def predict(request: Any, context: grpc.ServicerContext) -> Any:
        began = time.monotonic()
        try:
            response = service.predict(request, deadline_of(context))
        except ServingError as error:
            count(request, error.code, began)
            return context.abort(grpc.StatusCode[error.code], error.message)
        count(request, "OK", began)
        return response

    def described(answer: Callable[[Any], Any]) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return answer(request)
            except ServingError as error:
                return context.abort(grpc.StatusCode[error.code], error.message)

        return call

    return {
        "Predict": predict,
        "GetModelMetadata": described(service.metadata),
        "GetModelStatus": described(service.status),
    }


def _make_first_call(port: int) -> None:
    """Make the first call to this server: unlike in the real server, it takes milliseconds longer in Python's gRPC."""
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel, contextlib.suppress(grpc.RpcError):
        channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")(b"", timeout=OWN_CALL_LIMIT_S)
