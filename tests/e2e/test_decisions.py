"""Who decides on a release, through the scheduler: a person, the accuracy on a labelled set, or nobody because it is scheduled."""

import json

import pytest
from dag_run import ENDED, Run, until
from stand_model import stand_model
from trial_project import PROJECT

pytestmark = pytest.mark.stand

# Limits for a set of which two of three images are classified correctly; the upper end of the 95 % interval is 0.94.
PASSES, IN_DOUBT, FAILS = 0.5, 0.9, 0.95


@pytest.fixture(scope="module")
def inconclusive(stand, kubectl, engine, airflow_api):
    """A model whose gate is always inconclusive: no server meets its latency limit."""
    rules = {"gate__latency_ms": 1, "gate__ask_timeout_s": 3}
    with stand_model("inconclusive", stand, kubectl, engine, airflow_api, **rules) as trial:
        yield trial


@pytest.mark.slow
def test_no_answer_means_no(inconclusive, airflow_api, kubectl):
    """If nobody answers in time, the run fails before it applies anything, the preview is deleted, and the record says why."""
    run = Run(airflow_api, inconclusive.dag)
    assert run.end() == "failed"
    states = run.states()
    assert (states["preview_gate"], states["approve"], states["apply"]) == ("success", "failed", "upstream_failed")
    [record] = inconclusive.records()
    reason = "GateFailed: the gate's result was inconclusive, and nobody answered within 3 s, which means no. Next: "
    assert record["verdicts"]["approve"]["reason"].startswith(reason)
    assert (record["outcome"], record["bad"]["task"]) == ("failed", "approve")
    assert kubectl("get", "deployment,service,hpa,pdb", "-l", f"slipway/model={inconclusive.model}", "-o", "name") == ""


def test_approved_release_replaces_the_live_one(inconclusive, airflow_api):
    """The approval shows what the gate measured; once it is approved, the release replaces the live one, and the record names the person."""
    inconclusive.write(gate__ask_timeout_s=600)
    run = Run(airflow_api, inconclusive.dag)
    shown = run.answer("Approve")
    assert run.end() == "success"
    record = inconclusive.records()[-1]
    assert "limit 1 ms, 3 times in a row" in shown["body"]
    assert shown["subject"] == "Is version 1 of inconclusive good enough?"
    assert record["outcome"] == "live"
    for gate in ("preview_gate", "gate"):
        assert record["verdicts"][gate]["outcome"] == "inconclusive"
        assert record["verdicts"][gate]["measured"]["latency_ms"] > 1
    assert record["verdicts"]["approve"]["reason"].startswith("admin approved it at ")


def release_of(deployment):
    """The release id in the labels of a Deployment in JSON; None if there is no Deployment."""
    return json.loads(deployment)["metadata"]["labels"]["slipway/release"] if deployment else None


@pytest.fixture(scope="module")
def labelled(stand, kubectl, engine, airflow_api):
    """A model with a labelled set, one of its three labels wrong: `limit(min_top1, **changes)` writes its file."""
    labels = PROJECT / "include" / "served" / "labelled.csv"
    names = {"three": 3, "seven": 7, "eight": 3}
    rows = [f"digits-vit/golden/{name}.png,{label}" for name, label in names.items()]
    labels.write_text("\n".join(["image,label", *rows, ""]))
    quality = {"set": labels.name, "min_top1": PASSES}
    try:
        with stand_model("labelled", stand, kubectl, engine, airflow_api, gate__quality=quality) as trial:
            trial.limit = lambda limit, **changes: trial.write(gate__quality={**quality, "min_top1": limit}, **changes)
            trial.live = lambda: release_of(
                kubectl("get", "deployment/tfs-labelled", "--ignore-not-found", "-o", "json")
            )
            yield trial
    finally:
        labels.unlink()


@pytest.mark.slow
def test_every_release_needs_a_persons_yes(labelled, airflow_api):
    """A release whose gate passed goes live after a person's yes, and the record says whose; a no leaves the live one as it is."""
    labelled.limit(PASSES, gate__approval="always", gate__ask_timeout_s=600)
    approved = Run(airflow_api, labelled.dag)
    approved.wait("approve", "awaiting_input")
    assert labelled.live() is None
    shown = approved.answer("Approve")
    assert "The gate passed." in shown["body"]
    assert "quality: not compared with the live release: there is no live release" in shown["body"]
    assert approved.end() == "success"
    live = labelled.records()[-1]
    assert (live["outcome"], live["run_id"], labelled.live()) == ("live", approved.id, live["release_id"])
    assert {gate: live["verdicts"][gate]["outcome"] for gate in ("preview_gate", "gate")} == {
        "preview_gate": "pass",
        "gate": "pass",
    }
    assert live["verdicts"]["approve"]["reason"].startswith("admin approved it at ")

    labelled.limit(PASSES, gate__approval="always", gate__ask_timeout_s=600, gate__passes=2)
    rejected = Run(airflow_api, labelled.dag)
    shown = rejected.answer("Reject")
    assert "quality: 2 of 3 correct, the live release 2 (measured by run " in shown["body"]
    assert "95 of 100 answers within " in shown["body"]
    assert rejected.end() == "failed"
    states = rejected.states()
    assert (states["preview_gate"], states["approve"], states["apply"]) == ("success", "failed", "upstream_failed")
    record = labelled.records()[-1]
    assert (record["outcome"], record["bad"]["task"]) == ("failed", "approve")
    assert record["verdicts"]["approve"]["reason"].startswith(
        "GateFailed: the gate passed, but admin rejected it. Next: "
    )
    assert labelled.live() == live["release_id"]


@pytest.mark.slow
def test_accuracy_decides(labelled, airflow_api):
    """Too low an accuracy fails the run; a person decides if chance can explain it; else the gate passes. It is judged anew each time."""
    live = labelled.live()
    labelled.limit(FAILS)
    failing = Run(airflow_api, labelled.dag)
    assert failing.end() == "failed"
    record = labelled.records()[-1]
    assert record["bad"]["task"] == "preview_gate"
    assert (
        "quality: 2 of 3 images classified correctly (0.6667), at least 0.95 required, upper 95 % bound 0.93"
        in record["bad"]["reason"]
    )
    assert (failing.states()["apply"], labelled.live()) == ("upstream_failed", live)

    labelled.limit(IN_DOUBT, gate__ask_timeout_s=600)
    in_doubt = Run(airflow_api, labelled.dag)
    assert (
        "quality: 2 of 3 images classified correctly (0.6667), at least 0.9 required, upper 95 % bound 0.93"
        in in_doubt.answer("Approve")["body"]
    )
    assert in_doubt.end() == "success"
    record = labelled.records()[-1]
    assert (record["outcome"], record["verdicts"]["preview_gate"]["outcome"]) == ("live", "inconclusive")
    assert record["verdicts"]["approve"]["reason"].startswith("admin approved it at ")

    labelled.limit(PASSES)
    passing = Run(airflow_api, labelled.dag)
    assert passing.end() == "success"
    record = labelled.records()[-1]
    assert (record["outcome"], record["verdicts"]["preview_gate"]["outcome"]) == ("live", "pass")
    assert ("approve" in record["verdicts"], labelled.live()) == (False, live)


@pytest.mark.slow  # as the two before it, which leave the live release that it needs
def test_schedule_tries_a_bad_release_once(labelled, airflow_api):
    """A scheduled run that meets a bad release fails; the next ones do nothing; once the cause is mended, the schedule releases again."""
    live, before = labelled.live(), len(labelled.records())
    runs = f"/dags/{labelled.dag}/dagRuns"

    def scheduled():
        return airflow_api(f"{runs}?run_type=scheduled&order_by=run_after")["dag_runs"]

    earlier = {run["dag_run_id"] for run in scheduled()}

    def ended():
        return [run for run in scheduled() if run["dag_run_id"] not in earlier and run["state"] in ENDED]

    labelled.limit(1.0, schedule="* * * * *")
    met, after = until(lambda: ended()[1:] and ended()[:2], "two scheduled runs ended")
    [record] = labelled.records()[before:]
    assert (met["state"], record["run_id"], record["bad"]["task"]) == ("failed", met["dag_run_id"], "preview_gate")
    assert (after["state"], labelled.live()) == ("success", live)
    plan = airflow_api(f"{runs}/{after['dag_run_id']}/taskInstances/plan/xcomEntries/return_value?deserialize=true")
    assert plan["value"]["action"] == "nothing"
    reasons = str(plan["value"]["reasons"])
    assert "is bad: preview_gate: " in reasons
    assert "the schedule does not try it again until it changes" in reasons

    labelled.limit(0.6, schedule="* * * * *")
    until(
        lambda: [one for one in labelled.records()[before + 1 :] if one["outcome"] != "open"],
        "a scheduled run releases again",
    )
    labelled.limit(0.6)
    until(lambda: not airflow_api(f"{runs}?state=running")["dag_runs"], "no run is left")
    [record] = labelled.records()[before + 1 :]
    assert (record["outcome"], record["run_id"].partition("_")[0], labelled.live()) == ("live", "scheduled", live)
