"""Faults of runs in the stand's own Airflow: its processes are killed, and a person marks a run."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from debris import read_json
from fixtures.stand import parse_again
from refresh_runs import WAIT_S, eventually
from scheduler_race import lose_deferrals, tries_repeated

from local.parts import checkout
from local.programs.supervision import pids
from local.settings import settings_here

DAG = "refresh_digits_vit"
PICTURE = "include/served/digits-vit/golden/seven.png"
OVERLAY = "faults-airflow"
WAITS = ("wait_for_preview", "preview_gate", "wait_for_rollout", "wait_for_address", "gate")

pytestmark = [pytest.mark.stand, pytest.mark.faults]


class Runs:
    """Runs of the shipped model's DAG through the scheduler."""

    def __init__(self, ask, stand, kubectl):
        self.ask, self.stand, self.kubectl = ask, stand, kubectl
        self.records = Path(stand["store"].removeprefix("file://")) / "records" / "digits-vit"
        self.overlay = settings_here().checkout / "include" / "manifests" / "overlays" / OVERLAY

    def write_overlay(self):
        """Write the overlay `local` with other pods than before: a new release that needs no export."""
        env = [{"name": "ROUND", "value": uuid4().hex}]
        pods = {"template": {"spec": {"containers": [{"name": "tfs-k8s", "env": env}]}}}
        patch = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "tfs-server"}, "spec": pods}
        self.overlay.mkdir(exist_ok=True)
        (self.overlay / "deployment.yaml").write_text(yaml.safe_dump(patch))
        kustomization = {"resources": ["../local"], "patches": [{"path": "deployment.yaml"}]}
        (self.overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))

    def offers_overlay(self):
        """Whether the DAG's form offers the overlay."""
        return OVERLAY in json.dumps(self.ask(f"/dags/{DAG}/details")["params"])

    def start(self, **conf):
        """Trigger a run; its path in the API."""
        run = self.ask(f"/dags/{DAG}/dagRuns", "POST", {"conf": conf, "logical_date": None})
        self.run_id = run["dag_run_id"]
        return f"/dags/{DAG}/dagRuns/{self.run_id}"

    def start_new_release(self):
        """Trigger a run of a release that did not exist before; its path in the API."""
        self.write_overlay()
        return self.start(overlay=OVERLAY)

    def reaches(self, path, task, *states):
        """Wait until a task is in one of these states."""

        def state():
            return self.ask(f"{path}/taskInstances/{task}")["state"] in states

        eventually(state, seconds=WAIT_S, what=f"{task} {states}", every_s=0.5)

    def ends(self, path):
        """Wait until the run has ended; its state."""

        def state():
            found = self.ask(path)["state"]
            return found if found in {"success", "failed"} else None

        return eventually(state, seconds=WAIT_S, what="the end of the run", every_s=1)

    def record(self):
        """The newest run's record."""
        found = [json.loads(path.read_text()) for path in self.records.glob("[!.]*.json")]
        return next(one for one in found if (one["run_id"], one["cause"]) == (self.run_id, "refresh"))

    def load_target(self):
        """Address, path and image for requests to the model."""
        service = json.loads(self.kubectl("get", "service/tfs-server", "-o", "json"))
        address = f"http://{service['status']['loadBalancer']['ingress'][0]['ip']}:8501"
        return address, "/v1/models/digits-vit:predict", settings_here().checkout / PICTURE

    def serves(self):
        """The Deployment's release; the public address reports its version as available."""
        labels = json.loads(self.kubectl("get", "deployment/tfs-server", "-o", "json"))["metadata"]["labels"]
        status = read_json(f"{self.load_target()[0]}/v1/models/digits-vit/versions/{labels['slipway/version']}")
        assert status["model_version_status"][0]["state"] == "AVAILABLE"
        return labels["slipway/release"]


@pytest.fixture(scope="module")
def runs(airflow_api, every_wait_defers, stand, kubectl):
    """Runs of a model that is live, and an overlay that only these tests know."""
    runs = Runs(airflow_api, stand, kubectl)
    airflow_api(f"/dags/{DAG}", "PATCH", {"is_paused": False})
    runs.write_overlay()
    parse_again(airflow_api)
    try:
        assert runs.ends(runs.start()) == "success"
        eventually(runs.offers_overlay, seconds=WAIT_S, what=f"the form offers {OVERLAY}", every_s=1)
        yield runs
    finally:
        shutil.rmtree(runs.overlay)


def test_the_triggerer_is_killed_during_a_wait(runs, write_row):
    """The next triggerer continues the wait, and the run ends as if nothing had happened."""
    path = runs.start_new_release()
    runs.reaches(path, "wait_for_rollout", "deferred")
    os.kill(pids(checkout.supervisor(settings_here()))["triggerer"], signal.SIGKILL)
    began_s = time.monotonic()
    assert runs.ends(path) == "success"
    assert runs.record()["outcome"] == "live"
    assert runs.serves() == runs.record()["release_id"]
    write_row(
        "triggerer killed during `wait_for_rollout`", "the run continues and is live", good_s=time.monotonic() - began_s
    )


def test_the_process_of_export_is_killed(runs, write_row):
    """Airflow itself retries a task whose process is killed; the exporter has ended with it."""
    path = runs.start(force=True)
    runs.reaches(path, "export", "running")
    exporter = eventually(exporters, seconds=WAIT_S, what="an exporter")[0]
    task = parent_of(exporter)
    os.kill(task, signal.SIGKILL)
    eventually(lambda: exporter not in exporters(), seconds=10, what="the exporter's end")
    began_s = time.monotonic()
    assert runs.ends(path) == "success"
    assert runs.record()["outcome"] == "live"
    assert runs.serves() == runs.record()["release_id"]
    write_row("the process of `export` killed in Airflow", "retried by itself, live", good_s=time.monotonic() - began_s)


@pytest.mark.parametrize(
    ("mark", "task"), [("failed", "wait_for_rollout"), ("success", "wait_for_rollout"), ("success", "gate")]
)
def test_a_person_marks_the_run(runs, write_row, mark, task):
    """A run that a person ends early is red, whatever the mark: its teardowns roll back to what served, and record it."""
    good, path = runs.serves(), runs.start_new_release()
    runs.reaches(path, task, "deferred")
    runs.ask(path, "PATCH", {"state": mark})
    began_s = time.monotonic()
    assert runs.ends(path) == "failed"
    record = runs.record()
    assert (record["outcome"], record["cause"]) == ("failed", "refresh")
    assert record["tasks"] | {"announce": "skipped", "rollback": "success"} == record["tasks"]
    assert runs.serves() == good
    write_row(
        f"a person marks the run {mark} during `{task}`",
        "the release before it serves and has passed its gate again; the run is red",
        good_s=time.monotonic() - began_s,
    )


def test_the_scheduler_mistakes_deferrals_for_failures(runs, write_row):
    """Airflow loses two tries of every wait: the release is live, nothing is undone, and the record counts the lost tries."""
    path = runs.start_new_release()
    began_s = time.monotonic()
    lost = lose_deferrals(path, runs.ask, times=2)
    record = runs.record()
    assert runs.ask(path)["state"] == "success"
    assert {task: lost[task] for task in WAITS if task in record["verdicts"]} == dict.fromkeys(
        set(WAITS) & set(lost), 2
    )
    counted = {task: record["verdicts"][task].get("lost_tries", 0) for task in lost}
    assert counted == tries_repeated(path, runs.ask, lost)
    assert (record["outcome"], record["tasks"]["rollback"], record.get("undo")) == ("live", "skipped", None)
    assert runs.serves() == record["release_id"]
    write_row(
        f"the scheduler takes {lost.total()} deferrals of one run for failures",
        "each wait is repeated, live; the record counts the lost tries",
        good_s=time.monotonic() - began_s,
    )


def test_the_scheduler_mistakes_the_rollbacks_deferrals_for_failures(runs, write_row):
    """Airflow loses three tries of the rollback: the release before serves, and has passed its gate again."""
    good, path = runs.serves(), runs.start_new_release()
    runs.reaches(path, "wait_for_rollout", "deferred")
    runs.ask(path, "PATCH", {"state": "failed"})
    began_s = time.monotonic()
    lost = lose_deferrals(path, runs.ask, times=3, only={"rollback"})
    record = runs.record()
    assert (runs.ask(path)["state"], lost["rollback"]) == ("failed", 3)
    assert (record["outcome"], record["tasks"]["rollback"]) == ("failed", "success")
    assert runs.serves() == good
    write_row(
        "the scheduler takes three deferrals of `rollback` for failures",
        "the release before it serves and has passed its gate again",
        good_s=time.monotonic() - began_s,
    )


def exporters():
    """Process ids of this checkout's exporters."""
    own = f"{settings_here().checkout}/include/model/export.py"
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if own in words:
            found.append(int(process.name))
    return found


def parent_of(pid):
    """The id of the parent process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
