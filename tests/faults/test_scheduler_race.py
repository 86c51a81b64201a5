"""Airflow's scheduler mistakes deferrals of the waits for Google for failures: a cluster's creation and its teardown."""

import json
import time
from pathlib import Path

import pytest
from dag_run import Run
from scheduler_race import lose_deferrals, tries_repeated

MODEL, REFRESH, TEARDOWN = "digits-vit-gke", "refresh_digits_vit_gke", "teardown_digits_vit_gke"
TEARDOWNS = 3  # until no other test deploys to the same cluster meanwhile

pytestmark = [pytest.mark.stand, pytest.mark.faults, pytest.mark.google]


def record_of(stand, run):
    """The record of a run."""
    kept = Path(stand["store"].removeprefix("file://")) / "records" / MODEL
    return next(found for path in kept.glob("*.json") if (found := json.loads(path.read_text()))["run_id"] == run.id)


def tear_down(airflow_api):
    """The run that tore the cluster down, and the tries that it lost.

    A run is refused if another test deploys to the cluster after the approval. Then it is triggered again, as the refusal says.
    """
    for _ in range(TEARDOWNS):
        run = Run(airflow_api, TEARDOWN, with_others=True)
        lost = lose_deferrals(run.path, airflow_api, times=2)
        if run.end() == "success" or "added after the approval" not in run.log("remove_objects"):
            break
    return run, lost


@pytest.mark.usefixtures("every_wait_defers")
def test_the_waits_for_google_survive(google, stand, airflow_api, write_row):
    """A cluster is created and deleted; tries of each wait are lost, and two answers of the person who approves the teardown."""
    began_s = time.monotonic()
    refresh = Run(airflow_api, REFRESH, force=True)  # an earlier test may have left the release live
    lost = lose_deferrals(refresh.path, airflow_api, times=2, only={"create_cluster"})
    assert (refresh.end(), lost) == ("success", {"create_cluster": 2})
    counted = {"create_cluster": record_of(stand, refresh)["verdicts"]["create_cluster"]["lost_tries"]}
    assert counted == tries_repeated(refresh.path, airflow_api, lost)
    teardown, lost = tear_down(airflow_api)
    # After the first lost try of its deletion the cluster is gone: the second one finds that at once.
    assert (teardown.end(), lost) == ("success", {"approve": 2, "remove_objects": 2, "delete_cluster": 1})
    record = record_of(stand, teardown)
    assert (record["outcome"], record["objects"]) == ("gone", [])
    assert google("GET", "/state")["clusters"] == {}
    write_row(
        "the scheduler takes deferrals of the waits for Google for failures",
        "the cluster is created, and deleted after the third yes",
        good_s=time.monotonic() - began_s,
    )
