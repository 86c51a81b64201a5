"""Which account a bearer token belongs to."""

import time
from dataclasses import replace

from local.gke import tokens


def test_valid_token_of_the_account(issuer, token):
    """A signed token that has not expired belongs to the account, which has no group in the cluster."""
    answer = tokens.review({"apiVersion": "authentication.k8s.io/v1beta1", "spec": {"token": token()}}, [issuer])
    assert answer["status"] == {
        "authenticated": True,
        "user": {"username": issuer.email, "uid": issuer.email, "groups": []},
    }
    assert answer["apiVersion"] == "authentication.k8s.io/v1beta1"


def test_token_that_google_signed_belongs_to_the_impersonated_account(ours, issuer):
    """An impersonated account keeps its own name, and has the group that has rights in the cluster."""
    made = tokens.mint(ours.server()[0].decode(), "deployer@p.iam", int(time.time()) + 60)
    user = tokens.review({"spec": {"token": made}}, [issuer])["status"]["user"]
    assert user == {"username": "deployer@p.iam", "uid": "deployer@p.iam", "groups": ["gke:shop"]}
    assert tokens.who(tokens.mint(ours.server()[0].decode(), "deployer@p.iam", int(time.time()) - 1), [issuer]) is None


def test_no_other_token_is_accepted(issuer, token):
    """A token is refused if it is expired, of another issuer, without an expiry, refused by a fault, or no token."""
    for wrong in (token(exp=int(time.time()) - 1), token(iss="other"), token(exp=None), "", "x.y.z"):
        assert tokens.who(wrong, [issuer]) is None
    assert tokens.who(token(), [replace(issuer, refuse=True)]) is None
    assert tokens.who(token(), [replace(issuer, expired_before=int(time.time()) + 1)]) is None
