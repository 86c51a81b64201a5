import pytest

from slipway.errors import ImagePushRefused
from slipway.image.push import judge_push

DIGEST = f"sha256:{'d' * 64}"
AUX = {"progressDetail": {}, "aux": {"Tag": "v7", "Digest": DIGEST, "Size": 1}}
STREAMS = {
    "plain": [{"status": "The push refers to repository"}, {"status": "Pushed", "id": "abc"}, AUX],
    "an event after it": [AUX, {"status": "v7: digest: ..."}],
    "aux without digest after it": [AUX, {"aux": {"Tag": "v7"}}],
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_digest_if_the_push_succeeds(stream):
    """The digest comes from the stream's aux event."""
    assert judge_push(stream) == DIGEST


ERRORS = {
    "error": ([{"error": "unauthorized"}], "unauthorized"),
    "error and detail": ([{"errorDetail": {"message": "denied"}, "error": "denied: no"}], "denied: no"),
    "detail only": ([{"errorDetail": {"message": "no space left"}}], "no space left"),
    "empty error": ([{"errorDetail": {"message": "no space left"}, "error": ""}], "no space left"),
    "error after the digest": ([AUX, {"error": "lost"}], "lost"),
    "no digest": ([{"status": "Pushed"}], "the push ended without a digest"),
    "nothing": ([], "the push ended without a digest"),
}


@pytest.mark.parametrize(("stream", "words"), ERRORS.values(), ids=ERRORS)
def test_refused_if_the_stream_has_an_error(stream, words):
    """The client does not raise for a refused push: an error event or a missing digest shows it."""
    with pytest.raises(ImagePushRefused) as refusal:
        judge_push(stream)
    assert words == str(refusal.value)
