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
from slipway.errors import ClusterRefused, ClusterUnreachable, GoogleUnreachable, InputRefused, RegistryLoginRefused
from slipway.gke.lookup import find_cluster
from slipway.google import access_token, kubernetes_client, limited, read_refresh_error
from slipway.image.registry_login import find_login
from slipway.kubernetes.client import async_cluster_client, cluster_client, server_version
from slipway.model.served import check_unshared, parse_model_file
from slipway.steps.settings import Settings, find_target
from slipway.target import GkeCluster, NodePool, Target

GATE = {"golden": [{"name": "three", "image": "three.png", "label": "3"}]}
SETTINGS = Settings(store="file:///store", registry="r", serving_image=None)
OTHER = GkeCluster(project="shop", location="europe-west4", name="big")


def file_with(target):
    """A model file with this target."""
    return parse_model_file({"source": {"folder": "x"}, "target": target, "gate": GATE}, where="x.yaml")


def test_target_gke_alone_is_the_seeds_cluster():
    """`target: gke` means tfs-cluster in us-central1-a with two n1-standard-8."""
    gke = file_with("gke").target.gke
    assert (gke.cluster, gke.location, gke.conn_id) == ("tfs-cluster", "us-central1-a", "google_cloud_default")
    assert gke.spec.node_pools == (NodePool(name="default-pool", machine_type="n1-standard-8", count=2),)


def test_autopilot_has_no_pools():
    """An Autopilot cluster's nodes are Google's."""
    assert file_with({"gke": {"autopilot": True}}).target.gke.spec.node_pools == ()


REFUSED = {
    "two clusters": ({"conn_id": "mine", "gke": {}}, "conn_id and gke name two clusters"),
    "pools of Autopilot": ({"gke": {"autopilot": True, "node_pools": [{}]}}, "autopilot has no node_pools"),
    "one limit": ({"gke": {"node_pools": [{"max_count": 3}]}}, "min_count and max_count go together"),
    "count out of limits": (
        {"gke": {"node_pools": [{"count": 5, "min_count": 1, "max_count": 3}]}},
        "count 5 is not between",
    ),
    "no place": ({"gke": {"location": "somewhere"}}, "target.gke.location"),
    "no pools": ({"gke": {"node_pools": []}}, "target.gke.node_pools"),
    "misspelt": ({"gke": {"zone": "us-central1-a"}}, "target.gke.zone"),
}


@pytest.mark.parametrize(("target", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line_if_it_cannot_be_meant(target, words):
    """A cluster that cannot be meant is refused, naming the field, before anything is asked of Google."""
    with pytest.raises(InputRefused, match=words) as refusal:
        file_with(target)
    assert "\n" not in str(refusal.value)


def test_two_files_may_share_a_cluster_but_no_deployment():
    """Whether two files write one object is told by Google's cluster as well."""
    one, same, elsewhere = (file_with({"gke": {"cluster": name}}) for name in ("a-cluster", "a-cluster", "other"))
    check_unshared({"one": one, "elsewhere": elsewhere})
    with pytest.raises(InputRefused, match="is also written by"):
        check_unshared({"one": one, "same": same})


NAMESPACES = {
    "the file's": ({"namespace": "shop"}, "attic", "shop"),
    "the Variable's": ({}, "attic", "attic"),
    "none": ({}, None, "default"),
}


@pytest.mark.parametrize(("fields", "variable", "namespace"), NAMESPACES.values(), ids=NAMESPACES)
def test_namespace_is_the_files_the_variables_or_default(fields, variable, namespace):
    """A Google connection names no namespace: model file, Variable, `default`, in this order."""
    asked = {"gke": {"project": "shop", "location": "europe-west4", "cluster": "big"}, **fields}
    settings = Settings(store="file:///store", registry="r", serving_image=None, namespace=variable)
    target = find_target(file_with(asked).target, settings)
    assert target == Target(kind="gke", conn_id="google_cloud_default", namespace=namespace, gke=OTHER)


def test_refused_if_the_connection_is_missing():
    """Without a project in the file the connection has to name one, and one that is missing is named."""
    with pytest.raises(InputRefused, match=r"^connection nobody: there is none\. Next: create it"):
        find_target(file_with({"gke": {"conn_id": "nobody"}}).target, SETTINGS)


@pytest.mark.parametrize(("given", "limit"), [({}, 30), ({"_request_timeout": None}, 30), ({"_request_timeout": 5}, 5)])
def test_every_request_has_a_limit(given, limit):
    """The provider's client has none of its own: discovery would wait for ever."""
    client = SimpleNamespace(call_api=lambda *_, **options: options["_request_timeout"])
    assert limit == limited(client).call_api("GET", "/version", **given)


CLUSTER = GkeCluster(project="slipway-stand", location="us-central1-a", name="tfs-cluster")
DEPLOYER = "deployer@slipway-stand.iam.gserviceaccount.com"


@pytest.fixture
def running(google):
    """A cluster that is RUNNING, each of its endpoints at a port where nobody listens."""
    from google.cloud.container_v1.types import Cluster

    google.put(CLUSTER.path, Cluster.from_json(json.dumps({"status": "RUNNING"})))
    return google


@pytest.fixture
def impersonating(emulator, google, monkeypatch):
    """The connection `google_cloud_default` impersonates."""
    extra = {"key_path": str(emulator.identity.key_file), "impersonation_chain": DEPLOYER}
    said = {"conn_type": "google_cloud_platform", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", json.dumps(said))
    return google


def sent_by(client):
    """The account's token that a client would send with its next request."""
    return client.configuration.auth_settings()["BearerToken"]["value"].removeprefix("Bearer ")


@pytest.mark.parametrize("endpoint", ["public", "private", "dns"])
def test_token_is_made_anew_if_it_has_expired(running, emulator, monkeypatch, endpoint):
    """A client that outlives its token sends another with its next request, by whichever endpoint it goes."""
    from google.auth import _helpers

    client = kubernetes_client("google_cloud_default", replace(CLUSTER, endpoint=endpoint))
    first = sent_by(client)
    time.sleep(1)  # tokens know seconds
    late = replace(emulator.issuer, expired_before=int(time.time()))
    assert who(first, [late]) is None
    assert sent_by(client) == first
    monkeypatch.setattr(_helpers, "REFRESH_THRESHOLD", timedelta(hours=1))  # how long before its end a token is too old
    assert who(sent_by(client), [late])
    assert client.configuration.host == "https://127.0.0.1:1"


@pytest.mark.parametrize("endpoint", ["public", "private", "dns"])
def test_each_look_of_a_wait_has_a_token_of_its_own(running, emulator, endpoint):
    """The provider's asynchronous client keeps one token for good: it lives for one look, and the next has another."""
    target = Target(
        kind="gke", conn_id="google_cloud_default", namespace="shop", gke=replace(CLUSTER, endpoint=endpoint)
    )

    async def sent():
        async with async_cluster_client(target) as client:
            return client.default_headers["Authorization"].removeprefix("Bearer ")

    first = asyncio.run(sent())
    time.sleep(1)  # tokens know seconds
    late = replace(emulator.issuer, expired_before=int(time.time()))
    assert who(first, [late]) is None
    assert who(asyncio.run(sent()), [late])


def test_every_request_of_a_wait_has_a_limit(running):
    """The provider's asynchronous client has none of its own either."""
    target = Target(kind="gke", conn_id="google_cloud_default", namespace="shop", gke=CLUSTER)

    async def limit():
        with mock.patch("kubernetes_asyncio.client.ApiClient.call_api", new_callable=mock.AsyncMock) as call:
            async with async_cluster_client(target) as client:
                await CoreV1Api(client).list_namespaced_pod("shop")
        return call.call_args.kwargs["_request_timeout"]

    assert asyncio.run(limit()) == 30


def test_google_is_asked_once_where_the_cluster_is(running):
    """Not for each Kubernetes client; another cluster, and the same one after a while, is asked for."""
    target = Target(kind="gke", conn_id="google_cloud_default", namespace="shop", gke=CLUSTER)

    async def look():
        async with async_cluster_client(target) as client:
            return client.configuration.host

    for _ in range(3):
        kubernetes_client("google_cloud_default", CLUSTER).close()
        asyncio.run(look())
    assert running.calls["GetCluster"] == 1
    kubernetes_client("google_cloud_default", replace(CLUSTER, endpoint="private")).close()
    assert running.calls["GetCluster"] == 2
    with mock.patch("slipway.google.ENDPOINT_KEPT_S", -1):
        kubernetes_client("google_cloud_default", CLUSTER).close()
    assert running.calls["GetCluster"] == 3


def moved(google, endpoint, ca=""):
    """The cluster was deleted and made again."""
    from google.cloud.container_v1.types import Cluster

    made = Cluster.from_json(json.dumps({"status": "RUNNING"}))
    google.put(CLUSTER.path, made)
    made.endpoint, made.master_auth.cluster_ca_certificate = endpoint, ca


def test_google_is_asked_anew_if_nobody_answers_there(running, emulator, tls_server):
    """A cluster that was made again under its name is found at its new address, and by its new authority, at the next try."""
    target = Target(kind="gke", conn_id="google_cloud_default", namespace="shop", gke=CLUSTER)
    theirs = base64.b64encode((emulator.identity.folder / "ca.pem").read_bytes()).decode()

    def ask():
        with cluster_client(target) as client:
            return VersionApi(client).get_code(_request_timeout=5).git_version

    with pytest.raises(
        ClusterUnreachable, match=r"^cluster tfs-cluster .*127\.0\.0\.1:1 does not answer: .*Next: gcloud"
    ):
        ask()
    moved(running, tls_server)  # the machine's authorities do not know its certificate
    with pytest.raises(ClusterUnreachable, match=r"certificate verify failed"):
        ask()
    moved(running, tls_server, ca=theirs)
    assert ask() == "v1.34.4"
    assert running.calls["GetCluster"] == 3


def test_a_wait_asks_google_anew_if_nobody_answers_there(running):
    """A look that found nobody forgets where it looked, and the next one asks."""
    target = Target(kind="gke", conn_id="google_cloud_default", namespace="shop", gke=CLUSTER)
    for looks in (1, 2):
        with pytest.raises(ClientError):
            asyncio.run(server_version(target))
        assert running.calls["GetCluster"] == looks


@pytest.fixture
def tls_server(emulator):
    """A server with the emulator's certificate, that says which version it is: its host and port."""

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
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(emulator.identity.server_certificate, emulator.identity.server_key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"any.slipway.localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_who_impersonates_acts_as_the_other_account(impersonating, running, emulator):
    """Google, the registry and the cluster see the account that the connection impersonates."""
    tokens = [access_token("google_cloud_default"), sent_by(kubernetes_client("google_cloud_default", CLUSTER))]
    assert [who(token, [emulator.issuer]).email for token in tokens] == [DEPLOYER, DEPLOYER]
    assert find_login("google_cloud_default", "europe-docker.pkg.dev/p/m/vit").user == "oauth2accesstoken"


DENIED = {
    "token": lambda: access_token("google_cloud_default"),
    "cluster": lambda: find_cluster("google_cloud_default", CLUSTER),
    "kubernetes": lambda: kubernetes_client("google_cloud_default", CLUSTER),
}


@pytest.mark.parametrize("act", DENIED.values(), ids=DENIED)
def test_denied_impersonation_is_one_line(impersonating, act):
    """Whatever asks first says which right is missing and which role has it, and is not tried again."""
    impersonating.project.missing = ["iam.serviceAccounts.getAccessToken"]
    with pytest.raises(ClusterRefused) as refusal:
        act()
    said = str(refusal.value)
    assert "\n" not in said
    assert "Permission 'iam.serviceAccounts.getAccessToken' denied" in said
    assert said.endswith(
        "Next: give its account roles/iam.serviceAccountTokenCreator on the account that it impersonates"
    )


def test_denied_impersonation_is_a_refused_login(impersonating):
    """At the registry it is the login that is refused, before anything is built."""
    impersonating.project.missing = ["iam.serviceAccounts.getAccessToken"]
    with pytest.raises(RegistryLoginRefused, match=r"^registry europe-docker\.pkg\.dev: .*serviceAccountTokenCreator"):
        find_login("google_cloud_default", "europe-docker.pkg.dev/p/m/vit")


def test_worth_another_try_if_google_gives_no_token_now(impersonating):
    """IAM credentials in trouble are no missing right."""
    impersonating.faults.unavailable = {"iamcredentials.projects.serviceAccounts.generateAccessToken": 20}
    with pytest.raises(GoogleUnreachable, match=r"gets no token: .*currently unavailable\. Next: look at status"):
        access_token("google_cloud_default")


ANSWERS = {
    "an API's": (("no", '{"error": {"code": 403, "message": "denied"}}'), (403, "no: denied")),
    "the token server's": (
        ("invalid_grant: Invalid JWT", {"error": "invalid_grant"}),
        (0, "invalid_grant: Invalid JWT"),
    ),
    "no JSON": (("no", "<html>"), (0, "no")),
    "nothing": ((), (0, "no reason given")),
}


@pytest.mark.parametrize(("words", "found"), ANSWERS.values(), ids=ANSWERS)
def test_words_of_a_refused_token(words, found):
    """Google's client hands on an answer as it came: its status and message are found, where it has them."""
    assert read_refresh_error(RefreshError(*words)) == found
