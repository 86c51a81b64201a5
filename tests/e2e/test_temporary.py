"""Runs that make their own GKE cluster and delete it again: one whose gate passes, and one whose gate does not.

`airflow dags test`: the real operators and triggers in one process, Airflow's own trigger rules between them. Engine and
registry are real; Google is emulated and Kubernetes the stand's, or both are Google's: docs/gke.md, against a real project.
"""

import json
import uuid
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import yaml
from fixtures.stand import read_surroundings
from own_airflow import OwnAirflow
from trial_project import copy_project, remove_images, trial_file
from warm import GOOGLE

from local.google_project import read_google_project

MODEL = "brief"
EMULATED = ("slipway-stand", "us-central1-a", "brief")

pytestmark = [pytest.mark.stand, pytest.mark.google, pytest.mark.slow]


class Ran(NamedTuple):
    """A finished run, and whether its cluster still exists."""

    code: int
    log: str
    record: dict[str, Any]
    there: bool


FIND = """
import sys
plugins, project, location, name = sys.argv[1:]
sys.path.insert(0, plugins)
from slipway.target import GkeCluster
from slipway.gke.lookup import find_cluster
print(find_cluster("google_cloud_default", GkeCluster(project=project, location=location, name=name)) is not None)
"""


@pytest.fixture(scope="module")
def where(request, stand):
    """Project, location and cluster of these runs, and their environment: the emulator's, or a real project's."""
    real = read_google_project()
    if real is None:
        request.getfixturevalue("google")
        return SimpleNamespace(cluster=EMULATED, environment=read_surroundings(stand), given_up_s=10)
    name = f"slipway-{uuid.uuid4().hex[:6]}"
    return SimpleNamespace(
        cluster=(real.project, real.location, name),
        environment=real.environment(read_surroundings(stand)),
        given_up_s=60,
    )


@pytest.fixture(scope="module")
def trial(where, tmp_path_factory, engine, kubectl):
    """A project whose model has a temporary cluster; `trial(break_port=…)` runs its DAG and returns a Ran."""
    root = tmp_path_factory.mktemp("brief")
    project, location, name = where.cluster
    file = trial_file(
        target__gke={"project": project, "location": location, "cluster": name, "temporary": True},
        target__deployment="tfs-brief",
    )
    copied = copy_project(root / "project", MODEL, file)
    overlay = copied / "include" / "manifests" / "overlays" / "local" / "kustomization.yaml"
    airflow = OwnAirflow(root, copied, where.environment, *GOOGLE)
    find = root / "find.py"
    find.write_text(FIND)

    def run(*, break_port=False):
        if (
            break_port
        ):  # the Service then points at a port where nothing listens: pods are ready, and the gate gets no answer
            file["gate"]["timeout_s"] = where.given_up_s
            (copied / "include" / "served" / f"{MODEL}.yaml").write_text(yaml.safe_dump(file))
            patch = [{"op": "replace", "path": "/spec/ports/1/targetPort", "value": 8599}]
            broken = yaml.safe_load(overlay.read_text())
            broken["patches"].append({"target": {"kind": "Service"}, "patch": yaml.safe_dump(patch)})
            overlay.write_text(yaml.safe_dump(broken))
        before = set(root.glob("store/records/brief/*.json"))
        code, log = airflow.command("dags", "test", "refresh_brief")
        [left] = set(root.glob("store/records/brief/*.json")) - before
        found = airflow.python(find, copied / "plugins", *where.cluster)
        return Ran(code, log, json.loads(left.read_text()), found.stdout.split()[-1] == "True")

    yield run
    airflow.end()
    kubectl("delete", "deployment,service,hpa,pdb,configmap,lease", "-l", f"slipway/model={MODEL}", "--wait=false")
    remove_images(engine, MODEL)


@pytest.fixture(scope="module")
def green(trial):
    """A run whose gate passes."""
    return trial()


@pytest.fixture(scope="module")
def red(green, trial):
    """The run after it, whose gate gets no answer."""
    return trial(break_port=True)


def objects(kubectl):
    """The model's objects in the stand's Kubernetes."""
    return kubectl("get", "deployment,service,hpa,pdb", "-l", f"slipway/model={MODEL}", "-o", "name")


def test_proven_and_gone(green, kubectl):
    """The run is green, the gate has passed, and cluster and objects are gone."""
    assert green.code == 0, (green.record["verdicts"], green.log[-6000:])
    record = green.record
    assert (record["outcome"], record["objects"]) == ("proven", [])
    assert "3 of 3 rounds in a row passed" in record["verdicts"]["gate"]["reason"]
    assert record["tasks"]["delete_cluster"] == record["tasks"]["leftovers"] == "success"
    assert not green.there
    assert not objects(kubectl)


def test_red_at_the_gate_and_gone(red, kubectl):
    """The gate's failure fails the run; nothing is rolled back; cluster and objects are gone nevertheless."""
    record = red.record
    assert red.code != 0, record["verdicts"]
    assert record["outcome"] == "failed"
    assert (record["tasks"]["gate"], record["tasks"]["announce"]) == ("failed", "upstream_failed"), record["verdicts"]
    assert (record["tasks"]["remove_objects"], record["tasks"]["delete_cluster"]) == ("success", "success")
    assert "rollback" not in record["tasks"]
    assert not red.there
    assert not objects(kubectl)


def test_each_run_makes_its_own(red):
    """The second run proves everything again: what the first run proved is not live."""
    assert "plan: everything: a temporary cluster: everything is proven again" in red.log
    assert "created by this run" in red.record["verdicts"]["create_cluster"]["reason"]


def test_cluster_that_was_there_before_is_left_alone(red, trial, google):
    """If a cluster of that name exists already, the run is red before it makes anything, and the cluster is kept."""
    project, location, name = EMULATED
    path = f"projects/{project}/locations/{location}/clusters/{name}"
    google("PUT", f"/clusters/{path}", {"status": "RUNNING"})
    calls = google("GET", "/state")["calls"]
    assert (calls["CreateCluster"], calls["DeleteCluster"]) == (2, 2)
    ran = trial()
    assert ran.code != 0
    assert "ClusterUnfit: cluster brief in slipway-stand, us-central1-a: was not created by this run" in ran.log
    assert (ran.record["tasks"]["claim_cluster"], ran.record["tasks"]["delete_cluster"]) == (
        "failed",
        "upstream_failed",
    )
    state = google("GET", "/state")
    assert state["clusters"][path]["status"] == "RUNNING"
    assert (state["calls"]["CreateCluster"], state["calls"]["DeleteCluster"]) == (2, 2)
