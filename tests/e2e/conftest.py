"""Fixtures of the tests on the stand: a refresh through the scheduler, and one task by task on workers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from trial_project import remove_images, trial_file
from workers import TASKS, Workers

PROJECT = Path(__file__).parents[2]
REFRESH_LIMIT_S = 3600


def run_refresh(*words):
    """`python3 -m local refresh`, as a person types it."""
    command = [sys.executable, "-m", "local", "refresh", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT, timeout=REFRESH_LIMIT_S)


@pytest.fixture(scope="session")
def refresh():
    """The command, for tests that give it more arguments: `refresh("digits-vit", "--param", "overlay=local")`."""
    return run_refresh


@pytest.fixture(scope="session")
def refreshed(request, stand, airflow_api):
    """One run of the shipped model's DAG through the scheduler and the triggerer, from Airflow's API: the demo's if there is one."""
    if any("demos" in item.fixturenames for item in request.session.items):
        request.getfixturevalue("demos")
    else:
        done = run_refresh("digits-vit", "--force")  # the model may be live on this stand already
        assert done.returncode == 0, done.stdout + done.stderr
    runs = airflow_api("/dags/refresh_digits_vit/dagRuns?order_by=-run_after&limit=1")["dag_runs"]
    return {"run": runs[0]}


@pytest.fixture(scope="session")
def record(stand, refreshed):
    """The record that the refresh left."""
    folder = Path(stand["store"].removeprefix("file://")) / "records" / "digits-vit"
    records = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return next(found for found in records if found["run_id"] == refreshed["run"]["dag_run_id"])


@pytest.fixture(scope="session")
def trial(tmp_path_factory, surroundings, kubectl, engine):
    """A whole refresh of a trial model, task by task on workers of their own; what it applied is removed afterwards."""
    remove_images(engine, "trial")
    workers = Workers(tmp_path_factory.mktemp("workers"), surroundings, "trial", trial_file())
    for task_id in TASKS:
        workers.run(task_id)
    yield workers
    workers.warm.end()
    kubectl("delete", "deployment,service,hpa,pdb,configmap,lease", "-l", "slipway/model=trial", "--wait=false")
    remove_images(engine, "trial")
