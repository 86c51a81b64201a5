"""A person's word where the gate is in doubt, through the scheduler."""

import pytest
from dag_run import Run
from doubtful import doubtful

pytestmark = pytest.mark.stand


@pytest.fixture(scope="module")
def doubt(stand, kubectl, engine, airflow_api):
    """A model of which the gate is in doubt while these tests run."""
    with doubtful("doubt", stand, kubectl, engine, airflow_api, gate__ask_timeout_s=3) as trial:
        yield trial


def test_silence_means_no(doubt, airflow_api, kubectl):
    """Nobody answers in time: the run is red before anything was applied, the preview is gone, and the record says why."""
    run = Run(airflow_api, doubt.dag)
    assert run.end() == "failed"
    states = run.states()
    assert (states["preview_gate"], states["approve"], states["apply"]) == ("success", "failed", "upstream_failed")
    [record] = doubt.records()
    said = "GateFailed: the gate was in doubt, and nobody answered within 3 s, which means no. Next: "
    assert record["verdicts"]["approve"]["reason"].startswith(said)
    assert (record["outcome"], record["bad"]["task"]) == ("failed", "approve")
    assert kubectl("get", "deployment,service,hpa,pdb", "-l", f"slipway/model={doubt.model}", "-o", "name") == ""


def test_a_person_lets_a_release_pass(doubt, airflow_api):
    """A gate in doubt asks with what it found; a yes lets the release replace the live one, and the record says whose it was."""
    doubt.write(gate__ask_timeout_s=600)
    run = Run(airflow_api, doubt.dag)
    shown = run.answer("Approve")
    assert run.end() == "success"
    record = doubt.records()[-1]
    assert "1 promised, 3 times in a row" in shown["body"]
    assert shown["subject"] == "Is version 1 of doubt good enough?"
    assert record["outcome"] == "live"
    for gate in ("preview_gate", "gate"):
        assert record["verdicts"][gate]["outcome"] == "inconclusive"
        assert record["verdicts"][gate]["measured"]["latency_ms"] > 1
    assert record["verdicts"]["approve"]["reason"].startswith("admin said yes at ")
