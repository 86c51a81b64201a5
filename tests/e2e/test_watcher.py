"""A new commit on the Hub starts a refresh: the watcher in the triggerer, the run through the scheduler."""

import json
import shutil
from pathlib import Path

import pytest
from dag_run import until
from hub_stub import REPO, REVISION, Hub
from stand_model import stand_model
from test_story import nudge

from local.parts.checkout import supervisor
from local.programs.supervision import start, stop
from local.settings import settings_here

COMMIT = "2b4d" * 10

pytestmark = [pytest.mark.stand, pytest.mark.slow]


def restart_airflow():
    """Start the scheduler and the triggerer again, with the environment that is written now."""
    programs = supervisor(settings_here())
    stop(programs, "scheduler", "triggerer")
    start(programs, "scheduler", "triggerer")


@pytest.fixture(scope="module")
def hub_of_the_stand(stand):
    """A Hub without a model, which the stand's Airflow asks until the tests end."""
    hub, environment = Hub(), Path(stand["airflow"]["environment_file"])
    good = environment.read_text()
    try:
        environment.write_text(f"{good}export HF_ENDPOINT={hub.url}\n")
        restart_airflow()
        yield hub
    finally:
        environment.write_text(good)
        restart_airflow()
        hub.close()


def test_each_commit_is_released(hub_of_the_stand, stand, kubectl, engine, airflow_api, digits_checkpoint, tmp_path):  # noqa: PLR0917 (fixtures)
    """Nobody triggers anything: the first commit that the watcher sees goes live, and so does the next one."""
    source = {"source": {"hub": REPO}, "watch": {"poll_s": 10}}
    with stand_model("watched", stand, kubectl, engine, airflow_api, **source) as model:
        airflow_api(f"/dags/{model.dag}?update_mask=is_paused", "PATCH", {"is_paused": False})

        def ended():
            runs = airflow_api(f"/dags/{model.dag}/dagRuns?order_by=run_after")["dag_runs"]
            return [run for run in runs if run["state"] in {"success", "failed"}]

        def live():
            labels = json.loads(kubectl("get", "deployment/tfs-watched", "-o", "json"))["metadata"]["labels"]
            return labels["slipway/release"], labels["slipway/version"]

        hub_of_the_stand.add(digits_checkpoint)
        [run] = until(ended, "the first commit is released")
        [record] = model.records()
        assert (run["state"], run["run_type"]) == ("success", "asset_triggered")
        assert (record["outcome"], record["release"]["source"]["revision"]) == ("live", REVISION)
        assert live() == (record["release_id"], "1")

        changed = tmp_path / "changed"
        shutil.copytree(digits_checkpoint, changed)
        nudge(changed / "model.safetensors", "classifier/bias:0")
        hub_of_the_stand.add(changed, commit=COMMIT)
        run = until(lambda: ended()[1:], "the second commit is released")[0]
        record = model.records()[-1]
        assert (run["state"], run["run_type"], run["dag_run_id"]) == ("success", "asset_triggered", record["run_id"])
        assert (record["outcome"], record["release"]["source"]["revision"]) == ("live", COMMIT)
        assert live() == (record["release_id"], "2")
