"""The HTTP APIs of the emulator: the control API of tests, and the token webhook of the API server."""

import json
import time
import urllib.error
import urllib.request

import pytest

from local.gke import control, tokens
from local.gke.clusters import Google, Kubernetes
from tests.local.ports import free_ports


def ask(url, method, body=None):
    """The JSON of an HTTP API's response."""
    request = urllib.request.Request(url, json.dumps(body).encode() if body is not None else None, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test_webhook_answers_the_api_server(tmp_path, issuer, token):
    """The API server appends its timeout to the path. Tokens of every checkout's issuers are accepted."""
    tokens.register(tmp_path, "one", issuer)
    port = free_ports(1)[0]
    server = control.serve_http(control.webhook(tmp_path), port)
    try:
        review = {"apiVersion": "authentication.k8s.io/v1", "spec": {"token": token()}}
        assert ask(f"http://127.0.0.1:{port}/token?timeout=30s", "POST", review)["status"]["authenticated"]
    finally:
        server.shutdown()
        server.server_close()


def test_next_emulator_takes_over_the_webhook(tmp_path, issuer, token):
    """One emulator of the machine answers the API server for all checkouts. When it ends, another one does."""
    tokens.register(tmp_path, "one", issuer)
    port = free_ports(1)[0]
    first = control.serve_http(control.webhook(tmp_path / "empty"), port)
    control.serve_when_free(control.webhook(tmp_path), port)
    first.shutdown()
    first.server_close()
    end_s = time.monotonic() + 10
    while time.monotonic() < end_s:
        try:
            answer = ask(f"http://127.0.0.1:{port}/token", "POST", {"spec": {"token": token()}})
            break
        except OSError:
            time.sleep(0.05)
    assert answer["status"]["authenticated"]


def test_control_api_sets_faults_and_clusters():
    """New faults replace the old ones; a cluster can be added and deleted; a misspelt fault is refused."""
    changes = []
    google = Google(Kubernetes(endpoint="127.0.0.1:1", ca=""), time.time)
    port = free_ports(1)[0]
    server = control.serve_http(control.control(google, changes.append), port)
    url, name = f"http://127.0.0.1:{port}", "projects/p/locations/l/clusters/c"
    try:
        assert ask(f"{url}/faults", "PUT", {"stockout": True})["faults"]["stockout"]
        assert changes[-1].stockout
        assert ask(f"{url}/clusters/{name}", "PUT", {"status": "ERROR"})["clusters"][name]["status"] == "ERROR"
        assert ask(f"{url}/clusters/{name}", "DELETE")["clusters"] == {}
        assert not ask(f"{url}/reset", "POST")["faults"]["stockout"]
        with pytest.raises(urllib.error.HTTPError, match="400"):
            ask(f"{url}/faults", "PUT", {"stokout": True})
    finally:
        server.shutdown()
        server.server_close()
