"""The API of a Docker Engine, over its socket."""

import http.client
import json
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from local.errors import StandError
from local.programs.sockets import UnixConnection

DEFAULT_HOST = "unix:///var/run/docker.sock"
ANSWER_S = 5
WORK_S = 900


def connect(host: str, timeout_s: float) -> http.client.HTTPConnection:
    """A connection to an engine, addressed as in DOCKER_HOST."""
    where = urllib.parse.urlsplit(host)
    if where.scheme == "unix":
        return UnixConnection(Path(where.path), timeout_s)
    if where.scheme in {"tcp", "http"} and where.hostname:
        return http.client.HTTPConnection(where.hostname, where.port or 2375, timeout=timeout_s)
    raise StandError(f"engine {host}: only unix:// and tcp:// are supported. Next: correct SLIPWAY_DOCKER_HOST")


def engine_answers(host: str) -> bool:
    """True if a Docker Engine responds there."""
    try:
        connection = connect(host, ANSWER_S)
        connection.request("GET", "/_ping")
        return connection.getresponse().read() == b"OK"
    except (OSError, http.client.HTTPException):
        return False


def call(
    host: str,
    method: str,
    path: str,
    *,
    query: dict[str, str] | None = None,
    body: Any = None,
    stream: Iterable[bytes] | None = None,
    headers: dict[str, str] | None = None,
    accept: tuple[int, ...] = (200, 201, 204),
    timeout_s: float = WORK_S,
) -> bytes:
    """The body of the engine's response. Raises StandError with the engine's message if it refuses."""
    connection = connect(host, timeout_s)
    target = path + ("?" + urllib.parse.urlencode(query) if query else "")
    sent: Any = json.dumps(body).encode() if body is not None else stream
    kind = "application/json" if body is not None else "application/x-tar"
    try:
        connection.request(method, target, body=sent, headers={"Content-Type": kind, **(headers or {})})
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as broken:
        raise StandError(f"engine {host}: {method} {path}: {broken}. Next: python3 -m local doctor") from broken
    finally:
        connection.close()
    if response.status not in accept:
        raise StandError(
            f"engine {host}: {method} {path}: {response.status} {answer.decode(errors='replace').strip()[:500]}"
        )
    return answer


def stream_error(answer: bytes) -> str | None:
    """The error in a stream of progress messages, or None. The stream itself has status 200."""
    for line in answer.splitlines():
        message = json.loads(line) if line.strip() else {}
        if "error" in message:
            return str(message["error"])
    return None
