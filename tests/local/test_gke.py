import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import replace

import jwt
import pytest

from local.gke import control, identity, part, tokens
from local.gke.clusters import Google, Kubernetes
from local.settings import read_settings


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """An emulated service account."""
    return identity.make_identity(tmp_path_factory.mktemp("gke"), "slipway.localhost:1", "")


@pytest.fixture
def issuer(ours):
    """The account as an issuer of tokens."""
    return tokens.issuer_of(ours, "gke:shop")


@pytest.fixture
def token(ours):
    """Makes a token of the account as Google's client does: signed with its key."""
    key = json.loads(ours.key_file.read_text())["private_key"]

    def make(**changes):
        claims = {
            "iss": ours.email,
            "sub": ours.email,
            "iat": int(time.time()),
            "exp": int(time.time()) + 3600,
            **changes,
        }
        return jwt.encode(claims, key, algorithm="RS256")

    return make


def test_token_is_its_issuers(issuer, token):
    """A signed token that has not expired is the account's, who is of no group in the cluster."""
    answer = tokens.review({"apiVersion": "authentication.k8s.io/v1beta1", "spec": {"token": token()}}, [issuer])
    assert answer["status"] == {
        "authenticated": True,
        "user": {"username": issuer.email, "uid": issuer.email, "groups": []},
    }
    assert answer["apiVersion"] == "authentication.k8s.io/v1beta1"


def test_token_that_google_made_is_of_whom_it_names(ours, issuer):
    """An account that is impersonated is itself, and of the group that may do something in the cluster."""
    made = tokens.mint(ours.server()[0].decode(), "deployer@p.iam", int(time.time()) + 60)
    user = tokens.review({"spec": {"token": made}}, [issuer])["status"]["user"]
    assert user == {"username": "deployer@p.iam", "uid": "deployer@p.iam", "groups": ["gke:shop"]}
    assert tokens.who(tokens.mint(ours.server()[0].decode(), "deployer@p.iam", int(time.time()) - 1), [issuer]) is None


def test_no_other_token_counts(issuer, token):
    """Expired, somebody else's, without an end, refused on purpose, or no token at all."""
    for wrong in (token(exp=int(time.time()) - 1), token(iss="other"), token(exp=None), "", "x.y.z"):
        assert tokens.who(wrong, [issuer]) is None
    assert tokens.who(token(), [replace(issuer, refuse=True)]) is None
    assert tokens.who(token(), [replace(issuer, expired_before=int(time.time()) + 1)]) is None


def test_bundle_holds_the_machines_authorities_and_ours(tmp_path, monkeypatch):
    """What the machine trusts stays trusted: the bundle that its environment names is in ours."""
    machine = identity.make_identity(tmp_path / "machine", "example.localhost:1", "").folder / "ca.pem"
    for name in identity.BUNDLES:
        monkeypatch.setenv(name, str(machine))
    ours = identity.make_identity(tmp_path / "ours", "slipway.localhost:1", "")
    bundle = ours.bundle.read_text()
    assert bundle.count(machine.read_text()) == 1
    assert (ours.folder / "ca.pem").read_text() in bundle
    ssl.create_default_context(cafile=str(ours.bundle))


def test_keys_are_made_once_and_kept_to_their_owner(tmp_path):
    """A second start has the same keys, which nobody else may read."""
    first = identity.make_identity(tmp_path, "slipway.localhost:1", "")
    kept = (first.key_file.read_text(), first.server())
    assert kept == (first.key_file.read_text(), identity.make_identity(tmp_path, "slipway.localhost:1", "").server())
    assert {path.stat().st_mode & 0o77 for path in (first.key_file, tmp_path / "server.key")} == {0}


def ask(url, method, body=None):
    """The JSON that an HTTP API answers."""
    request = urllib.request.Request(url, json.dumps(body).encode() if body is not None else None, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def free_port():
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def test_api_servers_question_is_answered(tmp_path, issuer, token):
    """The API server asks with its time limit behind the path; the issuers of every checkout count."""
    tokens.register(tmp_path, "one", issuer)
    port = free_port()
    server = control.serve_http(control.webhook(tmp_path), port)
    try:
        asked = {"apiVersion": "authentication.k8s.io/v1", "spec": {"token": token()}}
        assert ask(f"http://127.0.0.1:{port}/token?timeout=30s", "POST", asked)["status"]["authenticated"]
    finally:
        server.shutdown()
        server.server_close()


def test_next_emulator_takes_the_webhook_over(tmp_path, issuer, token):
    """One emulator of the machine answers the API server for all checkouts; when it ends, another does."""
    tokens.register(tmp_path, "one", issuer)
    port = free_port()
    first = control.serve_http(control.webhook(tmp_path / "empty"), port)
    control.serve_when_free(control.webhook(tmp_path), port)
    first.shutdown()
    first.server_close()
    end_s = time.monotonic() + 10
    while time.monotonic() < end_s:
        try:
            said = ask(f"http://127.0.0.1:{port}/token", "POST", {"spec": {"token": token()}})
            break
        except OSError:
            time.sleep(0.05)
    assert said["status"]["authenticated"]


def test_it_is_told_to_misbehave():
    """Faults replace those before; a cluster can be put and taken away; a misspelt fault is refused."""
    told = []
    google = Google(Kubernetes(endpoint="127.0.0.1:1", ca=""), time.time)
    port = free_port()
    server = control.serve_http(control.control(google, told.append), port)
    url, name = f"http://127.0.0.1:{port}", "projects/p/locations/l/clusters/c"
    try:
        assert ask(f"{url}/faults", "PUT", {"stockout": True})["faults"]["stockout"]
        assert told[-1].stockout
        assert ask(f"{url}/clusters/{name}", "PUT", {"status": "ERROR"})["clusters"][name]["status"] == "ERROR"
        assert ask(f"{url}/clusters/{name}", "DELETE")["clusters"] == {}
        assert not ask(f"{url}/reset", "POST")["faults"]["stockout"]
        with pytest.raises(urllib.error.HTTPError, match="400"):
            ask(f"{url}/faults", "PUT", {"stokout": True})
    finally:
        server.shutdown()
        server.server_close()


def test_operations_end_when_told():
    """However long an operation was to take, a test ends it when it has seen enough."""
    google = Google(Kubernetes(endpoint="127.0.0.1:1", ca=""), time.time)
    answer = control.control(google, lambda _: None)
    answer("PUT", "/faults", {"operation_s": 3600})
    cluster = answer("PUT", "/clusters/projects/p/locations/l/clusters/c", {"status": "PROVISIONING"})["clusters"]
    assert [one["status"] for one in cluster.values()] == ["PROVISIONING"]
    ended = answer("POST", "/operations/end", None)
    assert [one["status"] for one in ended["clusters"].values()] == ["RUNNING"]
    assert [one["status"] for one in ended["operations"]] == ["DONE"]


def test_a_real_project_in_place_of_the_emulator(tmp_path):
    """Where the environment names a project, `up --gke` emulates nothing and connects the stand's Airflow to it."""
    named = {
        "SLIPWAY_GCP_PROJECT": "shop",
        "SLIPWAY_GCP_KEY": "/etc/key.json",
        "SLIPWAY_GCP_IMPERSONATE": "deployer@shop",
    }
    settings = replace(read_settings(named, tmp_path), state=tmp_path)
    part.folder(settings).mkdir(parents=True)
    assert (part.asked(settings), part.emulated(settings)) == (True, False)
    told = settings.google.environment({"AIRFLOW_VAR_SLIPWAY_REGISTRY": "here"})
    extra = {"project": "shop", "key_path": "/etc/key.json", "impersonation_chain": "deployer@shop"}
    assert json.loads(told["AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT"])["extra"] == extra
    assert told["AIRFLOW_VAR_SLIPWAY_REGISTRY"] == "here"
