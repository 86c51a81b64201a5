"""A person decides if the gate's result is inconclusive, or on every release, through the scheduler."""

import pytest
from dag_run import Run
from inconclusive_model import inconclusive_model
from trial_project import PROJECT

pytestmark = pytest.mark.stand


@pytest.fixture(scope="module")
def inconclusive(stand, kubectl, engine, airflow_api):
    """A model whose gate is inconclusive while these tests run."""
    with inconclusive_model("inconclusive", stand, kubectl, engine, airflow_api, gate__ask_timeout_s=3) as trial:
        yield trial


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


@pytest.fixture(scope="module")
def always(stand, kubectl, engine, airflow_api):
    """A model whose gate passes, and whose file asks a person for every release."""
    labelled = PROJECT / "include" / "served" / "asked-always.csv"
    names = {"three": 3, "seven": 7, "eight": 8}
    rows = [f"digits-vit/golden/{name}.png,{label}" for name, label in names.items()]
    labelled.write_text("\n".join(["image,label", *rows, ""]))
    rules = {
        "gate__approval": "always",
        "gate__latency_ms": None,
        "gate__quality": {"set": labelled.name, "min_top1": 0.5},
        "gate__ask_timeout_s": 600,
    }
    try:
        with inconclusive_model("asked-always", stand, kubectl, engine, airflow_api, **rules) as trial:
            yield trial
    finally:
        labelled.unlink()


def test_every_release_needs_a_persons_yes(always, airflow_api, kubectl):
    """A release whose gate passed is not applied if a person rejects it; after a yes it is live, and the record says whose."""
    live = ("get", "deployment", "-l", f"slipway/model={always.model}", "-o", "name")
    rejected = Run(airflow_api, always.dag)
    shown = rejected.answer("Reject")
    assert "The gate passed." in shown["body"]
    assert "quality: not compared with the live release: there is no live release" in shown["body"]
    assert rejected.end() == "failed"
    states = rejected.states()
    assert (states["preview_gate"], states["approve"], states["apply"]) == ("success", "failed", "upstream_failed")
    record = always.records()[-1]
    assert (record["outcome"], record["bad"]["task"]) == ("failed", "approve")
    assert record["verdicts"]["approve"]["reason"].startswith(
        "GateFailed: the gate passed, but admin rejected it. Next: "
    )
    assert kubectl(*live) == ""

    approved = Run(airflow_api, always.dag)
    approved.answer("Approve")
    assert approved.end() == "success"
    record = always.records()[-1]
    assert (record["outcome"], record["run_id"]) == ("live", approved.id)
    assert {gate: record["verdicts"][gate]["outcome"] for gate in ("preview_gate", "gate")} == {
        "preview_gate": "pass",
        "gate": "pass",
    }
    assert record["verdicts"]["approve"]["reason"].startswith("admin approved it at ")

    again = Run(airflow_api, always.dag, force=True)
    shown = again.answer("Reject")
    assert "quality: 3 of 3 correct, the live release 3 (measured by run " in shown["body"]
    assert "95 of 100 answers within " in shown["body"]
    assert again.end() == "failed"
    assert "approve" not in {task for task, state in again.states().items() if state == "success"}
    assert f"deployment.apps/tfs-{always.model}" in kubectl(*live)
