"""A person decides if the gate's result is inconclusive, through the scheduler."""

import pytest
from dag_run import Run
from inconclusive_model import inconclusive_model

pytestmark = pytest.mark.stand


@pytest.fixture(scope="module")
def doubt(stand, kubectl, engine, airflow_api):
    """A model whose gate is inconclusive while these tests run."""
    with inconclusive_model("doubt", stand, kubectl, engine, airflow_api, gate__ask_timeout_s=3) as trial:
        yield trial


def test_no_answer_means_no(doubt, airflow_api, kubectl):
    """If nobody answers in time, the run is red before anything was applied, the preview is gone, and the record says why."""
    run = Run(airflow_api, doubt.dag)
    assert run.end() == "failed"
    states = run.states()
    assert (states["preview_gate"], states["approve"], states["apply"]) == ("success", "failed", "upstream_failed")
    [record] = doubt.records()
    said = "GateFailed: the gate's result was inconclusive, and nobody answered within 3 s, which means no. Next: "
    assert record["verdicts"]["approve"]["reason"].startswith(said)
    assert (record["outcome"], record["bad"]["task"]) == ("failed", "approve")
    assert kubectl("get", "deployment,service,hpa,pdb", "-l", f"slipway/model={doubt.model}", "-o", "name") == ""


def test_approved_release_replaces_the_live_one(doubt, airflow_api):
    """An inconclusive gate asks with what it measured; an approval lets the release replace the live one, and the record names the person."""
    doubt.write(gate__ask_timeout_s=600)
    run = Run(airflow_api, doubt.dag)
    shown = run.answer("Approve")
    assert run.end() == "success"
    record = doubt.records()[-1]
    assert "limit 1 ms, 3 times in a row" in shown["body"]
    assert shown["subject"] == "Is version 1 of doubt good enough?"
    assert record["outcome"] == "live"
    for gate in ("preview_gate", "gate"):
        assert record["verdicts"][gate]["outcome"] == "inconclusive"
        assert record["verdicts"][gate]["measured"]["latency_ms"] > 1
    assert record["verdicts"]["approve"]["reason"].startswith("admin approved it at ")
