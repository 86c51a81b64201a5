"""A Hugging Face Hub on loopback, with one model at one commit: the endpoints that the real client asks."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REPO = "someone/digits"
REVISION = "1f3c" * 10


class _Handler(BaseHTTPRequestHandler):
    """Answers for the files of the server's folder."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """Answer with the model's facts, its listing, or a file."""
        self._answer()

    def do_HEAD(self):
        """Answer with a file's headers."""
        self._answer()

    def log_message(self, *args):
        """Say nothing."""

    def _answer(self):
        self.server.asked.append(f"{self.command} {self.path.partition('?')[0]}")
        files = {path.name: path for path in self.server.folder.iterdir()}
        if found := re.fullmatch(rf"/api/models/{REPO}/(revision|tree)/(\w+).*", self.path):
            if found[2] != REVISION:
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            if found[1] == "tree":
                listing = [
                    {"type": "file", "path": name, "size": path.stat().st_size, "oid": "0" * 40}
                    for name, path in files.items()
                ]
                return self._send(200, json.dumps(listing).encode())
            siblings = [{"rfilename": name} for name in files]
            return self._send(200, json.dumps({"id": REPO, "sha": REVISION, "siblings": siblings}).encode())
        found = re.fullmatch(rf"/{REPO}/resolve/{REVISION}/([\w.-]+)", self.path)
        if found and found[1] in files:
            content = files[found[1]].read_bytes()
            etag = hashlib.sha256(content).hexdigest()
            return self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": REVISION})
        return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound" if found else "RepoNotFound"})

    def _send(self, status, body, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Hub(ThreadingHTTPServer):
    """The Hub, answering in a thread while it is open; `asked` lists the requests."""

    daemon_threads = True

    def __init__(self, folder):
        """Serve the files of that folder."""
        self.folder, self.asked = folder, []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()
