"""Google's REST APIs over HTTPS: routing, authentication, configured faults, and responses.

An API is a module with a list of `Route`s, which `emulator.py` collects. A method has the name of Google's discovery
documents, also in counts and faults: `compute.regions.get`. The first word is the host that serves it.
"""

import json
import re
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import grpc

from local.gke.clusters import Google
from local.gke.errors import Refusal, service_disabled
from local.gke.tokens import Issuer, who

HTTP = {  # google.rpc.Code to HTTP status, as google.api.http maps them
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
}
OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, as its route reads it."""

    google: Google
    caller: str  # the service account
    path: Mapping[str, str]  # the variables of the route's path
    query: Mapping[str, Sequence[str]]
    body: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A method of an API: its verb and path, and the function that answers or raises Refusal."""

    name: str  # compute.regions.get
    verb: str
    path: str  # /compute/v1/projects/{project}/regions/{region}
    answer: Callable[[Request], Any]

    @property
    def api(self) -> str:
        """The first label of the API's host."""
        return self.name.partition(".")[0]

    def match(self, host: str, verb: str, path: str) -> dict[str, str] | None:
        """The path's variables if the request is for this method, otherwise None."""
        pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/:]+)", self.path)
        found = re.fullmatch(pattern, path)
        return found.groupdict() if found and (self.api, self.verb) == (host.partition(".")[0], verb) else None


def serve(
    google: Google, issuer: Issuer, routes: Sequence[Route], *, key: Path, certificate: Path
) -> ThreadingHTTPServer:
    """Serve on a free port of loopback, in threads."""

    class Handler(BaseHTTPRequestHandler):
        """One connection, which clients keep open."""

        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            """Answer one request."""
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = call(google, issuer, routes, self, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815 - http.server's own names

        def log_message(self, *_words: Any) -> None:
            """Calls are counted, not logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    # The handshake happens at the first read, in the connection's own thread, so a slow client does not block others.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


def call(
    google: Google, issuer: Issuer, routes: Sequence[Route], handler: BaseHTTPRequestHandler, body: bytes
) -> tuple[int, Any]:
    """The status and JSON of one request."""
    url, host = urlsplit(handler.path), handler.headers.get("Host", "")
    for route in routes:
        variables = route.match(host, handler.command, unquote(url.path))
        if variables is not None:
            token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
            try:
                with google.lock:
                    caller = admit(google, issuer, route, token)
                    request = Request(
                        google=google,
                        caller=caller,
                        path=variables,
                        query=parse_qs(url.query),
                        body=json.loads(body or b"null"),
                    )
                    return OK, route.answer(request)
            except Refusal as refusal:
                return HTTP[refusal.code], error(refusal)
    return 404, {"error": {"code": 404, "message": f"not emulated: {handler.command} {host}{url.path}"}}


def admit(google: Google, issuer: Issuer, route: Route, token: str) -> str:
    """Count and authenticate a call. Returns the caller. Raises Refusal for a fault that comes before the method."""
    faults = google.faults
    google.calls[route.name] += 1
    if faults.refuse_tokens or (found := who(token, [issuer])) is None:
        raise Refusal(grpc.StatusCode.UNAUTHENTICATED, "Request had invalid authentication credentials.")
    if faults.unavailable.get(route.name, 0) > 0:
        faults.unavailable[route.name] -= 1
        raise Refusal(grpc.StatusCode.UNAVAILABLE, "The service is currently unavailable.")
    if f"{route.api}.googleapis.com" in google.project.disabled:
        raise service_disabled(route.api, google.project.number)
    if route.name in faults.deny:
        raise Refusal(grpc.StatusCode.PERMISSION_DENIED, f"Permission '{route.name}' denied (or it may not exist).")
    return found.email


def error(refusal: Refusal) -> dict[str, Any]:
    """A refusal in Google's JSON. Older APIs, such as compute, add `errors`."""
    status = HTTP[refusal.code]
    reasons = {403: "forbidden", 404: "notFound", 401: "authError", 503: "backendError"}
    detail = {"message": str(refusal), "domain": "global", "reason": reasons.get(status, "badRequest")}
    return {
        "error": {
            "code": status,
            "message": str(refusal),
            "status": refusal.code.name,
            "errors": [detail],
            "details": list(refusal.details),
        }
    }
