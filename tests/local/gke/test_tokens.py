"""Whose a bearer token is."""

import time
from dataclasses import replace

from local.gke import tokens


def test_token_is_its_issuers(issuer, token):
    """A signed token that has not expired is the account's, who is of no group in the cluster."""
    answer = tokens.review({"apiVersion": "authentication.k8s.io/v1beta1", "spec": {"token": token()}}, [issuer])
    assert answer["status"] == {
        "authenticated": True,
        "user": {"username": issuer.email, "uid": issuer.email, "groups": []},
    }
    assert answer["apiVersion"] == "authentication.k8s.io/v1beta1"


def test_token_that_google_made_is_of_whom_it_names(ours, issuer):
    """An account that is impersonated is itself, and of the group that may do something in the cluster."""
    made = tokens.mint(ours.server()[0].decode(), "deployer@p.iam", int(time.time()) + 60)
    user = tokens.review({"spec": {"token": made}}, [issuer])["status"]["user"]
    assert user == {"username": "deployer@p.iam", "uid": "deployer@p.iam", "groups": ["gke:shop"]}
    assert tokens.who(tokens.mint(ours.server()[0].decode(), "deployer@p.iam", int(time.time()) - 1), [issuer]) is None


def test_no_other_token_counts(issuer, token):
    """Expired, somebody else's, without an end, refused on purpose, or no token at all."""
    for wrong in (token(exp=int(time.time()) - 1), token(iss="other"), token(exp=None), "", "x.y.z"):
        assert tokens.who(wrong, [issuer]) is None
    assert tokens.who(token(), [replace(issuer, refuse=True)]) is None
    assert tokens.who(token(), [replace(issuer, expired_before=int(time.time()) + 1)]) is None
