import json
import math

import pytest

from slipway.errors import InputRefused
from slipway.release import PrometheusQueries
from slipway.serving.prometheus import PrometheusUnread, ask_number, find_prometheus


@pytest.fixture
def prometheus_at(monkeypatch):
    """Makes the connection `prom` of these fields."""

    def make(**fields):
        monkeypatch.setenv("AIRFLOW_CONN_PROM", json.dumps({"conn_type": "http", **fields}))
        return find_prometheus("prom")

    return make


def answer(kind, result):
    """An answer of Prometheus' HTTP API, as its documentation has it."""
    return 200, json.dumps({"status": "success", "data": {"resultType": kind, "result": result}})


NUMBERS = {
    "a vector of one": (("vector", [{"metric": {}, "value": [1435781451.781, "0.25"]}]), 0.25),
    "a scalar": (("scalar", [1435781451.781, "3"]), 3.0),
    "no requests": (("vector", [{"metric": {}, "value": [1435781451.781, "NaN"]}]), math.nan),
    "beyond the last bucket": (("vector", [{"metric": {}, "value": [1435781451.781, "+Inf"]}]), math.inf),
}


@pytest.mark.parametrize(("given", "number"), NUMBERS.values(), ids=NUMBERS)
async def test_the_number_of_a_query(http_server, prometheus_at, given, number):
    """The query is sent as a form, because it may be longer than a URL."""
    server = http_server(answer(*given))
    found = await ask_number(prometheus_at(host=server.url), 'sum(up{job="a"})')
    assert found == pytest.approx(number, nan_ok=True)
    (seen,) = server.seen
    assert (seen.method, seen.path) == ("POST", "/api/v1/query")
    assert seen.body == "query=sum%28up%7Bjob%3D%22a%22%7D%29"


UNREAD = {
    "no result": (answer("vector", []), r"0 numbers, one is needed\. Next: end the query in `or vector\(0\)`"),
    "two results": (answer("vector", [{"value": [1, "1"]}] * 2), r"2 numbers, one is needed\. Next: join them"),
    "a matrix": (answer("matrix", [{"values": [[1, "1"]]}]), "a result of type matrix, not one number"),
    "a text": (answer("string", [1, "hello"]), "a result of type string, not one number"),
    "a result that is broken": (answer("vector", ["hello"]), "a result of type vector, not one number"),
    "a query that is wrong": (
        (400, '{"status": "error", "errorType": "bad_data", "error": "1:5: parse error: unclosed"}'),
        "HTTP 400: 1:5: parse error: unclosed",
    ),
    "no login": ((401, "Unauthorized\n"), "HTTP 401: Unauthorized"),
    "another server": ((200, "<html>"), "HTTP 200: <html>"),
}


@pytest.mark.parametrize(("given", "words"), UNREAD.values(), ids=UNREAD)
async def test_anything_else_says_why_there_is_no_number(http_server, prometheus_at, given, words):
    """The reason names the connection and the address."""
    server = prometheus_at(host=http_server(given).url)
    with pytest.raises(PrometheusUnread, match=words) as unread:
        await ask_number(server, "up")
    assert str(unread.value).startswith(f"connection prom: {server.url}/api/v1/query: ")


async def test_an_endless_answer_is_no_number(mean_server, prometheus_at, monkeypatch):
    """It would hold up the triggerer."""
    monkeypatch.setattr("slipway.serving.prometheus.TIMEOUT_S", 0.5)
    with pytest.raises(PrometheusUnread, match="answer"):
        await ask_number(prometheus_at(host=mean_server.url), "up")


LOGINS = {
    "login and password": ({"login": "ada", "password": "pass-word"}, ("ada", "pass-word"), {}),
    "a token": ({"password": "pass-word"}, None, {"Authorization": "Bearer pass-word"}),
    "neither": ({}, None, {}),
}


@pytest.mark.parametrize(("fields", "login", "headers"), LOGINS.values(), ids=LOGINS)
def test_the_connections_address_and_login(prometheus_at, fields, login, headers):
    """A password alone is a bearer token; a repr shows neither."""
    found = prometheus_at(host="prom.example.com", port=9090, **fields)
    assert (found.url, found.login, found.headers) == ("http://prom.example.com:9090", login, headers)
    assert "pass-word" not in repr(found)
    assert prometheus_at(host="prom", schema="https").url == "https://prom"


def test_a_login_in_the_host_is_in_no_message(prometheus_at):
    """A person may have pasted a URL."""
    assert "pass-word" not in repr(prometheus_at(host="http://me:pass-word@prom"))


def test_a_connection_without_a_host_or_of_another_type_is_refused(prometheus_at):
    """The secret of another server would go to this machine."""
    with pytest.raises(InputRefused, match=r"^connection prom: has no host\. Next: "):
        prometheus_at(password="pass-word")
    with pytest.raises(InputRefused, match="is of type docker, but type http is needed"):
        prometheus_at(conn_type="docker", host="x")


def test_placeholders_are_filled_and_patterns_kept():
    """A `$` at the end of a pattern is PromQL's."""
    query = 'rate(x{namespace="$namespace", pod=~"^${deployment}-.*$"}[$window])'
    filled = PrometheusQueries(conn_id="p").filled(query, {"namespace": "shop", "deployment": "tfs", "window": "60s"})
    assert filled == 'rate(x{namespace="shop", pod=~"^tfs-.*$"}[60s])'
