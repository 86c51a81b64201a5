"""The gRPC server, in the event loop: predictions are answered by the workers, everything else at once."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from serving_protocol.grpc_api import METHODS, Service, count, deadline_of, handlers, open_port, options
from serving_protocol.versions import Versions
from serving_protocol.words import ServingError, log

from .flags import ServerFlags
from .workers import Workers

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
LARGEST_MESSAGE = (1 << 31) - 1  # bytes: gRPC's own limit
NEARLY = 0.9  # of the time that the caller gave


class GrpcServer:
    """The server with its health service."""

    def __init__(self, versions: Versions, workers: Workers, flags: ServerFlags) -> None:
        """Open the port. Ends the process if it is in use."""
        self._server = grpc.aio.server(options=options(min(flags.max_request_bytes, LARGEST_MESSAGE)))
        self._health = health.aio.HealthServicer()
        self._server.add_generic_rpc_handlers(handlers(_calls(Service(versions), workers)))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        open_port(self._server, flags.port)
        self._port = flags.port

    async def start(self) -> None:
        """Answer calls."""
        for service in ("", *sorted({service for service, _ in METHODS})):
            await self._health.set(service, SERVING)
        await self._server.start()
        log(f"Running gRPC ModelServer at 0.0.0.0:{self._port} ...")

    async def leave(self) -> None:
        """Tell the clients that ask for the health that the server is about to end."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, limit_s: float) -> None:
        """Refuse new calls and wait for the others."""
        await self._server.stop(limit_s)


def _why_cancelled(began_s: float, deadline_s: float | None) -> str:
    """The code of a cancelled call. Its caller's deadline is a little earlier than the server's, by the time that the call took to arrive."""
    is_late = deadline_s is not None and time.monotonic() - began_s > NEARLY * (deadline_s - began_s)
    return "DEADLINE_EXCEEDED" if is_late else "CANCELLED"


def _calls(service: Service, workers: Workers) -> dict[str, Callable[..., Any]]:
    async def predict(request: Any, context: Any) -> Any:
        began, deadline_s = time.monotonic(), None
        try:
            deadline_s = deadline_of(context)
            response = await workers.run(lambda: service.predict(request, deadline_s), deadline_s)
        except ServingError as error:
            count(request, error.code, began)
            await context.abort(grpc.StatusCode[error.code], error.message)
        except asyncio.CancelledError:  # gRPC cancels a call at its deadline, and if the caller is gone
            count(request, _why_cancelled(began, deadline_s), began)
            raise
        count(request, "OK", began)
        return response

    def described(answer: Callable[[Any], Any]) -> Callable[..., Any]:
        async def call(request: Any, context: Any) -> Any:
            try:
                return answer(request)
            except ServingError as error:
                await context.abort(grpc.StatusCode[error.code], error.message)

        return call

    return {
        "Predict": predict,
        "GetModelMetadata": described(service.metadata),
        "GetModelStatus": described(service.status),
    }
