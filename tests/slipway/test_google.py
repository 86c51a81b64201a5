"""Clients and tokens for GKE clusters, through the provider's hooks and the stand's emulator of Google."""

import asyncio
import base64
import json
import ssl
import threading
import time
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from unittest import mock

import pytest
from aiohttp import ClientError
from google.auth.exceptions import RefreshError
from kubernetes.client import VersionApi
from kubernetes_asyncio.client import CoreV1Api

from local.gke.tokens import who
from slipway.errors import ClusterRefused, ClusterUnreachable, GoogleUnreachable, RegistryLoginRefused
from slipway.gke.lookup import find_cluster
from slipway.google import gke_client, google_access_token, google_refusal, read_refresh_error, with_request_limit
from slipway.image.registry_login import find_login
from slipway.kubernetes.client import api_server_version, async_cluster_client, cluster_client
from slipway.target import GkeCluster, Target

CLUSTER = GkeCluster(project="slipway-stand", location="us-central1-a", name="tfs-cluster")
DEPLOYER = "deployer@slipway-stand.iam.gserviceaccount.com"


@pytest.mark.parametrize(("given", "limit"), [({}, 30), ({"_request_timeout": None}, 30), ({"_request_timeout": 5}, 5)])
def test_every_request_has_a_time_limit(given, limit):
    """The provider's client has none of its own, so discovery could wait forever."""
    client = SimpleNamespace(call_api=lambda *_, **options: options["_request_timeout"])
    assert limit == with_request_limit(client).call_api("GET", "/version", **given)


@pytest.fixture
def running(google):
    """A cluster that is RUNNING; nothing listens at its endpoints."""
    from google.cloud.container_v1.types import Cluster

    google.put(CLUSTER.path, Cluster.from_json(json.dumps({"status": "RUNNING"})))
    return google


@pytest.fixture
def impersonating(emulator, google, monkeypatch):
    """Google, with a connection `google_cloud_default` that impersonates another account."""
    extra = {"key_path": str(emulator.identity.key_file), "impersonation_chain": DEPLOYER}
    said = {"conn_type": "google_cloud_platform", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", json.dumps(said))
    return google


def sent_by(client):
    """The token that a client sends with its next request."""
    return client.configuration.auth_settings()["BearerToken"]["value"].removeprefix("Bearer ")


@pytest.mark.parametrize("endpoint", ["public", "private", "dns"])
def test_an_expired_token_is_renewed(running, emulator, monkeypatch, endpoint):
    """A client that outlives its token sends a new one with its next request, for each kind of endpoint."""
    from google.auth import _helpers

    client = gke_client("google_cloud_default", replace(CLUSTER, endpoint=endpoint))
    first = sent_by(client)
    time.sleep(1)  # a token's time has a resolution of 1 s
    late = replace(emulator.issuer, expired_before=int(time.time()))
    assert who(first, [late]) is None
    assert sent_by(client) == first
    monkeypatch.setattr(
        _helpers, "REFRESH_THRESHOLD", timedelta(hours=1)
    )  # a token is renewed this long before its end
    assert who(sent_by(client), [late])
    assert client.configuration.host == "https://127.0.0.1:1"


@pytest.mark.parametrize("endpoint", ["public", "private", "dns"])
def test_each_poll_of_a_trigger_has_a_new_token(running, emulator, endpoint):
    """The provider's asynchronous client never renews its token, so each poll uses a new client."""
    target = Target(
        kind="gke", conn_id="google_cloud_default", namespace="shop", gke=replace(CLUSTER, endpoint=endpoint)
    )

    async def sent():
        async with async_cluster_client(target) as client:
            return client.default_headers["Authorization"].removeprefix("Bearer ")

    first = asyncio.run(sent())
    time.sleep(1)  # a token's time has a resolution of 1 s
    late = replace(emulator.issuer, expired_before=int(time.time()))
    assert who(first, [late]) is None
    assert who(asyncio.run(sent()), [late])


def test_every_request_of_a_trigger_has_a_time_limit(running):
    """The provider's asynchronous client has none of its own either."""
    target = Target(kind="gke", conn_id="google_cloud_default", namespace="shop", gke=CLUSTER)

    async def limit():
        with mock.patch("kubernetes_asyncio.client.ApiClient.call_api", new_callable=mock.AsyncMock) as call:
            async with async_cluster_client(target) as client:
                await CoreV1Api(client).list_namespaced_pod("shop")
        return call.call_args.kwargs["_request_timeout"]

    assert asyncio.run(limit()) == 30


def test_google_is_asked_once_for_the_endpoint(running):
    """Not for each Kubernetes client; again for another cluster, and for the same one after ENDPOINT_KEPT_S."""
    target = Target(kind="gke", conn_id="google_cloud_default", namespace="shop", gke=CLUSTER)

    async def poll():
        async with async_cluster_client(target) as client:
            return client.configuration.host

    for _ in range(3):
        gke_client("google_cloud_default", CLUSTER).close()
        asyncio.run(poll())
    assert running.calls["GetCluster"] == 1
    gke_client("google_cloud_default", replace(CLUSTER, endpoint="private")).close()
    assert running.calls["GetCluster"] == 2
    with mock.patch("slipway.google.ENDPOINT_KEPT_S", -1):
        gke_client("google_cloud_default", CLUSTER).close()
    assert running.calls["GetCluster"] == 3


def move(google, endpoint, ca=""):
    """Delete the cluster and create it again, with another endpoint."""
    from google.cloud.container_v1.types import Cluster

    created = Cluster.from_json(json.dumps({"status": "RUNNING"}))
    google.put(CLUSTER.path, created)
    created.endpoint, created.master_auth.cluster_ca_certificate = endpoint, ca


def test_google_is_asked_again_if_the_endpoint_does_not_respond(running, emulator, tls_server):
    """The next try finds a cluster that was created again, at its new endpoint and with its new authority."""
    target = Target(kind="gke", conn_id="google_cloud_default", namespace="shop", gke=CLUSTER)
    theirs = base64.b64encode((emulator.identity.folder / "ca.pem").read_bytes()).decode()

    def ask():
        with cluster_client(target) as client:
            return VersionApi(client).get_code(_request_timeout=5).git_version

    with pytest.raises(
        ClusterUnreachable, match=r"^cluster tfs-cluster .*127\.0\.0\.1:1 does not answer: .*Next: gcloud"
    ):
        ask()
    move(running, tls_server)  # with a certificate that the machine does not trust
    with pytest.raises(ClusterUnreachable, match=r"certificate verify failed"):
        ask()
    move(running, tls_server, ca=theirs)
    assert ask() == "v1.34.4"
    assert running.calls["GetCluster"] == 3


def test_a_trigger_asks_google_again_if_the_endpoint_does_not_respond(running):
    """A poll without an answer forgets the endpoint, and the next poll asks for it."""
    target = Target(kind="gke", conn_id="google_cloud_default", namespace="shop", gke=CLUSTER)
    for polls in (1, 2):
        with pytest.raises(ClientError):
            asyncio.run(api_server_version(target))
        assert running.calls["GetCluster"] == polls


@pytest.fixture
def tls_server(emulator):
    """Host and port of a server with the emulator's certificate that answers with its version."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            said = dict.fromkeys(
                ("major", "minor", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"), ""
            )
            data = json.dumps({**said, "gitVersion": "v1.34.4"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(emulator.identity.server_certificate, emulator.identity.server_key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"any.slipway.localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_impersonated_account_is_used_everywhere(impersonating, running, emulator):
    """Google, the registry and the cluster see the account that the connection impersonates."""
    tokens = [google_access_token("google_cloud_default"), sent_by(gke_client("google_cloud_default", CLUSTER))]
    assert [who(token, [emulator.issuer]).email for token in tokens] == [DEPLOYER, DEPLOYER]
    assert find_login("google_cloud_default", "europe-docker.pkg.dev/p/m/vit").user == "oauth2accesstoken"


DENIED = {
    "token": lambda: google_access_token("google_cloud_default"),
    "cluster": lambda: find_cluster("google_cloud_default", CLUSTER),
    "kubernetes": lambda: gke_client("google_cloud_default", CLUSTER),
}


@pytest.mark.parametrize("act", DENIED.values(), ids=DENIED)
def test_denied_impersonation_is_one_line(impersonating, act):
    """The error names the missing right and the role that has it, and is not retried."""
    impersonating.project.missing = ["iam.serviceAccounts.getAccessToken"]
    with pytest.raises(ClusterRefused) as refusal:
        act()
    said = str(refusal.value)
    assert "\n" not in said
    assert "Permission 'iam.serviceAccounts.getAccessToken' denied" in said
    assert said.endswith(
        "Next: give its account roles/iam.serviceAccountTokenCreator on the account that it impersonates"
    )


def test_denied_impersonation_is_a_refused_registry_login(impersonating):
    """The registry login is refused before anything is built."""
    impersonating.project.missing = ["iam.serviceAccounts.getAccessToken"]
    with pytest.raises(RegistryLoginRefused, match=r"^registry europe-docker\.pkg\.dev: .*serviceAccountTokenCreator"):
        find_login("google_cloud_default", "europe-docker.pkg.dev/p/m/vit")


def test_retryable_if_google_gives_no_token_now(impersonating):
    """An outage of IAM credentials is not a missing right."""
    impersonating.faults.unavailable = {"iamcredentials.projects.serviceAccounts.generateAccessToken": 20}
    with pytest.raises(GoogleUnreachable, match=r"gets no token: .*currently unavailable\. Next: look at status"):
        google_access_token("google_cloud_default")


ANSWERS = {
    "from an API": (("no", '{"error": {"code": 403, "message": "denied"}}'), (403, "no: denied")),
    "from the token server": (
        ("invalid_grant: Invalid JWT", {"error": "invalid_grant"}),
        (0, "invalid_grant: Invalid JWT"),
    ),
    "no JSON": (("no", "<html>"), (0, "no")),
    "empty": ((), (0, "no reason given")),
}


@pytest.mark.parametrize(("words", "found"), ANSWERS.values(), ids=ANSWERS)
def test_status_and_message_of_a_refused_token(words, found):
    """Google's client passes the answer on as it came; status and message are read from it if it has them."""
    assert read_refresh_error(RefreshError(*words)) == found


@pytest.mark.parametrize(("status", "kind"), [(0, ClusterRefused), (403, ClusterRefused), (404, ClusterRefused),
    (408, GoogleUnreachable), (429, GoogleUnreachable), (500, GoogleUnreachable), (503, GoogleUnreachable)])  # fmt: skip
def test_error_by_http_status(status, kind):
    """Only an outage can be retried."""
    error = google_refusal("disks of shop", status, "no\nreason.", then="give a role")
    then = "give a role" if kind is ClusterRefused else "look at status.cloud.google.com"
    assert (type(error), str(error)) == (kind, f"disks of shop: no reason. Next: {then}")


def test_an_endless_answer_to_a_token_request_can_be_retried(google, emulator, mean_server, monkeypatch, tmp_path):
    """A slow or endless answer of the token server or its proxy counts as no response."""
    key = json.loads(emulator.identity.key_file.read_text())
    (tmp_path / "key.json").write_text(
        json.dumps({**key, "token_uri": mean_server.url, "universe_domain": "googleapis.com"})
    )
    extra = {"key_path": str(tmp_path / "key.json")}
    monkeypatch.setenv("AIRFLOW_CONN_DRIPS", json.dumps({"conn_type": "google_cloud_platform", "extra": extra}))
    monkeypatch.setattr("slipway.google.TOKEN_S", 0.5)
    with pytest.raises(GoogleUnreachable, match="connection drips"):
        google_access_token("drips")
    assert mean_server.sent < 64 * 1024 * 1024


def test_an_answer_of_gke_has_a_limited_size(google):
    """The client stops at 16 MiB, and the line says that it is probably not Google that answers."""
    from google.cloud.container_v1.types import Cluster

    google.put(CLUSTER.path, Cluster(status=Cluster.Status.RUNNING, description="x" * (17 * 1024 * 1024)))
    with pytest.raises(ClusterRefused, match=r"larger than max .*Next: check which server connection google_cloud"):
        find_cluster("google_cloud_default", CLUSTER)
