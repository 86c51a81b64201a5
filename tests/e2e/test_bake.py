"""A bake through the scheduler: a release that is watched and counts as good, and one that its servers' metrics bring back."""

import json

import pytest
from dag_run import Run
from stand_model import stand_model

pytestmark = [pytest.mark.stand, pytest.mark.slow]

FOR_S = 20
BAKE = {"for_s": FOR_S, "every_s": 2, "p95_ms": 60_000}
TOO_STRICT = {**BAKE, "for_s": 600, "p95_ms": 0.1, "max_slowdown": 100}  # no server decodes an image within 0.1 ms


@pytest.fixture(scope="module")
def baked(stand, kubectl, engine, airflow_api):
    """A model whose releases are watched; `live()` is the release id in its Deployment."""
    with stand_model("baked", stand, kubectl, engine, airflow_api, gate__bake=BAKE) as trial:
        trial.live = lambda: json.loads(kubectl("get", "deployment/tfs-baked", "-o", "json"))["metadata"]["labels"][
            "slipway/release"
        ]
        yield trial


def test_a_release_that_was_watched_is_live(baked, airflow_api):
    """The bake lasts as long as the model file says, and counts the requests that the pod answered meanwhile."""
    run = Run(airflow_api, baked.dag)
    assert run.end() == "success", run.log("bake")
    [record] = baked.records()
    bake = record["verdicts"]["bake"]
    assert (record["outcome"], bake["outcome"], record["tasks"]["bake"]) == ("live", "pass", "success")
    measured = bake["measured"]
    print(bake["reason"], json.dumps(measured))
    assert measured["rounds"] >= 3
    assert measured["wrong"] == measured["missed"] == 0
    servers = measured["servers"]
    assert servers["answered"] >= 6 * (
        measured["rounds"] - 1
    )  # three cases over REST and gRPC; the first look counts none
    assert (servers["errors"], servers["pods"], servers["restarts"]) == (0, 1, 0)
    assert servers["mean_ms"] <= servers["p95_within_ms"]
    assert baked.live() == record["release_id"]


def test_a_release_beyond_its_limit_is_taken_back(baked, airflow_api):
    """Its gate passes; its servers' own metrics are beyond the objective: the release before serves again, and the record says why."""
    before = baked.live()
    baked.write(gate__bake=TOO_STRICT, export__top_k=2)
    run = Run(airflow_api, baked.dag)
    assert run.end() == "failed"
    states = run.states()
    assert [states[task] for task in ("gate", "bake", "announce", "rollback")] == [
        "success", "failed", "upstream_failed", "success",
    ]  # fmt: skip
    record = next(one for one in reversed(baked.records()) if one["run_id"] == run.id)
    bake = record["verdicts"]["bake"]
    print(bake["reason"], json.dumps(bake["measured"]))
    assert record["release_id"] != before
    assert "the next step that the servers count above the limit of 0.1 ms" in bake["reason"]
    assert (record["outcome"], record["bad"]) == ("failed", {"task": "bake", "reason": bake["reason"]})
    assert bake["measured"]["servers"]["p95_within_ms"] > 0.1
    assert bake["measured"]["before"]["release"] == before
    assert bake["measured"]["before"]["answered"] > 0
    assert (record["undo"]["action"], record["undo"]["release"], baked.live()) == ("restore", before, before)
