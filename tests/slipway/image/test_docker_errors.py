from types import SimpleNamespace

import pytest

from slipway.errors import RegistryLoginRefused, RegistryUnreachable
from slipway.image.docker_errors import registry_refusal
from slipway.image.registry_login import GOOGLE_USER, Login

# In the words of Docker Engine 20.10 and 28.
LOGIN = [
    "no basic auth credentials",
    'Head "http://127.0.0.1:5000/v2/shop/vit/manifests/latest": no basic auth credentials',
    "login attempt to http://127.0.0.1:5000/v2/ failed with status: 401 Unauthorized",
    "unauthorized: authentication required",
    "denied: Unauthenticated request. Unauthenticated requests do not have permission",
]
NO_RESPONSE = [
    'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
    'Get "https://registry.invalid/v2/": dial tcp: lookup registry.invalid on 10.0.0.1:53: no such host',
    "received unexpected HTTP status: 503 Service Unavailable",
    "login attempt to http://127.0.0.1:5000/v2/ failed with status: 503 Service Unavailable",
    'Get "https://r.example/v2/": net/http: request canceled while waiting for connection (Client.Timeout exceeded)',
    'Put "https://r.example/v2/": EOF',
]
OTHER = [
    "denied: Permission artifactregistry.repositories.uploadArtifacts denied on resource",
    'Get "https://r.example/v2/": x509: certificate signed by unknown authority',
    'Get "https://r.example/v2/": http: server gave HTTP response to HTTPS client',
    "manifest unknown: manifest unknown",
    "no space left on device",
]

MINE = Login(conn_id="mine", hosts=("r",), user="shop", password="secret")
TOKEN = Login(conn_id="google", hosts=("r",), user=GOOGLE_USER, password="secret")


def refusal(words, login=None):
    """The error for these words of the engine."""
    return registry_refusal("push r/x:1", SimpleNamespace(explanation=f"{words}\n"), login)


@pytest.mark.parametrize("words", LOGIN)
@pytest.mark.parametrize(
    ("login", "then"), [(None, "image.registry_conn_id"), (MINE, "connection mine"), (TOKEN, "artifactregistry.writer")]
)
def test_login_refused_if_the_registry_requires_one(words, login, then):
    """One line names the refused connection, or the field for one if there is none, and never the password."""
    found = refusal(words, login)
    assert "secret" not in f"{found}{login}"
    assert type(found) is RegistryLoginRefused
    assert str(found).startswith("push r/x:1: ")
    assert words in str(found)
    assert then in str(found)
    assert "\n" not in str(found)


@pytest.mark.parametrize("words", NO_RESPONSE)
def test_unreachable_if_the_registry_does_not_respond(words):
    """No response and 5xx can be retried, with and without a login."""
    assert {type(refusal(words, login)) for login in (None, MINE)} == {RegistryUnreachable}


@pytest.mark.parametrize("words", OTHER)
def test_none_if_the_words_are_about_something_else(words):
    """An error that is not about the login or the registry's availability is left to the caller."""
    assert refusal(words, MINE) is None
