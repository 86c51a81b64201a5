"""The REST API: an ASGI application on uvicorn, with the paths of the real server.

Requests and responses follow model_servers/http_rest_api_handler.cc and http_rest_api_util.cc (2.20.0).
"""

import asyncio
import re
import socket
import threading
import time
import urllib.parse
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

from . import metrics
from .json_tensors import answer_of, inputs_of, parse_body, written
from .models import Versions
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


class Rest:
    """Answers requests, each in a thread of a bounded pool."""

    def __init__(self, versions: Versions, *, threads: int, timeout_ms: int, metrics_path: str | None) -> None:
        """Serve these versions; serve metrics only if they have a path."""
        self._versions = versions
        self._timeout_ms = max(timeout_ms, 0)
        self._metrics_path = metrics_path
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="rest")

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one HTTP request of ASGI."""
        query = scope["query_string"]
        target = (scope["raw_path"] + (b"?" + query if query else b"")).decode("latin-1")
        encoding = b"".join(value for name, value in scope["headers"] if name == b"content-encoding")
        body = await _received(receive)
        status, kind, data = await asyncio.get_running_loop().run_in_executor(
            self._pool, self._answer, scope["method"], target, unpacked(body) if b"gzip" in encoding else body
        )
        headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(data))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    def _answer(self, method: str, target: str, body: bytes) -> Answer:
        if self._metrics_path and target.partition("?")[0] == self._metrics_path:
            if target != self._metrics_path:
                return 400, "text/plain", f"Unexpected path: {target}. Should be {self._metrics_path}".encode()
            return 200, "text/plain", metrics.page()
        if not SERVED.fullmatch(target):
            return 404, "text/html", b"<html><head><title>404 Not Found</title></head><body></body></html>"
        return self._api_answer(method, target, body)

    def _api_answer(self, method: str, target: str, body: bytes) -> Answer:
        began = time.monotonic()
        match = (STATUS if method == "GET" else PREDICTION).fullmatch(target) if method in {"GET", "POST"} else None
        model = urllib.parse.unquote(match["name"] or "") if match else ""
        verb = match["verb"] if match and method == "POST" else ""
        code = "OK"
        try:
            data = self._dispatch(method, target, match, model, body)
            metrics.REQUEST_LATENCY.add((time.monotonic() - began) * 1e6, model, verb, "REST")
        except ServingError as error:
            code, data = error.code, written({"error": error.message})
        except Exception as error:
            log(f"{method} {target}: {type(error).__name__}: {error}")
            code, data = "INTERNAL", written({"error": f"{type(error).__name__}: {error}"})
        metrics.REQUESTS.add(model, code)
        return HTTP_STATUS[code], "application/json", data

    def _dispatch(self, method: str, target: str, match: re.Match[str] | None, model: str, body: bytes) -> bytes:
        if match is None:
            raise invalid(f"Malformed request: {method} {target}")
        version = _version(match["version"])
        label = urllib.parse.unquote(match["label"] or "")
        if method == "POST" and match["verb"] == "predict":
            return self._predict(model, version, label, body)
        if method == "POST" and match["verb"] in {"classify", "regress"}:
            raise ServingError("UNIMPLEMENTED", f"{match['verb']} is not imitated by this stand-in: only predict is")
        if method == "POST":
            raise invalid(f"Malformed request: {method} {target}")
        if not model:
            raise invalid("Missing model name in request.")
        if match["metadata"] == "metadata":
            return written(metadata(self._versions, model, version, label))
        return written(status(self._versions, model, version))

    def _predict(self, name: str, version: int | None, label: str, body: bytes) -> bytes:
        request = parse_body(body)
        model = self._versions.find(name, version, label)
        signature_name = request.get("signature_name", "")
        try:
            signature = model.signature(signature_name)
        except ServingError as error:
            raise invalid(f'Serving signature name: "{signature_name}" not found in signature def') from error
        outputs = model.predict(signature_name, inputs_of(request, signature), timeout_ms=self._timeout_ms)
        return answer_of(outputs, rows="instances" in request)


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


def _version(text: str | None) -> int | None:
    if text is None:
        return None
    if int(text) > LARGEST_VERSION:
        raise invalid(f"Failed to convert version: {text} to numeric.")
    return int(text)


def status(versions: Versions, name: str, version: int | None) -> dict[str, Any]:
    """The body of a status response: all versions, or the requested one. A label selects nothing."""
    return {
        "model_version_status": [
            {
                "version": str(entry.version),
                "state": type(entry).State.Name(entry.state),
                "status": {
                    "error_code": CODE_NAMES[entry.status.error_code],
                    "error_message": entry.status.error_message,
                },
            }
            for entry in versions.status(name, version).model_version_status
        ]
    }


def metadata(versions: Versions, name: str, version: int | None, label: str) -> dict[str, Any]:
    """The body of a metadata response: the model's name and version, and its signatures."""
    model = versions.find(name, version, label)
    signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=model.signatures)
    return {
        "model_spec": {"name": model.name, "signature_name": "", "version": str(model.version)},
        "metadata": {
            "signature_def": json_format.MessageToDict(
                signatures, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        },
    }


def start_rest(app: Rest, port: int) -> None:
    """Listen in a thread. If the port is in use, the server runs without REST, as the real one does."""
    try:
        listening = _listening(port)
    except OSError as error:
        log(f"Failed to start HTTP Server at localhost:{port}: {error}. Next: choose a free one with --rest_api_port.")
        return
    config = uvicorn.Config(
        app, loop="asyncio", http="h11", ws="none", lifespan="off", interface="asgi3", log_config=None,
        access_log=False, proxy_headers=False, server_header=False, timeout_keep_alive=IDLE_S,
    )  # fmt: skip
    server = uvicorn.Server(config)
    threading.Thread(target=server.run, args=([listening],), name="rest-loop", daemon=True).start()
    log(f"Exporting HTTP/REST API at:localhost:{port} ...")


def _listening(port: int) -> socket.socket:
    """A socket on all interfaces, since clients reach a pod by its own address."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    return socket.create_server(("0.0.0.0", port), backlog=1024)  # noqa: S104
