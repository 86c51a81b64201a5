"""The HTTP APIs on loopback: the control API, with which a test simulates faults, and the API server's token webhook.

GET  /state              clusters, operations, faults, the project, and the number of calls of each method
PUT  /faults             set these faults and no others: clusters.Faults
PUT  /project            set the account's permissions and the enabled APIs: state.Project
PUT  /compute            set quotas: state.Compute
PUT  /residue            set load balancers, addresses and disks, which outlive clusters: state.Residue
PUT  /artifacts          set repositories: state.Artifacts
PUT  /clusters/NAME      add a cluster in this state, in the JSON of google.container.v1.Cluster
DELETE /clusters/NAME    delete a cluster at once, even while it is in use
POST /operations/end     end every operation now
POST /reset              delete clusters, faults and counts, and give the project its default state
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from google.cloud.container_v1.types import Cluster, Operation

from local.gke.clusters import Faults, Google
from local.gke.tokens import registered, review

Answer = Callable[[str, str, Any], Any]  # method, path, body → JSON
TAKEOVER_S = 0.5


def control(google: Google, faults_changed: Callable[[Faults], None]) -> Answer:
    """The handler of the control API."""

    def answer(method: str, path: str, body: Any) -> Any:
        with google.lock:
            if (method, path) == ("PUT", "/faults"):
                google.faults = Faults(**(body or {}))
                faults_changed(google.faults)
            elif method == "PUT" and path in {"/project", "/compute", "/residue", "/artifacts"}:
                name = path.removeprefix("/")
                setattr(google, name, type(getattr(google, name))(**(body or {})))
            elif (method, path) == ("POST", "/reset"):
                google.reset()
                faults_changed(google.faults)
            elif (method, path) == ("POST", "/operations/end"):
                google.end_operations()
            elif method == "PUT" and path.startswith("/clusters/"):
                google.put(path.removeprefix("/clusters/"), Cluster.from_json(json.dumps(body or {})))
            elif method == "DELETE" and path.startswith("/clusters/"):
                google.clusters.pop(path.removeprefix("/clusters/"), None)
            elif (method, path) != ("GET", "/state"):
                raise LookupError(path)
            return state(google)

    return answer


def state(google: Google) -> dict[str, Any]:
    """The current state as JSON."""
    google.advance()
    return {
        "clusters": {name: Cluster.to_dict(one, use_integers_for_enums=False) for name, one in google.clusters.items()},
        "operations": [Operation.to_dict(one, use_integers_for_enums=False) for one in google.operations.values()],
        "faults": {name: getattr(google.faults, name) for name in Faults.__slots__},
        "project": asdict(google.project),
        "compute": asdict(google.compute),
        "residue": asdict(google.residue),
        "artifacts": asdict(google.artifacts),
        "calls": dict(google.calls),
    }


def webhook(issuers: Path) -> Answer:
    """The handler of the API server's token webhook, for the issuers of every checkout."""

    def answer(_method: str, path: str, body: Any) -> Any:
        if path.partition("?")[0] != "/token":  # the API server appends its timeout as a query
            raise LookupError(path)
        return review(body or {}, registered(issuers))

    return answer


def serve_http(answer: Answer, port: int) -> ThreadingHTTPServer:
    """Serve JSON on loopback, in a thread. Raises OSError if the port is in use."""

    class Handler(BaseHTTPRequestHandler):
        """Reads and writes JSON."""

        def handle_any(self) -> None:
            """Answer one request."""
            length = int(self.headers.get("Content-Length") or 0)
            try:
                found, status = answer(self.command, self.path, json.loads(self.rfile.read(length) or b"null")), 200
            except LookupError as unknown:
                found, status = {"error": f"no such path: {unknown}"}, 404
            except (TypeError, ValueError) as wrong:
                found, status = {"error": str(wrong)}, 400
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815 - http.server's own names

        def log_message(self, *_words: Any) -> None:
            """Requests are counted, not logged."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def serve_when_free(answer: Answer, port: int) -> None:
    """Serve on a port as soon as it is free: one emulator of the machine has it at a time, and the next takes it over."""

    def wait() -> None:
        while True:
            try:
                serve_http(answer, port)
            except OSError:
                time.sleep(TAKEOVER_S)
            else:
                return

    threading.Thread(target=wait, daemon=True).start()
