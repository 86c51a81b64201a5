import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
import yaml
from grpc_serving import DESCRIPTORS, request_of

from slipway import questions
from slipway.prediction import Answer, GrpcPrediction, GrpcRefusal
from slipway.questions import ask, ask_async, ask_at, ask_grpc, read_proxied, way_in


async def asked(way, *question):
    """One question, from a task or from a trigger's loop."""
    return await ask_async(*question) if way == "async" else ask(*question)


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_answer_is_status_and_body(http_server, way):
    """A question without a body is a GET; the answer is what came."""
    server = http_server((200, '{"ok": "ü"}'))
    assert Answer(status=200, body='{"ok": "ü"}') == await asked(way, server.url, "/v1/models/m/versions/7")
    (seen,) = server.seen
    assert (seen.method, seen.path, seen.body) == ("GET", "/v1/models/m/versions/7", "")


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_body_is_posted_byte_for_byte(http_server, way):
    """A golden request goes out as the export stored it."""
    server = http_server((200, "{}"))
    body = '{"signature_name":"serving_default",\n "instances":["aW1hZ2U"]}'
    await asked(way, server.url, "/v1/models/m/versions/7:predict", body)
    assert [("POST", body)] == [(seen.method, seen.body) for seen in server.seen]


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("status", [301, 400, 404, 429, 500, 503])
async def test_refusal_is_an_answer(http_server, way, status):
    """What the server refuses is an answer for the judge, not an exception; no redirect is followed."""
    assert Answer(status=status, body="no") == await asked(way, http_server((status, "no")).url, "/x")


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_no_answer_if_nobody_listens(closed_url, way):
    """A failed connection is an answer of status 0 in the connection's words."""
    answer = await asked(way, closed_url, "/x")
    assert answer.status == 0
    assert answer.body


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_no_answer_if_it_takes_too_long(http_server, monkeypatch, way):
    """A server that accepts and says nothing is no answer, in words."""
    import socket

    monkeypatch.setattr(questions, "REQUEST_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = await asked(way, f"http://127.0.0.1:{silent.getsockname()[1]}", "/x")
    assert answer.status == 0
    assert answer.body


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_each_question_on_a_connection_of_its_own(http_server, way):
    """Two questions are two connections, so that a load balancer may send them to two pods."""
    server = http_server((200, "{}"))
    for _ in range(2):
        await asked(way, server.url, "/x")
    assert len({seen.client for seen in server.seen}) == 2


async def test_a_url_without_a_host_is_asked_through_the_api_server(release, http_server, connected):
    """The very bytes go to the target's API server, by its own connection, and its answer is the model's."""
    server = http_server((200, '{"predictions": ["ü"]}'))
    connected(server)
    body = '{"signature_name":"serving_default",\n "instances":["aW1hZ2U"]}'
    answer = await ask_at(release.target, release.preview.proxy_path, "/v1/models/m/versions/7:predict", body)
    assert Answer(status=200, body='{"predictions": ["ü"]}') == answer
    (seen,) = server.seen
    path = "/api/v1/namespaces/shop/services/tfs-server-preview:8501/proxy/v1/models/m/versions/7:predict"
    assert (seen.method, seen.path, seen.body) == ("POST", path, body)


async def test_a_url_with_a_host_is_asked_there(release, http_server):
    """A public address needs no cluster."""
    server = http_server((200, "{}"))
    assert Answer(status=200, body="{}") == await ask_at(release.target, server.url, "/v1/models/m")


async def test_no_answer_if_the_api_server_does_not_listen(release, closed_url, connected):
    """A failed connection is an answer of status 0 here too."""
    connected(SimpleNamespace(url=closed_url))
    answer = await ask_at(release.target, release.preview.proxy_path, "/v1/models/m")
    assert answer.status == 0
    assert answer.body


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
def test_what_the_api_server_says_itself_is_no_answer_of_the_model(status):
    """A Status object is the API server's own word: a right, a Service or an endpoint that is missing."""
    said = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": "no endpoints available",
        "code": status,
    }
    answer = read_proxied(status, json.dumps(said))
    denied = status if status in {401, 403} else 0
    assert Answer(status=0, body=f"the API server: HTTP {status}: no endpoints available", denied=denied) == answer


@pytest.fixture
def as_account(stand, kubectl, monkeypatch, tmp_path):
    """Lets the connection of the release be an account of the stand's cluster that has no right, or one with another token."""
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
async def test_a_real_api_server_says_which_right_is_missing(release, stand, as_account):
    """An account that may not reach Services through the proxy is denied in words that name verb and resource; an unknown one is nobody."""
    target = replace(release.target, namespace=stand["namespace"])
    path = replace(release, target=target).preview.proxy_path
    as_account()
    answer = await ask_at(target, path, "/v1/models/digits-vit/versions/7:predict", "{}")
    assert answer.denied == 403
    assert 'cannot create resource "services/proxy"' in answer.body
    as_account("nobodys")
    assert (await ask_at(target, path, "/v1/models/digits-vit/versions/7:predict", "{}")).denied == 401


WAYS_IN = {
    401: "put a token or certificate that is valid into the kubeconfig of connection kubernetes_default",
    403: "give connection kubernetes_default a Role with the verbs get and create on services/proxy in namespace shop, "
    "or set target.strategy to rolling",
}


@pytest.mark.parametrize(("denied", "then"), WAYS_IN.items())
def test_who_is_not_let_through_is_told_the_way_in(release, denied, then):
    """A login that is not taken wants a valid one; a right that is missing is named."""
    assert then == way_in(release.target, denied)


MODELS = {
    "an answer": (200, '{"predictions": [{"label": "3"}]}'),
    "a version that it does not know": (404, '{"error": "Servable not found"}'),
    "a refusal": (400, '{"error": "not an image"}'),
    "no JSON": (502, "<html>bad gateway</html>"),
    "a list": (200, "[]"),
    "a Status of its own": (200, '{"kind": "Status"}'),
}  # fmt: skip


@pytest.mark.parametrize(("status", "body"), MODELS.values(), ids=MODELS)
def test_what_the_model_says_comes_as_it_is(status, body):
    """Whatever is not the API server's Status is the model's answer, for the judge."""
    assert Answer(status=status, body=body) == read_proxied(status, body)


@pytest.fixture
def spoken(case):
    """The golden case with a gRPC request."""
    return replace(case, grpc_request=request_of("digits-vit"))


def test_grpc_answer_names_its_version(grpc_server, spoken):
    """A version is asked for by its number, and the answer says which it came from."""
    server = grpc_server(("3", 0.95, 7))
    said = ask_grpc(server.address, DESCRIPTORS, spoken, 7)
    assert said == GrpcPrediction(label="3", confidence=pytest.approx(0.95), version=7)
    assert [seen.version for seen in server.seen] == [7]


def test_each_grpc_question_on_a_connection_of_its_own(grpc_server, spoken):
    """Channels of one process share connections by themselves; these do not, so that a load balancer may choose anew."""
    from concurrent.futures import ThreadPoolExecutor

    server = grpc_server(("3", 0.95, 7))
    with ThreadPoolExecutor(3) as askers:
        list(askers.map(lambda _: ask_grpc(server.address, DESCRIPTORS, spoken, 7), range(6)))
    assert len({seen.client for seen in server.seen}) == 6


def test_grpc_refusal_is_an_answer(grpc_server, closed_url, spoken):
    """What the server refuses, who is not there, and an answer without a label are for the judge."""
    refusing = grpc_server((grpc.StatusCode.NOT_FOUND, "Servable not found for request: Specific(digits-vit, 7)"))
    said = ask_grpc(refusing.address, DESCRIPTORS, spoken, 7)
    assert said == GrpcRefusal(code="NOT_FOUND", words="Servable not found for request: Specific(digits-vit, 7)")
    assert ask_grpc(closed_url.removeprefix("http://"), DESCRIPTORS, spoken, 7).code == "UNAVAILABLE"
    assert ask_grpc(grpc_server((None, 0, 7)).address, DESCRIPTORS, spoken, 7).code == "OK"
