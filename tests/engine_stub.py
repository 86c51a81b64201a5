"""A Docker Engine with the requests that `resolve` sends: it logs in anywhere, and knows one digest for every image."""

import base64
import json
from http.server import BaseHTTPRequestHandler

from small_server import start_server, stop_server

DIGEST = f"sha256:{'b' * 64}"


class EngineStub:
    """`logins` has what was sent to `/auth`, `sent` the login that came with each other request: None or a dict."""

    def __init__(self):
        self.logins, self.sent = [], []
        self.server = start_server(self._handler())

    @property
    def host(self):
        """The address, as a Docker connection names it."""
        return f"tcp://127.0.0.1:{self.server.server_port}"

    def stop(self):
        """End the server."""
        stop_server(self.server)

    def _handler(self):
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if "/distribution/" in self.path:
                    login = self.headers.get("X-Registry-Auth")
                    stub.sent.append(
                        (self.path.split("/distribution/")[1], login and json.loads(base64.urlsafe_b64decode(login)))
                    )
                if self.path.endswith("/_ping"):
                    return self.answer("OK")
                return self.answer(
                    {"ApiVersion": "1.44", "MinAPIVersion": "1.24", "Descriptor": {"digest": DIGEST}, "Config": {}}
                )

            do_HEAD = do_GET  # noqa: N815 - the names are http.server's

            def do_POST(self):
                stub.logins.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.answer({"Status": "Login Succeeded"})

            def answer(self, found):
                body = (found if isinstance(found, str) else json.dumps(found)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_):
                """Logs nothing."""

        return Handler
