import asyncio
from dataclasses import replace

import grpc
import pytest
from grpc_serving import DESCRIPTORS, request_of

from slipway.serving import client
from slipway.serving.client import send_grpc_request, send_request, send_request_async
from slipway.serving.golden import Answer, GrpcError, GrpcPrediction


async def send(way, *request):
    """The answer to one request, from a task or from a trigger's event loop."""
    return await (send_request_async(*request) if way == "async" else asyncio.to_thread(send_request, *request))


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_answer_is_status_and_body(http_server, way):
    """A request without a body is a GET; the answer has status and body."""
    server = http_server((200, '{"ok": "ü"}'))
    assert Answer(status=200, body='{"ok": "ü"}') == await send(way, server.url, "/v1/models/m/versions/7")
    (seen,) = server.seen
    assert (seen.method, seen.path, seen.body) == ("GET", "/v1/models/m/versions/7", "")


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_body_is_posted_byte_for_byte(http_server, way):
    """A golden request is sent as the export stored it."""
    server = http_server((200, "{}"))
    body = '{"signature_name":"serving_default",\n "instances":["aW1hZ2U"]}'
    await send(way, server.url, "/v1/models/m/versions/7:predict", body)
    assert [("POST", body)] == [(seen.method, seen.body) for seen in server.seen]


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("status", [301, 400, 404, 429, 500, 503])
async def test_refusal_is_an_answer(http_server, way, status):
    """A refusal is an Answer, not an exception; redirects are not followed."""
    assert Answer(status=status, body="no") == await send(way, http_server((status, "no")).url, "/x")


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_status_0_if_the_connection_fails(closed_url, way):
    """A failed connection is an Answer with status 0 and the connection's message."""
    answer = await send(way, closed_url, "/x")
    assert answer.status == 0
    assert answer.body


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_status_0_if_the_server_does_not_respond(monkeypatch, way):
    """A server that accepts the connection and does not respond gives an Answer with status 0 and a message."""
    import socket

    monkeypatch.setattr(client, "REQUEST_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = await send(way, f"http://127.0.0.1:{silent.getsockname()[1]}", "/x")
    assert answer.status == 0
    assert answer.body


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_an_endless_answer_counts_as_no_answer(mean_server, monkeypatch, way):
    """A slow or endless answer is cut off within bounds of size and time, and gives an Answer with status 0."""
    monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 0.3)
    answer = await send(way, mean_server.url, "/x")
    assert answer.status == 0
    assert "answer" in answer.body
    assert mean_server.sent < 64 * 1024 * 1024


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_each_request_uses_a_new_connection(http_server, way):
    """Two requests use two connections, so that a load balancer can send them to two pods."""
    server = http_server((200, "{}"))
    for _ in range(2):
        await send(way, server.url, "/x")
    assert len({seen.client for seen in server.seen}) == 2


@pytest.fixture
def grpc_case(case):
    """The golden case with a gRPC request."""
    return replace(case, grpc_request=request_of("digits-vit"))


def test_grpc_answer_names_its_version(grpc_server, grpc_case):
    """A request names the version by its number, and the answer names the version that answered."""
    server = grpc_server(("3", 0.95, 7))
    answer = send_grpc_request(server.address, DESCRIPTORS, grpc_case, 7)
    assert answer == GrpcPrediction(label="3", confidence=pytest.approx(0.95), version=7)
    assert [seen.version for seen in server.seen] == [7]


def test_without_a_version_the_server_chooses(grpc_server, grpc_case):
    """The request names none; the answer names the one that the server prefers."""
    server = grpc_server(("3", 0.95, 12))
    assert send_grpc_request(server.address, DESCRIPTORS, grpc_case, None).version == 12
    assert [seen.version for seen in server.seen] == [0]


def test_each_grpc_request_uses_a_new_connection(grpc_server, grpc_case):
    """By default, channels of one process share connections; these do not, so that a load balancer can choose again."""
    from concurrent.futures import ThreadPoolExecutor

    server = grpc_server(("3", 0.95, 7))
    with ThreadPoolExecutor(3) as senders:
        list(senders.map(lambda _: send_grpc_request(server.address, DESCRIPTORS, grpc_case, 7), range(6)))
    assert len({seen.client for seen in server.seen}) == 6


def test_grpc_error_is_an_answer(grpc_server, closed_url, grpc_case):
    """A refusal, a failed connection and an answer without a label are returned, not raised."""
    refusing = grpc_server((grpc.StatusCode.NOT_FOUND, "Servable not found for request: Specific(digits-vit, 7)"))
    answer = send_grpc_request(refusing.address, DESCRIPTORS, grpc_case, 7)
    assert answer == GrpcError(code="NOT_FOUND", message="Servable not found for request: Specific(digits-vit, 7)")
    assert send_grpc_request(closed_url.removeprefix("http://"), DESCRIPTORS, grpc_case, 7).code == "UNAVAILABLE"
    assert send_grpc_request(grpc_server((None, 0, 7)).address, DESCRIPTORS, grpc_case, 7).code == "OK"
