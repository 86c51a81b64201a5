import contextvars

import pytest
import requests

from slipway.bounded_requests import bound_session, call_within
from slipway.google_rest import GoogleRest


def test_an_endless_answer_is_cut_off(mean_server):
    """A slow or endless answer is cut off within bounds of size and time."""
    session = bound_session(requests.Session())
    with pytest.raises((TimeoutError, requests.RequestException)):
        call_within(0.5, lambda: session.get(mean_server.url, timeout=5))
    assert mean_server.sent < 64 * 1024 * 1024


def test_an_endless_answer_of_google_counts_as_no_answer(mean_server, monkeypatch):
    """Such an answer of Google's APIs gives an answer with status 0."""
    monkeypatch.setattr("slipway.google_rest.TOTAL_S", 0.5)
    session = bound_session(requests.Session())
    rest = GoogleRest(None, lambda method, *_, **__: session.request(method, mean_server.url, timeout=5), "example")
    answer = rest.get("compute", "/compute/v1/projects/shop")
    assert answer.status == 0
    assert answer.refusal


def test_a_bounded_session_reads_whole_answers(http_server):
    """An answer within the bounds is read as it is."""
    session = bound_session(requests.Session())
    assert session.get(http_server((200, '{"ok": "ü"}')).url, timeout=5).json() == {"ok": "ü"}


def test_a_calls_result_and_errors_are_the_callers():
    """The call runs in a thread with the caller's context; what it raises, even a TimeoutError, is raised unchanged."""
    context = contextvars.ContextVar("context", default="none")
    context.set("the caller's")
    assert call_within(5, context.get) == "the caller's"

    def late():
        raise TimeoutError("my own")

    with pytest.raises(TimeoutError, match="my own"):
        call_within(5, late)


def test_no_redirect_is_followed(http_server, redirecting_server):
    """A request for a token has a login in its body, which a redirect to another host would repeat there."""
    other = http_server((200, "{}"))
    server = redirecting_server(other.url)
    with pytest.raises(requests.TooManyRedirects):
        bound_session(requests.Session()).post(f"{server.url}/token", data={"assertion": "signed"}, timeout=5)
    assert (len(server.seen), other.seen) == (1, [])


def test_a_redirect_of_google_counts_as_no_answer(http_server, redirecting_server):
    """Google's APIs send none: the token of the request stays with the host that was asked."""
    other = http_server((200, "{}"))
    server = redirecting_server(other.url)
    session = bound_session(requests.Session())
    rest = GoogleRest(None, lambda method, *_, **__: session.request(method, server.url, timeout=5), "example")
    assert "TooManyRedirects" in rest.get("compute", "/compute/v1/projects/shop").refusal
    assert other.seen == []
