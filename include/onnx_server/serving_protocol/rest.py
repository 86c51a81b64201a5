"""The REST API: an ASGI application on uvicorn, with the paths of the real server.

Requests and responses follow model_servers/http_rest_api_handler.cc and http_rest_api_util.cc (2.20.0).
"""

import asyncio
import contextlib
import re
import socket
import time
import urllib.parse
import zlib
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, NamedTuple, NoReturn

import uvicorn
from google.protobuf import json_format

from . import metrics
from .json_tensors import answer_of, inputs_of, parse_body, written
from .messages import STATE_NAMES, SignatureDefMap
from .versions import Versions
from .words import CODE_NAMES, HTTP_STATUS, ServingError, invalid, log

MODEL = r"(?P<name>[^/:]+)"
VERSION = r"(?:(?:/versions/(?P<version>\d+))|(?:/labels/(?P<label>[^/:]+)))?"
PREDICTION = re.compile(rf"(?i:/v1/models/{MODEL}{VERSION}:(?P<verb>classify|regress|predict))")
STATUS = re.compile(rf"(?i:/v1/models(?:/{MODEL})?{VERSION}(?:/(?P<metadata>metadata))?)")
SERVED = re.compile(r"(?is:/v1/.*)")
LARGEST_VERSION = 2**63 - 1
LARGEST_UNPACKED = 100 * 1024 * 1024  # bytes of a decompressed gzip body
IDLE_S = 600  # an idle kept-alive connection is closed after this

Answer = tuple[int, str, bytes]
# Runs a prediction outside of the event loop, until the deadline by time.monotonic() if there is one. Raises ServingError.
Execute = Callable[[Callable[[], bytes], float | None], Awaitable[bytes]]


class Rest:
    """Answers requests: predictions wherever `execute` runs them, everything else at once."""

    def __init__(self, versions: Versions, execute: Execute, *, timeout_ms: int, metrics_path: str | None) -> None:
        """Serve these versions; serve metrics only if they have a path. A prediction takes at most `timeout_ms`, if not 0."""
        self._versions = versions
        self._execute = execute
        self._timeout_s = max(timeout_ms, 0) / 1000
        self._metrics_path = metrics_path
        self.is_leaving = False  # a server that is about to end is no longer ready, and closes its connections

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one HTTP request of ASGI."""
        await self.respond(scope, await _received(receive), time.monotonic(), send)

    def deadline_s(self, began_s: float) -> float | None:
        """When a request that began then has to be answered, by time.monotonic(); None without a limit."""
        return began_s + self._timeout_s if self._timeout_s else None

    async def respond(self, scope: dict[str, Any], body: bytes, began_s: float, send: Any) -> None:
        """Answer a request that began then and has this body."""
        query = scope["query_string"]
        target = (scope["raw_path"] + (b"?" + query if query else b"")).decode("latin-1")
        encoding = b"".join(value for name, value in scope["headers"] if name == b"content-encoding")
        answer = await self._answer(scope["method"], target, body, began_s, is_packed=b"gzip" in encoding)
        await self.send(send, *answer)

    async def send(self, send: Any, status: int, kind: str, data: bytes, *, closes: bool = False) -> None:
        """Send an answer. It may be the last one of its connection."""
        headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(data))]
        if closes or self.is_leaving:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    async def _answer(self, method: str, target: str, body: bytes, began_s: float, *, is_packed: bool) -> Answer:
        if self._metrics_path and target.partition("?")[0] == self._metrics_path:
            if target != self._metrics_path:
                return 400, "text/plain", f"Unexpected path: {target}. Should be {self._metrics_path}".encode()
            return 200, "text/plain", metrics.page()
        if not SERVED.fullmatch(target):
            return 404, "text/html", b"<html><head><title>404 Not Found</title></head><body></body></html>"
        match = (STATUS if method == "GET" else PREDICTION).fullmatch(target) if method in {"GET", "POST"} else None
        model = urllib.parse.unquote(match["name"] or "") if match else ""
        verb = match["verb"] if match and method == "POST" else ""
        code = "OK"
        try:
            data: bytes
            if match is None:
                _refuse_malformed(method, target)
            elif method == "GET":
                data = self._describe(_asked(match), metadata=match["metadata"] == "metadata")
            elif verb == "predict":
                deadline_s = self.deadline_s(began_s)
                predict = partial(self._predict, _asked(match), body, is_packed=is_packed, deadline_s=deadline_s)
                data = await self._execute(predict, deadline_s)
            else:
                _refuse_verb(method, target, verb)
            metrics.REQUEST_LATENCY.add((time.monotonic() - began_s) * 1e6, model, verb, "REST")
        except ServingError as error:
            code, data = error.code, written({"error": error.message})
        except asyncio.CancelledError:
            if not self.is_leaving:
                raise
            code, data = "UNAVAILABLE", written({"error": "The server ended before the request was answered."})
        except Exception as error:
            log(f"{method} {target}: {type(error).__name__}: {error}")
            code, data = "INTERNAL", written({"error": f"{type(error).__name__}: {error}"})
        metrics.REQUESTS.add(model, code)
        return HTTP_STATUS[code], "application/json", data

    def _describe(self, asked: "Asked", *, metadata: bool) -> bytes:
        if not asked.model:
            raise invalid("Missing model name in request.")
        if metadata:
            return written(metadata_of(self._versions, asked))
        if self.is_leaving:
            raise ServingError("UNAVAILABLE", "The server is about to end.")
        return written(status_of(self._versions, asked))

    def _predict(self, asked: "Asked", body: bytes, *, is_packed: bool, deadline_s: float | None) -> bytes:
        request = parse_body(unpacked(body) if is_packed else body)
        model = self._versions.find(asked.model, asked.version, asked.label)
        signature_name = request.get("signature_name", "")
        try:
            signature = model.signature(signature_name)
        except ServingError as error:
            raise invalid(f'Serving signature name: "{signature_name}" not found in signature def') from error
        outputs = model.predict(signature_name, inputs_of(request, signature), deadline_s=deadline_s)
        return answer_of(outputs, rows="instances" in request)


def _refuse_malformed(method: str, target: str) -> NoReturn:
    raise invalid(f"Malformed request: {method} {target}")


def _refuse_verb(method: str, target: str, verb: str) -> NoReturn:
    if verb not in {"classify", "regress"}:  # the verbs are lower case, unlike the rest of the path
        _refuse_malformed(method, target)
    raise ServingError("UNIMPLEMENTED", f"{verb} is not supported here: only predict is")


class Asked(NamedTuple):
    """Which model a request is about."""

    model: str
    version: int | None
    label: str


def _asked(match: re.Match[str]) -> Asked:
    text = match["version"]
    if text is not None and int(text) > LARGEST_VERSION:
        raise invalid(f"Failed to convert version: {text} to numeric.")
    version = int(text) if text is not None else None
    return Asked(urllib.parse.unquote(match["name"] or ""), version, urllib.parse.unquote(match["label"] or ""))


async def _received(receive: Any) -> bytes:
    pieces = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)


def unpacked(body: bytes) -> bytes:
    """The content of a gzip body. A body that is invalid or too large counts as empty."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        content = unpacker.decompress(body, LARGEST_UNPACKED)
    except zlib.error:
        return b""
    return content if unpacker.eof else b""


def status_of(versions: Versions, asked: Asked) -> dict[str, Any]:
    """The body of a status response: all versions, or the requested one. A label selects nothing."""
    return {
        "model_version_status": [
            {
                "version": str(entry.version),
                "state": STATE_NAMES[entry.state],
                "status": {
                    "error_code": CODE_NAMES[entry.status.error_code],
                    "error_message": entry.status.error_message,
                },
            }
            for entry in versions.status(asked.model, asked.version).model_version_status
        ]
    }


def metadata_of(versions: Versions, asked: Asked) -> dict[str, Any]:
    """The body of a metadata response: the model's name and version, and its signatures."""
    model = versions.find(asked.model, asked.version, asked.label)
    signatures = SignatureDefMap(signature_def=model.signatures)
    return {
        "model_spec": {"name": model.name, "signature_name": "", "version": str(model.version)},
        "metadata": {
            "signature_def": json_format.MessageToDict(
                signatures, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        },
    }


class _Server(uvicorn.Server):
    """Leaves the signals to the program."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture nothing."""
        yield


def rest_server(app: Rest) -> uvicorn.Server:
    """The HTTP server of the application. Whoever runs it gives it its socket."""
    config = uvicorn.Config(
        app, loop="asyncio", ws="none", lifespan="off", interface="asgi3", log_config=None, access_log=False,
        proxy_headers=False, server_header=False, timeout_keep_alive=IDLE_S,
    )  # fmt: skip
    return _Server(config)


def listening(port: int) -> socket.socket | None:
    """A socket of the port on all interfaces, since clients reach a pod by its own address; None if the port is in use.

    The server then runs without REST, as the real one does.
    """
    try:
        if socket.has_dualstack_ipv6():
            opened = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        else:
            opened = socket.create_server(("0.0.0.0", port), backlog=1024)  # noqa: S104
    except OSError as error:
        log(f"Failed to start HTTP Server at localhost:{port}: {error}. Next: choose a free one with --rest_api_port.")
        return None
    # Its connections inherit it. asyncio sets it only for sockets that name their protocol; without it an answer in two
    # writes waits for the client's acknowledgement of the first, which may take 40 ms.
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened
