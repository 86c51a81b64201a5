"""Runs that make their own GKE cluster and delete it again: one whose gate passes, and one whose gate does not.

`airflow dags test`: the real operators and triggers in one process, Airflow's own trigger rules between them. Engine and
registry are real; Google is emulated and Kubernetes the stand's, or both are Google's: docs/gke.md, against a real project.
"""

import json
import subprocess
import sys
import uuid
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import yaml
from trial_project import copy_project, remove_images, trial_file

from local.google_project import read_google_project

from ..conftest import read_surroundings

MODEL = "brief"
EMULATED = ("slipway-stand", "us-central1-a", "brief")

pytestmark = pytest.mark.stand


class Ran(NamedTuple):
    """A run that has ended, and whether its cluster is there then."""

    code: int
    log: str
    record: dict[str, Any]
    there: bool


FIND = """
import sys
from slipway.target import GkeCluster
from slipway.gke import find_cluster
project, location, name = sys.argv[1:]
print(find_cluster("google_cloud_default", GkeCluster(project=project, location=location, name=name)) is not None)
"""


@pytest.fixture(scope="module")
def where(request, stand):
    """Project, location and cluster of these runs, and their environment: the emulator's, or a real project's."""
    real = read_google_project()
    if real is None:
        request.getfixturevalue("google")
        return SimpleNamespace(cluster=EMULATED, environment=read_surroundings(stand), limit_s=400)
    name = f"slipway-{uuid.uuid4().hex[:6]}"
    return SimpleNamespace(
        cluster=(real.project, real.location, name),
        environment=real.environment(read_surroundings(stand)),
        limit_s=3600,
    )


@pytest.fixture(scope="module")
def trial(where, tmp_path_factory, engine, kubectl):
    """A project with a model of temporary clusters; `trial(break_port=…)` runs its DAG: exit, log and record come back."""
    root = tmp_path_factory.mktemp("brief")
    project, location, name = where.cluster
    file = trial_file(
        target__gke={"project": project, "location": location, "cluster": name, "temporary": True},
        target__deployment="tfs-brief",
        gate__timeout_s=10 if where.limit_s < 3600 else 60,
    )
    copied = copy_project(root / "project", MODEL, file)
    overlay = copied / "include" / "manifests" / "overlays" / "local" / "kustomization.yaml"
    environment = {
        **where.environment,
        "AIRFLOW_HOME": str(root / "airflow"),
        "AIRFLOW_VAR_SLIPWAY_STORE": f"file://{root}/store",
        "AIRFLOW__CORE__DAGS_FOLDER": str(copied / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(copied / "plugins"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{root}/airflow.db",
        "PYTHONPATH": str(copied / "plugins"),
    }
    environment.pop("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC", None)

    def python(*words):
        return subprocess.run(
            [sys.executable, *words],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=where.limit_s,
        )

    def run(*, break_port=False):
        if break_port:  # the Service then points where nobody listens: pods are ready, and the gate is not answered
            patch = [{"op": "replace", "path": "/spec/ports/1/targetPort", "value": 8599}]
            broken = yaml.safe_load(overlay.read_text())
            broken["patches"].append({"target": {"kind": "Service"}, "patch": yaml.safe_dump(patch)})
            overlay.write_text(yaml.safe_dump(broken))
        before = set(root.glob("store/records/brief/*.json"))
        done = python("-m", "airflow", "dags", "test", "refresh_brief")
        [left] = set(root.glob("store/records/brief/*.json")) - before
        there = python("-c", FIND, *where.cluster).stdout.split()[-1]
        return Ran(done.returncode, done.stdout + done.stderr, json.loads(left.read_text()), there == "True")

    assert python("-m", "airflow", "db", "migrate").returncode == 0
    yield run
    kubectl("delete", "deployment,service,hpa,pdb,lease", "-l", f"slipway/model={MODEL}", "--wait=false")
    remove_images(engine, MODEL)


@pytest.fixture(scope="module")
def green(trial):
    """A run whose gate passes."""
    return trial()


@pytest.fixture(scope="module")
def red(green, trial):
    """The run after it, whose gate is not answered."""
    return trial(break_port=True)


def objects(kubectl):
    """The model's objects in the stand's Kubernetes."""
    return kubectl("get", "deployment,service,hpa,pdb", "-l", f"slipway/model={MODEL}", "-o", "name")


def test_proven_and_gone(green, kubectl):
    """The run is green, the gate has passed, and neither cluster nor object is there any more."""
    assert green.code == 0, green.log[-6000:]
    record = green.record
    assert (record["outcome"], record["objects"]) == ("proven", [])
    assert "3 of 3 rounds in a row passed" in record["verdicts"]["gate"]["reason"]
    assert record["tasks"]["delete_cluster"] == record["tasks"]["leftovers"] == "success"
    assert not green.there
    assert not objects(kubectl)


def test_red_at_the_gate_and_gone(red, kubectl):
    """The gate's failure is the run's, nothing is rolled back, and cluster and objects are gone all the same."""
    assert red.code != 0, red.log[-6000:]
    record = red.record
    assert record["outcome"] == "failed"
    assert (record["tasks"]["gate"], record["tasks"]["announce"]) == ("failed", "upstream_failed")
    assert (record["tasks"]["remove_objects"], record["tasks"]["delete_cluster"]) == ("success", "success")
    assert "rollback" not in record["tasks"]
    assert not red.there
    assert not objects(kubectl)


def test_each_run_makes_its_own(red):
    """The second run starts anew: what the first has proven is not live, and so nothing of it is taken over."""
    assert "plan: everything: a temporary cluster: everything is proven again" in red.log
    assert "made by this run" in red.record["verdicts"]["create_cluster"]["reason"]


def test_cluster_that_was_there_before_is_left_alone(red, trial, google):
    """Where somebody has a cluster of that name, the run is red before it makes anything, and the cluster stays."""
    project, location, name = EMULATED
    path = f"projects/{project}/locations/{location}/clusters/{name}"
    google("PUT", f"/clusters/{path}", {"status": "RUNNING"})
    calls = google("GET", "/state")["calls"]
    assert (calls["CreateCluster"], calls["DeleteCluster"]) == (2, 2)
    ran = trial()
    assert ran.code != 0
    assert "ClusterUnfit: cluster brief in slipway-stand, us-central1-a: was not made by this run" in ran.log
    assert (ran.record["tasks"]["claim_cluster"], ran.record["tasks"]["delete_cluster"]) == (
        "failed",
        "upstream_failed",
    )
    state = google("GET", "/state")
    assert state["clusters"][path]["status"] == "RUNNING"
    assert (state["calls"]["CreateCluster"], state["calls"]["DeleteCluster"]) == (2, 2)
