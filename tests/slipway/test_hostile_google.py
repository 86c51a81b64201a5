"""Hostile answers of Google's APIs: each refusal is one line."""

import json

from google.auth.exceptions import RefreshError
from hostile import assert_plain, bounded, json_values, mutated, texts
from hypothesis import given
from hypothesis import strategies as st

from slipway.google import google_refusal, read_refresh_error
from slipway.google_rest import GoogleAnswer

REFUSAL = {"error": {"code": 403, "message": "denied", "status": "PERMISSION_DENIED"}}


@given(st.sampled_from([0, 400, 403, 404, 429, 500]), mutated(REFUSAL))
def test_any_refusal(status, body):
    """A refusal with any body."""
    with bounded():
        assert_plain(GoogleAnswer(status=status, body=body if isinstance(body, dict) else {}).refusal)


@given(texts, st.one_of(mutated(REFUSAL), mutated(REFUSAL).map(json.dumps), json_values, texts))
def test_any_refused_token(message, answer):
    """The reason why there is no token, whatever the token server says."""
    with bounded():
        status, reason = read_refresh_error(RefreshError(message, answer))
        error = str(google_refusal("connection google_cloud_default", status, reason, then="fix its key"))
    assert_plain(error)
    assert ". Next: " in error
