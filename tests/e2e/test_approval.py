"""A person decides if the gate's result is inconclusive, through the scheduler."""

import pytest
from dag_run import Run
from inconclusive_model import inconclusive_model

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
