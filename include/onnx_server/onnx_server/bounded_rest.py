"""The REST API within limits: how large a body may be, how long it may take to arrive, and how many bytes of all bodies are kept.

It also has a path that is 200 as long as the process answers at all.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from serving_protocol import metrics
from serving_protocol.configs import metrics_path
from serving_protocol.json_tensors import written
from serving_protocol.rest import Execute, Rest
from serving_protocol.versions import Versions
from serving_protocol.words import HTTP_STATUS, ServingError, too_late

from .flags import ServerFlags

ALIVE = b"/healthz"
AT_ONCE = 4  # of the largest bodies: all bodies that arrive, wait or are being answered have no more bytes than that
HTTP_TOO_LARGE = 413  # gRPC's RESOURCE_EXHAUSTED would be 429, which tells a client to send it again


class BoundedRest(Rest):
    """Refuses bodies that are too large or arrive too slowly. Refusals and the path for liveness come from the event loop."""

    def __init__(self, versions: Versions, execute: Execute, flags: ServerFlags) -> None:
        """Serve these versions as the flags say."""
        path = metrics_path(flags.monitoring_config_file)
        super().__init__(versions, execute, timeout_ms=flags.rest_api_timeout_in_ms, metrics_path=path)
        self._bodies = Bodies(flags.max_request_bytes)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one HTTP request of ASGI. Its time limit begins before its body is read."""
        if scope["raw_path"] == ALIVE and scope["method"] == "GET":
            await self.send(send, 200, "text/plain", b"ok")
            return
        began_s = time.monotonic()
        length = b"".join(value for name, value in scope["headers"] if name == b"content-length")
        try:
            async with self._bodies.read(receive, int(length or 0), self.deadline_s(began_s)) as body:
                await self.respond(scope, body, began_s, send)
        except ServingError as error:  # of the body: all later errors have been answered
            metrics.REQUESTS.add("", error.code)
            status = HTTP_TOO_LARGE if error.code == "RESOURCE_EXHAUSTED" else HTTP_STATUS[error.code]
            # A connection whose body comes too slowly is closed. What is left of another body is read and thrown away, so that a
            # client that sends all of it before it reads gets the answer.
            closes = error.code == "DEADLINE_EXCEEDED"
            await self.send(send, status, "application/json", written({"error": error.message}), closes=closes)


class Bodies:
    """The bodies of all requests, which share a bounded number of bytes."""

    def __init__(self, most_bytes: int) -> None:
        """Allow each body so many bytes."""
        self._most_bytes = most_bytes
        self._left_bytes = AT_ONCE * most_bytes

    @contextlib.asynccontextmanager
    async def read(self, receive: Any, length: int, deadline_s: float | None) -> AsyncIterator[bytes]:
        """A body, whose bytes count until the block ends. `length` is what its header says, or 0.

        Raises ServingError: RESOURCE_EXHAUSTED if it is too large, UNAVAILABLE if too much of others is kept, DEADLINE_EXCEEDED.
        """
        self._check(length)
        pieces: list[bytes] = []
        size = 0
        try:
            async with _limited(deadline_s):
                has_more = True
                while has_more:
                    message = await receive()
                    piece, has_more = message.get("body", b""), message.get("more_body", False)
                    size += len(piece)
                    self._left_bytes -= len(piece)
                    self._check(size)
                    pieces.append(piece)
            body = b"".join(pieces)
            pieces.clear()
            yield body
        finally:
            self._left_bytes += size

    def _check(self, size: int) -> None:
        if size > self._most_bytes:
            raise ServingError(
                "RESOURCE_EXHAUSTED", f"The request has more than {self._most_bytes} bytes (--max_request_bytes)."
            )
        if self._left_bytes < 0:
            raise ServingError(
                "UNAVAILABLE", f"The server is behind: all requests have {AT_ONCE * self._most_bytes} bytes."
            )


@contextlib.asynccontextmanager
async def _limited(deadline_s: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(None if deadline_s is None else deadline_s - time.monotonic()):
            yield
    except TimeoutError as error:
        raise too_late() from error
