"""A bake through the scheduler: releases that are watched and count as good, and a slower one that its servers' metrics bring back.

The tests run in order. The limits are the same for all releases; the bake's golden requests are the load.
"""

import json
import shutil

import pytest
from dag_run import Run
from stand_model import stand_model
from test_story import nudge
from trial_project import PROJECT

from benchmarks.wider import widen

pytestmark = [pytest.mark.stand, pytest.mark.slow]

MODEL, FOR_S = "baked", 20
BAKE = {"for_s": FOR_S, "every_s": 2, "p95_ms": 60_000, "max_slowdown": 2, "max_more_errors": 0.1}
HIDDEN_UNITS = 196608  # the shipped checkpoint has 192


@pytest.fixture(scope="module")
def baked(stand, kubectl, engine, airflow_api):
    """A model whose releases are watched; `checkpoint` is its own, `live()` the release id in its Deployment."""
    served = PROJECT / "include" / "served"
    folder = served / MODEL
    shutil.copytree(served / "digits-vit" / "checkpoint", folder / "checkpoint")
    own = {"source__folder": f"{MODEL}/checkpoint", "gate__bake": BAKE}
    try:
        with stand_model(MODEL, stand, kubectl, engine, airflow_api, **own) as trial:
            trial.checkpoint = folder / "checkpoint"
            trial.live = lambda: json.loads(kubectl("get", f"deployment/tfs-{MODEL}", "-o", "json"))["metadata"][
                "labels"
            ]["slipway/release"]
            yield trial
    finally:
        shutil.rmtree(folder)


def released(baked, airflow_api, *, ends):
    """A refresh that ends like this: its run, its record, and what the bake measured of the release's servers."""
    run = Run(airflow_api, baked.dag)
    assert run.end() == ends, run.log("bake")
    record = next(one for one in reversed(baked.records()) if one["run_id"] == run.id)
    bake = record["verdicts"]["bake"]
    print(bake["reason"], json.dumps(bake["measured"]))
    return run, record, bake["measured"]


def test_1_a_release_that_was_watched_is_live(baked, airflow_api):
    """The bake lasts as long as the model file says, and counts the requests that the pod answered meanwhile."""
    _, record, measured = released(baked, airflow_api, ends="success")
    assert (record["outcome"], record["tasks"]["bake"]) == ("live", "success")
    assert record["verdicts"]["bake"]["outcome"] == "pass"
    assert "not compared with the release before" in record["verdicts"]["bake"]["reason"]
    assert measured["rounds"] >= 3
    assert measured["wrong"] == measured["missed"] == 0
    servers = measured["servers"]
    # Three cases over REST and gRPC; the first look counts none.
    assert servers["answered"] >= 6 * (measured["rounds"] - 1)
    assert (servers["errors"], servers["pods"], servers["restarts"]) == (0, 1, 0)
    assert servers["mean_ms"] <= servers["p95_within_ms"]
    assert baked.live() == record["release_id"]


def test_2_a_release_as_fast_as_the_one_before_is_live(baked, airflow_api):
    """It is compared with that one's answer times and errors, and is within the limits."""
    before = baked.live()
    nudge(baked.checkpoint / "model.safetensors", "classifier/bias:0")
    _, record, measured = released(baked, airflow_api, ends="success")
    assert record["outcome"] == "live"
    assert baked.live() == record["release_id"] != before
    assert (measured["before"]["release"], measured["before"]["errors"]) == (before, 0)
    assert f"times that of release {before}, at most 3 times allowed" in record["verdicts"]["bake"]["reason"]
    assert f"and 0 of {measured['before']['answered']} of release {before}" in record["verdicts"]["bake"]["reason"]


def test_3_a_slower_release_is_taken_back(baked, airflow_api):
    """The same answers, by a heavier model: its gates pass, the bake does not. The release before serves again, and the record says why."""
    before = baked.live()
    widen(baked.checkpoint, HIDDEN_UNITS)
    run, record, measured = released(baked, airflow_api, ends="failed")
    states = run.states()
    assert [states[task] for task in ("gate", "bake", "announce", "rollback")] == [
        "success", "failed", "upstream_failed", "success",
    ]  # fmt: skip
    reason = record["verdicts"]["bake"]["reason"]
    assert record["release_id"] != before
    assert f"times that of release {before}, at most 3 times allowed" in reason
    assert (record["outcome"], record["bad"]) == ("failed", {"task": "bake", "reason": reason})
    assert measured["before"]["release"] == before
    assert measured["servers"]["mean_ms"] > 3 * measured["before"]["mean_ms"]
    assert (record["undo"]["action"], record["undo"]["release"], baked.live()) == ("restore", before, before)
