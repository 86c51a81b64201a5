"""Two runs that want one target, through the scheduler: a refresh that builds, another installation, and a rollback that breaks in."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from dag_run import until

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
    """The plan of the same release in another installation: an Airflow and a store of its own."""
    store = f"file://{root}/store"
    (root / "facts.json").write_text(json.dumps({"resolve": {**record["release"], "store": store}}))
    own = {"AIRFLOW_HOME": str(root / "airflow"), "AIRFLOW_VAR_SLIPWAY_STORE": store}
    return subprocess.run(
        [sys.executable, WORKER, PROJECT, "refresh_digits_vit", "plan", "elsewhere__1", root / "facts.json"],
        env={**surroundings, **own}, capture_output=True, text=True, check=False, timeout=LIMIT_S,
    )  # fmt: skip


@pytest.fixture(scope="module")
def met(record, surroundings_now, airflow_api, kubectl, stand, tmp_path_factory):  # noqa: PLR0917 - one of each
    """A forced refresh that builds; what another installation is told meanwhile; and a rollback that breaks its Lease."""
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


def test_another_installation_is_told_who_and_until_when(met, airflow_api):
    """Its plan ends in one line with the holder, the time and the one command; a build beside another is not begun."""
    assert met.elsewhere.returncode != 0
    named = airflow_api("/variables/slipway_installation")["value"]  # which its own first run has made up
    assert re.search(
        rf"TargetBusy: lease/slipway-tfs-server in \S+: held by run {re.escape(met.refresh)} of refresh_digits_vit "
        rf"\(installation {named}\), until 20\S+\. Next: .*airflow dags trigger refresh_digits_vit --conf "
        r"'\{\"break_lease\": true\}'",
        met.elsewhere.stderr,
    )


def test_the_one_that_breaks_in_goes_through_and_says_so(met, record):
    """The rollback is green, and its record names whose Lease it broke."""
    assert met.ends["rollback"][0] == "success"
    back = met.records[met.rollback]
    assert (back["outcome"], back["release_id"]) == ("live", record["release_id"])
    assert back["lease"]["broke"].startswith(f"run {met.refresh} of refresh_digits_vit (installation ")


def test_the_one_that_lost_it_writes_and_undoes_nothing(met):
    """The refresh is red at its next task without a second try, has applied nothing, and its rollback stays out of the way."""
    state, tasks = met.ends["refresh"]
    lost = met.records[met.refresh]
    assert (state, tasks["apply"]) == ("failed", "upstream_failed")
    [red] = [task for task, ended in tasks.items() if ended == "failed"]
    assert red in {"export", "build_image", "smoke_test", "push", "preview"}  # whichever began next
    assert lost["verdicts"][red]["reason"].startswith("LeaseLost: lease/slipway-tfs-server in ")
    assert (lost["outcome"], lost["objects"], lost["bad"], lost["undo"]) == ("failed", [], None, None)
    assert tasks["rollback"] == "skipped"


def test_what_serves_is_the_breakers_and_no_lease_is_left(met, record, kubectl):
    """The Deployment is of the release that came back; both runs are done, and neither left its Lease."""
    labels = json.loads(kubectl("get", "deployment/tfs-server", "-o", "json"))["metadata"]["labels"]
    assert labels["slipway/release"] == record["release_id"]
    assert "slipway-tfs-server" not in kubectl("get", "leases", "-o", "name")
