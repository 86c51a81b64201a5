import pytest

from slipway import questions
from slipway.prediction import Answer
from slipway.questions import ask, ask_async


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
