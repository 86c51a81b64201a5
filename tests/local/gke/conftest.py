"""The service account that the tests of the emulator share."""

import json
import time

import jwt
import pytest

from local.gke import identity, tokens


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """An emulated service account."""
    return identity.make_identity(tmp_path_factory.mktemp("gke"), "slipway.localhost:1", "")


@pytest.fixture
def issuer(ours):
    """The account as an issuer of tokens."""
    return tokens.issuer_of(ours, "gke:shop")


@pytest.fixture
def token(ours):
    """Makes a token of the account as Google's client does: signed with the account's key."""
    key = json.loads(ours.key_file.read_text())["private_key"]

    def make(**changes):
        claims = {
            "iss": ours.email,
            "sub": ours.email,
            "iat": int(time.time()),
            "exp": int(time.time()) + 3600,
            **changes,
        }
        return jwt.encode(claims, key, algorithm="RS256")

    return make
