import time

from slipway import google_rest

GOOGLES_LIMIT_S = 120  # of Google's session, for a request that has no limit of its own


def test_a_request_has_a_time_limit(google, monkeypatch):
    """An API that hangs does not block the task: no answer in time is an answer with status 0."""
    monkeypatch.setattr(google_rest, "REQUEST_S", 0.2)
    with google.lock:  # the emulator cannot answer
        began = time.monotonic()
        with google_rest.google_rest("google_cloud_default") as rest:
            answer = rest.get("compute", "/compute/v1/projects/slipway-stand")
        assert time.monotonic() - began < GOOGLES_LIMIT_S / 2
    assert answer.status == 0
    assert "Timeout" in answer.refusal
