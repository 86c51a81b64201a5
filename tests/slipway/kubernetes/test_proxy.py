import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from slipway.kubernetes.proxy import how_to_allow_proxy, read_proxy_answer, send_to_service
from slipway.serving.golden import Answer


async def test_a_url_without_a_host_goes_through_the_api_server(release, http_server, connected):
    """The request's exact bytes go to the target's API server over its connection; the answer is the model's."""
    server = http_server((200, '{"predictions": ["ü"]}'))
    connected(server)
    body = '{"signature_name":"serving_default",\n "instances":["aW1hZ2U"]}'
    answer = await send_to_service(release.target, release.preview.proxy_path, "/v1/models/m/versions/7:predict", body)
    assert Answer(status=200, body='{"predictions": ["ü"]}') == answer
    (seen,) = server.seen
    path = "/api/v1/namespaces/shop/services/tfs-server-preview:8501/proxy/v1/models/m/versions/7:predict"
    assert (seen.method, seen.path, seen.body) == ("POST", path, body)


async def test_a_url_with_a_host_gets_the_request(release, http_server):
    """A public address needs no connection to the cluster."""
    server = http_server((200, "{}"))
    assert Answer(status=200, body="{}") == await send_to_service(release.target, server.url, "/v1/models/m")


async def test_status_0_if_the_api_server_cannot_be_reached(release, closed_url, connected):
    """A failed connection is an Answer with status 0."""
    connected(SimpleNamespace(url=closed_url))
    answer = await send_to_service(release.target, release.preview.proxy_path, "/v1/models/m")
    assert answer.status == 0
    assert answer.body


async def test_an_endless_answer_counts_as_no_answer(release, mean_server, connected, monkeypatch):
    """A slow or endless answer through the API server gives an Answer with status 0."""
    monkeypatch.setattr("slipway.kubernetes.proxy.ANSWER_TIMEOUT_S", 0.5)
    connected(mean_server)
    answer = await send_to_service(release.target, release.preview.proxy_path, "/v1/models/m")
    assert answer.status == 0
    assert "answer" in answer.body
    assert mean_server.sent < 64 * 1024 * 1024


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
def test_the_api_servers_own_error_is_not_the_models_answer(status):
    """A Status object comes from the API server itself: a right, a Service or an endpoint is missing."""
    said = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": "no endpoints available",
        "code": status,
    }
    answer = read_proxy_answer(status, json.dumps(said))
    denied = status if status in {401, 403} else 0
    assert Answer(status=0, body=f"the API server: HTTP {status}: no endpoints available", denied=denied) == answer


@pytest.fixture
def as_account(stand, kubectl, monkeypatch, tmp_path):
    """Makes the release's connection use an account of the stand's cluster without rights, or another token."""
    name = f"no-rights-{os.getpid()}"
    kubectl("create", "serviceaccount", name)
    own = kubectl("create", "token", name).strip()

    def connect(token=None):
        config = yaml.safe_load(Path(stand["kubeconfig"]).read_text())
        config["users"] = [{"name": user["name"], "user": {"token": token or own}} for user in config["users"]]
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        said = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(tmp_path / "kubeconfig")}}
        monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps(said))

    yield connect
    kubectl("delete", "serviceaccount", name)


@pytest.mark.stand
@pytest.mark.alongside
async def test_a_real_api_server_names_the_missing_right(release, stand, as_account):
    """An account without rights on the proxy is denied with a message that names verb and resource; an unknown one gets 401."""
    target = replace(release.target, namespace=stand["namespace"])
    path = replace(release, target=target).preview.proxy_path
    as_account()
    answer = await send_to_service(target, path, "/v1/models/digits-vit/versions/7:predict", "{}")
    assert answer.denied == 403
    assert 'cannot create resource "services/proxy"' in answer.body
    as_account("nobodys")
    assert (await send_to_service(target, path, "/v1/models/digits-vit/versions/7:predict", "{}")).denied == 401


WAYS_IN = {
    401: "put a valid token or certificate into the kubeconfig of connection kubernetes_default",
    403: "give connection kubernetes_default a Role with the verb create on services/proxy in namespace shop, "
    "or set target.strategy to rolling",
}


@pytest.mark.parametrize(("denied", "then"), WAYS_IN.items())
def test_next_step_after_a_denial(release, denied, then):
    """After 401 the next step is a valid token or certificate; after 403 it names the missing rights."""
    assert then == how_to_allow_proxy(release.target, denied)


MODELS = {
    "an answer": (200, '{"predictions": [{"label": "3"}]}'),
    "an unknown version": (404, '{"error": "Servable not found"}'),
    "a refusal": (400, '{"error": "not an image"}'),
    "no JSON": (502, "<html>bad gateway</html>"),
    "a list": (200, "[]"),
    "a Status of its own": (200, '{"kind": "Status"}'),
}  # fmt: skip


@pytest.mark.parametrize(("status", "body"), MODELS.values(), ids=MODELS)
def test_the_models_answer_is_passed_on_unchanged(status, body):
    """Anything other than the API server's Status is the model's answer."""
    assert Answer(status=status, body=body) == read_proxy_answer(status, body)
