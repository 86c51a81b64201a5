"""A Hugging Face Hub on loopback: the endpoints that the real client uses, with the errors of the real Hub."""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

REPO = "someone/digits"
REVISION = "1f3c" * 10


@dataclass
class Repo:
    """A model on the Hub: a folder for each commit, and the branches and tags of the commits."""

    commits: dict[str, Path] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)  # tokens that may read a private or gated model

    def commit(self, revision):
        """The commit that a branch, tag or commit names, or None."""
        commit = self.names.get(revision, revision)
        return commit if commit in self.commits else None


class _Handler(BaseHTTPRequestHandler):
    """Answers requests for the server's models."""

    protocol_version = "HTTP/1.0"  # one response per connection, so that clients notice when the Hub closes

    def do_GET(self):
        """Answer with the model's facts, its listing, or a file."""
        self._answer()

    def do_HEAD(self):
        """Answer with a file's headers."""
        self._answer()

    def log_message(self, *args):
        """Say nothing."""

    def _answer(self):
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        if self.server.failing:
            return self._send(self.server.failing, b"out of order")
        facts = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/([\w.-]+)", path)
        found = facts or file
        repo = self.server.repos.get(found[1]) if found else None
        if refusal := self._refusal(repo, file=bool(file)):
            return self._send(*refusal)
        commit = repo.commit(unquote(found[3] if facts else found[2]))
        if commit is None:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        files = {each.name: each for each in repo.commits[commit].iterdir() if each.is_file()}
        if file:
            return self._send_file(files.get(file[3]), commit)
        if facts[2] == "tree":
            listing = [
                {"type": "file", "path": name, "size": each.stat().st_size, "oid": "0" * 40}
                for name, each in files.items()
            ]
            return self._send(200, json.dumps(listing).encode())
        siblings = [{"rfilename": name} for name in files]
        return self._send(200, json.dumps({"id": facts[1], "sha": commit, "siblings": siblings}).encode())

    def _refusal(self, repo, *, file):
        """The Hub hides private models. Of gated models it hides only the files."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.server.tokens:
            words = "Invalid credentials in Authorization header"
            return 401, json.dumps({"error": words}).encode(), {"X-Error-Message": words}
        if repo is None or (repo.private and token not in repo.readers):
            words = "Invalid username or password."
            hidden = 401, json.dumps({"error": words}).encode(), {"X-Error-Message": words}
            return (404, b"{}", {"X-Error-Code": "RepoNotFound"}) if token else hidden
        if file and repo.gated and token not in repo.readers:
            return 403 if token else 401, b"{}", {"X-Error-Code": "GatedRepo"}
        return None

    def _send_file(self, file, commit):
        if file is None:
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        content = file.read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        return self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})

    def _send(self, status, body, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Hub(ThreadingHTTPServer):
    """The Hub, served by a thread until it is closed. `asked` lists the requests; `failing` is a status for all responses."""

    daemon_threads = True

    def __init__(self, port=0):
        """Serve at a port on loopback, by default any free one."""
        self.repos, self.tokens, self.asked, self.failing = {}, set(), [], None
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def add(self, folder, *, repo=REPO, commit=REVISION, names=("main",), **access):
        """Add a commit of a model, and point branches and tags at it."""
        known = self.repos.setdefault(repo, Repo(**access))
        known.commits[commit] = folder
        known.names.update(dict.fromkeys(names, commit))
        self.tokens |= known.readers
        return known

    def close(self):
        """Stop serving."""
        self.shutdown()
        self.server_close()
