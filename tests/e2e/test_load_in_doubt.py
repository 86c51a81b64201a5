"""Loads through the scheduler: a load test that follows a release, and a load gate in doubt, on which a person decides."""

import json
import urllib.error
from pathlib import Path

import pytest
from dag_run import ENDED, Run, until
from stand_model import stand_model

MODEL = "doubtful"
LOAD_TEST = {"rates_per_s": [2], "closed_users": [], "step_s": 5, "settle_s": 1, "after_release": True}
LOAD = {"rate_per_s": 4, "max_slowdown": 1.0, "rounds": 3, "step_s": 5, "settle_s": 1}
FREEZE = "kill -STOP $(cat /proc/1/task/1/children)"  # the server is the only child of the image's entrypoint

pytestmark = [pytest.mark.stand, pytest.mark.slow]


@pytest.fixture(scope="module")
def doubtful(stand, kubectl, engine, airflow_api):
    """A model whose releases are loaded, at the preview next to the live release, and once more after each release."""
    fields = {"gate__load": LOAD, "gate__ask_timeout_s": 600, "load_test": LOAD_TEST}
    with stand_model(MODEL, stand, kubectl, engine, airflow_api, **fields) as trial:
        trial.deployment = lambda: json.loads(kubectl("get", f"deployment/tfs-{MODEL}", "-o", "json"))
        yield trial


@pytest.fixture(scope="module")
def live(doubtful, airflow_api):
    """The record of the first release. Its load test may start by itself."""
    set_paused(airflow_api, is_paused=False)
    first = Run(airflow_api, doubtful.dag)
    assert first.end() == "success", first.log("preview_load")
    [record] = doubtful.records()
    assert record["verdicts"]["preview_load"]["outcome"] == "pass"
    return record


def set_paused(airflow_api, *, is_paused):
    """Whether the DAG of the load test starts by itself; Airflow may not know it yet."""

    def is_set():
        try:
            return airflow_api(f"/dags/load_test_{MODEL}?update_mask=is_paused", "PATCH", {"is_paused": is_paused})
        except urllib.error.HTTPError:
            return None

    until(is_set, f"Airflow knows load_test_{MODEL}")


def test_a_load_test_follows_the_release(live, airflow_api, stand):
    """The release's Asset event starts it, and its figures are kept with the release."""

    def ended():
        runs = airflow_api(f"/dags/load_test_{MODEL}/dagRuns?order_by=-run_after&limit=1")["dag_runs"]
        return runs if runs and runs[0]["state"] in ENDED else None

    [run] = until(ended, "the load test that the release starts has ended")
    set_paused(airflow_api, is_paused=True)
    assert (run["run_type"], run["state"]) == ("asset_triggered", "success")
    store = Path(stand["store"].removeprefix("file://"))
    found = [json.loads(file.read_text()) for file in store.glob(f"loads/{MODEL}/{live['release_id']}/*/load.json")]
    assert [one["version"] for one in found if one["steps"][0]["name"] == "2/s"] == [live["version"]]


def test_a_person_decides_if_the_live_release_does_not_answer(doubtful, live, airflow_api, kubectl):
    """The person sees why nothing was compared; once approved, the release goes live, and the record names both."""
    kubectl("exec", f"deployment/tfs-{MODEL}", "--", "sh", "-c", FREEZE)
    until(lambda: not doubtful.deployment()["status"].get("readyReplicas"), "the live pod is not ready")

    doubtful.write(export__top_k=2)
    run = Run(airflow_api, doubtful.dag)
    shown = run.answer("Approve")
    why = (
        f"load: not compared with the live release: version {live['version']} did not answer: the API server: HTTP 503"
    )
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
