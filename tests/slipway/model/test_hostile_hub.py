"""Hostile answers of the Hub: a commit, or one line that says what is wrong."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from hostile import accept_or_refuse, json_values, mutated, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.model.hub import COMMIT, hub_commit

FACTS = {"id": "someone/digits", "sha": "0" * 40, "siblings": [{"rfilename": "config.json"}]}
words = texts.map(
    lambda text: text.encode(errors="replace").decode("latin-1").replace("\r", " ").replace("\n", " ")[:2000]
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "X-Error-Code": st.sampled_from(["RepoNotFound", "RevisionNotFound", "GatedRepo", "EntryNotFound"]) | words,
        "X-Error-Message": words,
        "X-Request-Id": words,
        "Location": st.sampled_from(["http://[", "/api/models/x", "http://127.0.0.1:9/", "\x1b"]),
    },
)  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        """Answer as the server says."""
        status, body, fields = self.server.answer
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the names are http.server's

    def log_message(self, *_):
        """Log nothing."""


@pytest.fixture
def hostile_hub():
    """A server at HF_ENDPOINT that answers everything with its `answer`."""
    server = ThreadingHTTPServer(("127.0.0.1", urlsplit(os.environ["HF_ENDPOINT"]).port), _Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@settings(max_examples=60)
@given(
    st.sampled_from([200, 200, 200, 302, 400, 401, 403, 404, 429, 500]),
    st.one_of(mutated(FACTS).map(json.dumps), json_values.map(json.dumps), texts).map(lambda text: text.encode(errors="replace")),
    headers,
)  # fmt: skip
def test_any_answer(hostile_hub, status, body, fields):
    """Whatever the Hub answers, a revision is a commit, or one line says what is wrong."""
    hostile_hub.answer = status, body, fields
    commit = accept_or_refuse(hub_commit, "someone/digits", "main")
    assert commit is None or COMMIT.fullmatch(commit)


@settings(max_examples=60)
@given(texts, texts)
def test_any_name(hostile_hub, repo, revision):
    """Whatever a model file names as the model and its revision."""
    hostile_hub.answer = 200, json.dumps(FACTS).encode(), {}
    accept_or_refuse(hub_commit, repo, revision)
