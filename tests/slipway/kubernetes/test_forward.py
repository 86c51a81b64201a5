"""Addresses on loopback that forward to Services through the API server."""

import json
import socket
import urllib.error
import urllib.request
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from slipway.errors import InputRefused
from slipway.kubernetes.forward import forwarded

PATHS = ("/api/v1/namespaces/shop/services/a:8501/proxy", "/api/v1/namespaces/shop/services/b:8501/proxy")


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
    with forwarded(release.target, PATHS) as urls:
        assert post(f"{urls[0]}/v1/models/m/versions/7:predict", '{"instances":["ü"]}') == (200, '{"predictions": []}')
        post(f"{urls[1]}/v1/models/m")
    assert [(seen.path, seen.body) for seen in server.seen] == [
        (f"{PATHS[0]}/v1/models/m/versions/7:predict", '{"instances":["ü"]}'),
        (f"{PATHS[1]}/v1/models/m", "{}"),
    ]


def test_it_listens_on_loopback_and_ends_with_its_block(release, http_server, connected):
    """Nobody else can ask through the run's login, and nobody can after the block."""
    connected(http_server((200, "{}")))
    with forwarded(release.target, PATHS[:1]) as (url,):
        address = urlsplit(url)
        assert address.hostname == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname, address.port), timeout=5)


def test_what_the_api_server_says_itself_is_a_bad_gateway(release, http_server, connected):
    """So that a report does not count it as an answer of the model server."""
    said = {"kind": "Status", "apiVersion": "v1", "message": "no endpoints available"}
    connected(http_server((503, json.dumps(said))))
    with forwarded(release.target, PATHS[:1]) as (url,):
        assert post(url) == (502, "the API server: HTTP 503: no endpoints available")


def test_the_models_own_status_comes_through(release, http_server, connected):
    """A refusal under load is the model server's."""
    connected(http_server((429, "busy")))
    with forwarded(release.target, PATHS[:1]) as (url,):
        assert post(url) == (429, "busy")


def test_an_api_server_that_is_gone_is_a_bad_gateway(release, closed_url, connected):
    """The test goes on and counts it."""
    connected(SimpleNamespace(url=closed_url))
    with forwarded(release.target, PATHS[:1]) as (url,):
        assert post(url)[0] == 502


def test_refused_without_a_connection(release):
    """What the client raises, the caller gets."""
    target = replace(release.target, conn_id="no_such_connection")
    with pytest.raises(InputRefused, match="no_such_connection"), forwarded(target, PATHS):
        pytest.fail("it must not start")
