import json
from dataclasses import replace

import pytest

from slipway.facts import Accuracy
from slipway.release import Gate
from slipway.serving.evaluation import evaluate_live
from slipway.serving.labelled_set import pin_labelled_set
from slipway.verdict import Verdict

THREE = json.dumps({"predictions": [{"label": "3", "confidence": 0.9}]})


@pytest.fixture
def compared(release, store, tmp_path):
    """A release that is compared with the live one on a set of one image."""
    (tmp_path / "q" / "3").mkdir(parents=True)
    (tmp_path / "q" / "3" / "a.png").write_bytes(b"three")
    bounds = pin_labelled_set(tmp_path / "m.yaml", "q", store, "digits-vit", max_drop=0.02)
    return replace(release, gate=Gate(quality=bounds))


@pytest.mark.parametrize(
    "health", [Verdict.passed("it answers"), Verdict.wait("1 of 2 replicas are available")], ids=str
)
def test_live_release_is_measured_at_its_version(compared, http_server, health):
    """A release that is being scaled answers too, at the path that only its own version has."""
    server = http_server((200, THREE))
    live = evaluate_live(compared, {"version": 7}, health, server.url)
    assert live.measured == Accuracy(digest=compared.gate.quality.digest, images=1, wrong=())
    assert live.source == f"measured at {server.url} before the run"
    assert [seen.path for seen in server.seen] == ["/v1/models/digits-vit/versions/7:predict"]


def test_unhealthy_release_is_not_asked(compared, http_server):
    """The reason says why there is nothing to compare with."""
    server = http_server((200, THREE))
    live = evaluate_live(compared, {"version": 7}, Verdict.failed("wrong label"), server.url)
    assert (live.measured, live.source) == (None, "it could not be measured: wrong label")
    assert server.seen == []
