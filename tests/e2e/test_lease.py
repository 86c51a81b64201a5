"""Runs that want one target at once, through the scheduler: a refresh, another installation, and a rollback that breaks the Lease."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from dag_run import until
from trial_project import rendered_again

PROJECT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("worker.py")
LIMIT_S = 3600

pytestmark = pytest.mark.stand


def trigger(airflow_api, dag, **conf):
    """Start a run; its path in the API."""
    airflow_api(f"/dags/{dag}?update_mask=is_paused", "PATCH", {"is_paused": False})
    made = airflow_api(f"/dags/{dag}/dagRuns", "POST", {"logical_date": None, "conf": conf})
    return f"/dags/{dag}/dagRuns/{made['dag_run_id']}"


def end_of(airflow_api, path):
    """Wait for a run's end: its state, and those of its tasks."""
    until(lambda: airflow_api(path)["state"] in {"success", "failed"}, f"{path} has ended", LIMIT_S)
    tasks = airflow_api(f"{path}/taskInstances")["task_instances"]
    return airflow_api(path)["state"], {task["task_id"]: task["state"] for task in tasks}


def plan_elsewhere(record, surroundings, root):
    """Run `plan` for the same release in another installation: an Airflow and a store of its own."""
    store = f"file://{root}/store"
    (root / "facts.json").write_text(json.dumps({"resolve": rendered_again(record["release"], store=store)}))
    own = {"AIRFLOW_HOME": str(root / "airflow"), "AIRFLOW_VAR_SLIPWAY_STORE": store}
    return subprocess.run(
        [sys.executable, WORKER, PROJECT, "refresh_digits_vit", "plan", "elsewhere__1", root / "facts.json"],
        env={**surroundings, **own}, capture_output=True, text=True, check=False, timeout=LIMIT_S,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(record, surroundings_now, airflow_api, kubectl, stand, tmp_path_factory):  # noqa: PLR0917 - one of each
    """A forced refresh; while it builds, the plan of another installation, and a rollback that breaks the refresh's Lease."""
    refresh = trigger(airflow_api, "refresh_digits_vit", force=True)
    run_id = refresh.rsplit("/", 1)[-1]

    def held():
        found = kubectl(
            "get", "lease", "slipway-tfs-server", "--ignore-not-found", "-o", "jsonpath={.spec.holderIdentity}"
        )
        return found if found.endswith(run_id) else None

    until(held, "the refresh holds the Lease", LIMIT_S)
    elsewhere = plan_elsewhere(record, surroundings_now, tmp_path_factory.mktemp("elsewhere"))
    rollback = trigger(airflow_api, "rollback_digits_vit", release=record["release_id"], break_lease=True)
    ends = {"rollback": end_of(airflow_api, rollback), "refresh": end_of(airflow_api, refresh)}
    folder = Path(stand["store"].removeprefix("file://")) / "records" / "digits-vit"
    records = {found["run_id"]: found for found in (json.loads(path.read_text()) for path in folder.glob("*.json"))}
    return SimpleNamespace(
        refresh=run_id, elsewhere=elsewhere, ends=ends, records=records, rollback=rollback.rsplit("/", 1)[-1]
    )


def test_another_installation_learns_the_holder_and_the_end(runs, airflow_api):
    """Its plan fails in one line with the holder, the end and the command that breaks the Lease; it begins no build."""
    assert runs.elsewhere.returncode != 0
    named = airflow_api("/variables/slipway_installation")["value"]  # set by its first run
    assert re.search(
        rf"TargetBusy: lease/slipway-tfs-server in \S+: held by run {re.escape(runs.refresh)} of refresh_digits_vit "
        rf"\(installation {named}\), until 20\S+\. Next: .*airflow dags trigger refresh_digits_vit --conf "
        r"'\{\"break_lease\": true\}'",
        runs.elsewhere.stderr,
    )


def test_the_run_that_breaks_the_lease_succeeds(runs, record):
    """The rollback is green, and its record names whose Lease it broke."""
    assert runs.ends["rollback"][0] == "success"
    back = runs.records[runs.rollback]
    assert (back["outcome"], back["release_id"]) == ("live", record["release_id"])
    assert back["lease"]["broke"].startswith(f"run {runs.refresh} of refresh_digits_vit (installation ")


def test_the_run_that_lost_the_lease_applies_and_rolls_back_nothing(runs):
    """The refresh fails at its next task without a retry, has applied nothing, and skips its rollback."""
    state, tasks = runs.ends["refresh"]
    lost = runs.records[runs.refresh]
    assert (state, tasks["apply"]) == ("failed", "upstream_failed")
    [red] = [task for task, ended in tasks.items() if ended == "failed"]
    assert red in {"export", "build_image", "smoke_test", "push", "preview"}  # whichever began next
    assert lost["verdicts"][red]["reason"].startswith("LeaseLost: lease/slipway-tfs-server in ")
    assert (lost["outcome"], lost["objects"], lost["bad"], lost["undo"]) == ("failed", [], None, None)
    assert tasks["rollback"] == "skipped"


def test_the_rollbacks_release_serves_and_no_lease_is_left(runs, record, kubectl):
    """The Deployment has the release of the rollback; both runs have ended, and neither left a Lease."""
    labels = json.loads(kubectl("get", "deployment/tfs-server", "-o", "json"))["metadata"]["labels"]
    assert labels["slipway/release"] == record["release_id"]
    assert "slipway-tfs-server" not in kubectl("get", "leases", "-o", "name")
