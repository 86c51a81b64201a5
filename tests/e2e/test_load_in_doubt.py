"""A load gate in doubt, through the scheduler: the live release does not answer, so a person decides on the one that follows it."""

import json

import pytest
from dag_run import Run, until
from stand_model import stand_model

MODEL = "doubtful"
LOAD = {"rate_per_s": 4, "max_slowdown": 1.0, "rounds": 3, "step_s": 5, "settle_s": 1}
FREEZE = "kill -STOP $(cat /proc/1/task/1/children)"  # the server is the only child of the image's entrypoint

pytestmark = [pytest.mark.stand, pytest.mark.slow]


@pytest.fixture(scope="module")
def doubtful(stand, kubectl, engine, airflow_api):
    """A model whose previews are loaded next to the live release; a person is asked if they cannot be compared."""
    with stand_model(MODEL, stand, kubectl, engine, airflow_api, gate__load=LOAD, gate__ask_timeout_s=600) as trial:
        trial.deployment = lambda: json.loads(kubectl("get", f"deployment/tfs-{MODEL}", "-o", "json"))
        yield trial


def test_a_person_decides_if_the_live_release_does_not_answer(doubtful, airflow_api, kubectl):
    """The person sees why nothing was compared; once approved, the release goes live, and the record names both."""
    first = Run(airflow_api, doubtful.dag)
    assert first.end() == "success", first.log("preview_load")
    [live] = doubtful.records()
    assert live["verdicts"]["preview_load"]["outcome"] == "pass"
    kubectl("exec", f"deployment/tfs-{MODEL}", "--", "sh", "-c", FREEZE)
    until(lambda: not doubtful.deployment()["status"].get("readyReplicas"), "the live pod is not ready")

    doubtful.write(export__top_k=2)
    run = Run(airflow_api, doubtful.dag)
    shown = run.answer("Approve")
    why = f"load: not compared with the live release: version {live['version']} answered HTTP 503"
    assert why in shown["body"]
    assert doubtful.deployment()["metadata"]["labels"]["slipway/release"] == live["release_id"]
    assert run.end() == "success", run.log("gate")

    record = doubtful.records()[-1]
    found, labels = record["verdicts"]["preview_load"], doubtful.deployment()["metadata"]["labels"]
    assert (record["outcome"], found["outcome"]) == ("live", "inconclusive")
    assert why in found["reason"]
    assert [(one["at"], one["errors"]) for one in found["measured"]["load"]["rounds"]] == [("release", {})] * LOAD[
        "rounds"
    ]
    assert record["verdicts"]["preview_gate"]["outcome"] == record["verdicts"]["gate"]["outcome"] == "pass"
    assert record["verdicts"]["approve"]["reason"].startswith("admin approved it at ")
    assert record["release_id"] == labels["slipway/release"] != live["release_id"]
