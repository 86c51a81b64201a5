"""What befalls a run in the stand's own Airflow: processes of it die, people mark it."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from road import eventually, read_json

from local.parts import checkout
from local.programs.supervision import pids
from local.settings import settings_here

DAG = "refresh_digits_vit"
RUN_LIMIT_S = 300
PICTURE = "include/served/digits-vit/golden/seven.png"

pytestmark = [pytest.mark.stand, pytest.mark.faults, pytest.mark.alone]


class Runs:
    """Runs of the shipped model's DAG through the scheduler."""

    def __init__(self, ask, stand, kubectl):
        self.ask, self.stand, self.kubectl = ask, stand, kubectl
        self.records = Path(stand["store"].removeprefix("file://")) / "records" / "digits-vit"

    def start(self, **conf):
        """Trigger; the run's path in the API."""
        run = self.ask(f"/dags/{DAG}/dagRuns", "POST", {"conf": conf, "logical_date": None})
        self.run_id = run["dag_run_id"]
        return f"/dags/{DAG}/dagRuns/{self.run_id}"

    def reaches(self, path, task, *states):
        """Wait until a task is in one of these states."""

        def state():
            return self.ask(f"{path}/taskInstances/{task}")["state"] in states

        eventually(state, seconds=RUN_LIMIT_S, what=f"{task} {states}")

    def ends(self, path):
        """The state that the run ends in."""

        def state():
            found = self.ask(path)["state"]
            return found if found in {"success", "failed"} else None

        return eventually(state, seconds=RUN_LIMIT_S, what="the run's end")

    def record(self):
        """The newest run's record."""
        found = [json.loads(path.read_text()) for path in self.records.glob("[!.]*.json")]
        return next(one for one in found if (one["run_id"], one["cause"]) == (self.run_id, "refresh"))

    def asked(self):
        """Address, path and image of a request for the model."""
        service = json.loads(self.kubectl("get", "service/tfs-server", "-o", "json"))
        address = f"http://{service['status']['loadBalancer']['ingress'][0]['ip']}:8501"
        return address, "/v1/models/digits-vit:predict", settings_here().checkout / PICTURE

    def serves(self):
        """The version that the public address says is available, and the Deployment's release."""
        labels = json.loads(self.kubectl("get", "deployment/tfs-server", "-o", "json"))["metadata"]["labels"]
        said = read_json(f"{self.asked()[0]}/v1/models/digits-vit/versions/{labels['slipway/version']}")
        assert said["model_version_status"][0]["state"] == "AVAILABLE"
        return labels["slipway/release"]


@pytest.fixture(scope="module")
def runs(airflow_api, stand, kubectl):
    """Runs on a model that is live."""
    runs = Runs(airflow_api, stand, kubectl)
    airflow_api(f"/dags/{DAG}", "PATCH", {"is_paused": False})
    assert runs.ends(runs.start()) == "success"
    return runs


def test_the_triggerer_is_killed_while_everything_waits(runs, tell):
    """A wait goes on in the triggerer that comes after the dead one, and the run ends as if nothing had been."""
    path = runs.start(force=True)
    runs.reaches(path, "wait_for_rollout", "deferred")
    os.kill(pids(checkout.supervisor(settings_here()))["triggerer"], signal.SIGKILL)
    began_s = time.monotonic()
    assert runs.ends(path) == "success"
    assert runs.record()["outcome"] == "live"
    assert runs.serves() == runs.record()["release_id"]
    tell("triggerer killed while everything waits", "the run goes on and is live", good_s=time.monotonic() - began_s)


def test_a_workers_process_group_is_killed(runs, tell):
    """A task whose processes are killed from outside is tried again by Airflow itself, and its exporter has ended with it."""
    path = runs.start(force=True)
    runs.reaches(path, "export", "running")
    exporter = eventually(exporters, seconds=60, what="an exporter")[0]
    task = parent_of(exporter)
    os.kill(task, signal.SIGKILL)
    eventually(lambda: exporter not in exporters(), seconds=10, what="the exporter's end")
    began_s = time.monotonic()
    assert runs.ends(path) == "success"
    assert runs.record()["outcome"] == "live"
    assert runs.serves() == runs.record()["release_id"]
    tell("the process of `export` killed in Airflow", "tried again by itself, live", good_s=time.monotonic() - began_s)


@pytest.mark.parametrize(
    ("mark", "task"), [("failed", "wait_for_rollout"), ("success", "wait_for_rollout"), ("success", "gate")]
)
def test_a_person_marks_the_run(runs, tell, mark, task):
    """A run that a person ends in the middle is red whatever the person called it: its teardowns bring back what served, and record it."""
    good, path = runs.serves(), runs.start(force=True)
    runs.reaches(path, task, "deferred")
    runs.ask(path, "PATCH", {"state": mark})
    began_s = time.monotonic()
    assert runs.ends(path) == "failed"
    record = runs.record()
    assert (record["outcome"], record["cause"]) == ("failed", "refresh")
    assert record["tasks"] | {"announce": "skipped", "rollback": "success"} == record["tasks"]
    assert runs.serves() == good
    tell(
        f"a person marks the run {mark} during `{task}`",
        "the release before it serves, gated again; the run is red",
        good_s=time.monotonic() - began_s,
    )


def exporters():
    """Process ids of exporters of this checkout."""
    own = f"{settings_here().checkout}/include/model/export.py"
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if own in words:
            found.append(int(place.name))
    return found


def parent_of(pid):
    """The process that started one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
