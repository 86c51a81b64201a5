import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import docker
import pytest

from slipway.engine import engine_at, refused_by_registry, remove_container
from slipway.errors import EngineUnreachable, RegistryLoginRefused, RegistryUnreachable
from slipway.login import GOOGLE_USER, Login

# As Docker Engine 20.10 and 28 word them.
LOGIN = [
    "no basic auth credentials",
    'Head "http://127.0.0.1:5000/v2/shop/vit/manifests/latest": no basic auth credentials',
    "login attempt to http://127.0.0.1:5000/v2/ failed with status: 401 Unauthorized",
    "unauthorized: authentication required",
    "denied: Unauthenticated request. Unauthenticated requests do not have permission",
]
TROUBLE = [
    'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
    'Get "https://registry.invalid/v2/": dial tcp: lookup registry.invalid on 10.0.0.1:53: no such host',
    "received unexpected HTTP status: 503 Service Unavailable",
    "login attempt to http://127.0.0.1:5000/v2/ failed with status: 503 Service Unavailable",
    'Get "https://r.example/v2/": net/http: request canceled while waiting for connection (Client.Timeout exceeded)',
    'Put "https://r.example/v2/": EOF',
]
OTHER = [
    "denied: Permission artifactregistry.repositories.uploadArtifacts denied on resource",
    'Get "https://r.example/v2/": x509: certificate signed by unknown authority',
    'Get "https://r.example/v2/": http: server gave HTTP response to HTTPS client',
    "manifest unknown: manifest unknown",
    "no space left on device",
]


MINE = Login(conn_id="mine", hosts=("r",), user="shop", password="secret")
TOKEN = Login(conn_id="google", hosts=("r",), user=GOOGLE_USER, password="secret")


def refusal(words, login=None):
    """What the engine's words are taken for."""
    return refused_by_registry("push r/x:1", SimpleNamespace(explanation=f"{words}\n"), login)


@pytest.mark.parametrize("words", LOGIN)
@pytest.mark.parametrize(
    ("login", "then"), [(None, "image.registry_conn_id"), (MINE, "connection mine"), (TOKEN, "artifactregistry.writer")]
)
def test_login_refused_if_the_registry_wants_one(words, login, then):
    """One line names the connection that was not accepted, or the field that names one, and never the password."""
    found = refusal(words, login)
    assert "secret" not in f"{found}{login}"
    assert type(found) is RegistryLoginRefused
    assert str(found).startswith("push r/x:1: ")
    assert words in str(found)
    assert then in str(found)
    assert "\n" not in str(found)


@pytest.mark.parametrize("words", TROUBLE)
def test_unreachable_if_the_registry_is_in_trouble(words):
    """No answer and 5xx are worth another try, whether or not the login was what was tried."""
    assert {type(refusal(words, login)) for login in (None, MINE)} == {RegistryUnreachable}


@pytest.mark.parametrize("words", OTHER)
def test_nothing_of_both_if_the_words_say_something_else(words):
    """What is neither about the login nor about the registry's health is left to who asked."""
    assert refusal(words, MINE) is None


@pytest.mark.stand
@pytest.mark.alongside
def test_a_container_that_is_being_removed_is_waited_for(stand):
    """Many who remove one container at once all come back when it is gone; the engine itself refuses all but one."""
    name = f"slipway-removed-by-many-{stand['namespace']}"

    def remove(_):
        client = docker.APIClient(base_url=stand["docker_host"], timeout=60)
        remove_container(client, name)
        return client.containers(all=True, filters={"name": name})

    client = docker.APIClient(base_url=stand["docker_host"], timeout=60)
    for _ in range(4):
        made = client.create_container(stand["serving_image"], name=name, command=["60"], entrypoint=["sleep"])
        client.start(made)
        with ThreadPoolExecutor(3) as many:
            assert list(many.map(remove, range(3))) == [[], [], []]


class _Going(BaseHTTPRequestHandler):
    """An engine that says which version it is, and hangs up on everything else, as one that is being restarted does."""

    def do_GET(self):
        if self.path.endswith(("/version", "/_ping")):
            body = b'{"ApiVersion": "1.44", "MinAPIVersion": "1.24"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing."""


def test_an_engine_that_goes_away_in_the_middle_is_tried_again(monkeypatch):
    """A connection that the engine drops while a task speaks to it is one line, and worth another try."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Going)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"tcp://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AIRFLOW_CONN_ENGINE", json.dumps({"conn_type": "docker", "host": host}))
    with (
        pytest.raises(EngineUnreachable, match=rf"engine at {host} .*Next: ") as refused,
        engine_at("engine") as client,
    ):
        client.images()
    server.shutdown()
    server.server_close()
    assert refused.value.worth_retrying
