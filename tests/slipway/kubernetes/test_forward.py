"""Addresses on loopback that forward to Services through the API server."""

import http.client
import json
import socket
import urllib.error
import urllib.request
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from slipway.errors import InputRefused
from slipway.kubernetes.forward import Route, forwarded

SERVICES = ("/api/v1/namespaces/shop/services/a:8501/proxy", "/api/v1/namespaces/shop/services/b:8501/proxy")
PATH = "/v1/models/m/versions/7:predict"
ROUTES = tuple(Route(service=service, path=PATH) for service in SERVICES)


def post(url, body="{}"):
    """Status and body of the answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body.encode()), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_each_address_forwards_to_its_service(release, http_server, connected):
    """Path and body arrive unchanged below the Service's path; the answer comes back."""
    server = http_server((200, '{"predictions": []}'))
    connected(server)
    with forwarded(release.target, ROUTES) as forwarding:
        urls = forwarding.addresses
        assert post(f"{urls[0]}{PATH}", '{"instances":["ü"]}') == (200, '{"predictions": []}')
        post(f"{urls[1]}{PATH}")
    assert [(seen.path, seen.body) for seen in server.seen] == [
        (f"{SERVICES[0]}{PATH}", '{"instances":["ü"]}'),
        (f"{SERVICES[1]}{PATH}", "{}"),
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/m",
        f"{PATH}/../../../../../../../../../apis/apps/v1/namespaces/shop/deployments",
        "/../../secrets",
        "//",
        f"{PATH}%2F..",
    ],
)
def test_another_path_is_not_forwarded(release, http_server, connected, path):
    """Another process on the worker could otherwise use the run's login for more than a prediction."""
    server = http_server((200, "{}"))
    connected(server)
    with forwarded(release.target, ROUTES[:1]) as forwarding:
        (url,) = forwarding.addresses
        raw = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
        raw.request("POST", path, "{}")
        assert raw.getresponse().status == 404
        raw.close()
    assert server.seen == []


def test_only_post_is_forwarded(release, http_server, connected):
    """Nothing is read or deleted through it."""
    server = http_server((200, "{}"))
    connected(server)
    with forwarded(release.target, ROUTES[:1]) as forwarding:
        (url,) = forwarding.addresses
        for method in ("GET", "DELETE", "PUT"):
            raw = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
            raw.request(method, PATH)
            assert raw.getresponse().status == 404
            raw.close()
    assert server.seen == []


def test_it_listens_on_loopback_and_ends_with_its_block(release, http_server, connected):
    """Nobody else can ask through the run's login, and nobody can after the block."""
    connected(http_server((200, "{}")))
    with forwarded(release.target, ROUTES[:1]) as forwarding:
        (url,) = forwarding.addresses
        address = urlsplit(url)
        assert address.hostname == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname, address.port), timeout=5)


def test_what_the_api_server_says_itself_is_a_bad_gateway(release, http_server, connected):
    """So that a report does not count it as an answer of the model server."""
    said = {"kind": "Status", "apiVersion": "v1", "message": "no endpoints available"}
    connected(http_server((503, json.dumps(said))))
    with forwarded(release.target, ROUTES[:1]) as forwarding:
        (url,) = forwarding.addresses
        assert post(url + PATH) == (502, "the API server: HTTP 503: no endpoints available")


def test_the_models_own_status_comes_through(release, http_server, connected):
    """A refusal under load is the model server's."""
    connected(http_server((429, "busy")))
    with forwarded(release.target, ROUTES[:1]) as forwarding:
        (url,) = forwarding.addresses
        assert post(url + PATH) == (429, "busy")


def test_an_api_server_that_is_gone_is_a_bad_gateway(release, closed_url, connected):
    """The test goes on and counts it."""
    connected(SimpleNamespace(url=closed_url))
    with forwarded(release.target, ROUTES[:1]) as forwarding:
        (url,) = forwarding.addresses
        assert post(url + PATH)[0] == 502


def test_refused_without_a_connection(release):
    """What the client raises, the caller gets."""
    target = replace(release.target, conn_id="no_such_connection")
    with pytest.raises(InputRefused, match="no_such_connection"), forwarded(target, ROUTES):
        pytest.fail("it must not start")
