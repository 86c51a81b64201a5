"""Runs that make their own GKE cluster and delete it again: one whose gate passes, and one whose gate does not.

`airflow dags test`: the real operators and triggers in one process, Airflow's own trigger rules between them. Google is
emulated, engine, registry and Kubernetes are real.
"""

import json
import subprocess
import sys

import pytest
import yaml
from trial_project import copy_project, remove_images, trial_file

MODEL = "brief"
CLUSTER = "projects/slipway-stand/locations/us-central1-a/clusters/brief"
RUN_LIMIT_S = 400

pytestmark = pytest.mark.stand


@pytest.fixture(scope="module")
def trial(google, surroundings, tmp_path_factory, engine, kubectl):
    """A project with a model of temporary clusters; `trial(break_port=…)` runs its DAG: exit, log and record come back."""
    root = tmp_path_factory.mktemp("brief")
    file = trial_file(
        target__gke={"cluster": "brief", "temporary": True}, target__deployment="tfs-brief", gate__timeout_s=10
    )
    file["target"].pop("conn_id", None)
    project = copy_project(root / "project", MODEL, file)
    overlay = project / "include" / "manifests" / "overlays" / "local" / "kustomization.yaml"
    environment = {
        **surroundings,
        "AIRFLOW_HOME": str(root / "airflow"),
        "AIRFLOW_VAR_SLIPWAY_STORE": f"file://{root}/store",
        "AIRFLOW__CORE__DAGS_FOLDER": str(project / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(project / "plugins"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{root}/airflow.db",
    }
    environment.pop("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC", None)

    def airflow(*words):
        return subprocess.run(
            [sys.executable, "-m", "airflow", *words],
            env=environment, check=False, capture_output=True, text=True, timeout=RUN_LIMIT_S,
        )  # fmt: skip

    def run(*, break_port=False):
        if break_port:  # the Service then points where nobody listens: pods are ready, and the gate is not answered
            patch = [{"op": "replace", "path": "/spec/ports/1/targetPort", "value": 8599}]
            broken = yaml.safe_load(overlay.read_text())
            broken["patches"].append({"target": {"kind": "Service"}, "patch": yaml.safe_dump(patch)})
            overlay.write_text(yaml.safe_dump(broken))
        before = set(root.glob("store/records/brief/*.json"))
        done = airflow("dags", "test", "refresh_brief")
        [left] = set(root.glob("store/records/brief/*.json")) - before
        return done.returncode, done.stdout + done.stderr, json.loads(left.read_text())

    assert airflow("db", "migrate").returncode == 0
    yield run
    kubectl("delete", "deployment,service,hpa,pdb", "-l", f"slipway/model={MODEL}", "--wait=false")
    remove_images(engine, MODEL)


@pytest.fixture(scope="module")
def green(trial):
    """A run whose gate passes."""
    return trial()


@pytest.fixture(scope="module")
def red(green, trial):
    """The run after it, whose gate is not answered."""
    return trial(break_port=True)


def nothing_is_left(google, kubectl):
    """Neither the cluster nor an object of the model."""
    left = kubectl("get", "deployment,service,hpa,pdb", "-l", f"slipway/model={MODEL}", "-o", "name")
    return CLUSTER not in google("GET", "/state")["clusters"] and not left


def test_proven_and_gone(green, google, kubectl):
    """The run is green, the gate has passed, and neither cluster nor object is there any more."""
    code, log, record = green
    assert code == 0, log[-6000:]
    assert (record["outcome"], record["objects"]) == ("proven", [])
    assert "3 of 3 rounds in a row passed" in record["verdicts"]["gate"]["reason"]
    assert record["tasks"]["delete_cluster"] == record["tasks"]["leftovers"] == "success"
    assert nothing_is_left(google, kubectl)


def test_red_at_the_gate_and_gone(red, google, kubectl):
    """The gate's failure is the run's, nothing is rolled back, and cluster and objects are gone all the same."""
    code, log, record = red
    assert code != 0, log[-6000:]
    assert record["outcome"] == "failed"
    assert (record["tasks"]["gate"], record["tasks"]["announce"]) == ("failed", "upstream_failed")
    assert (record["tasks"]["remove_objects"], record["tasks"]["delete_cluster"]) == ("success", "success")
    assert "rollback" not in record["tasks"]
    assert nothing_is_left(google, kubectl)


def test_each_run_makes_its_own(red, google):
    """The second run starts anew: what the first has proven is not live, and so nothing of it is taken over."""
    _, log, _ = red
    assert "plan: everything: a temporary cluster: everything is proven anew" in log
    assert google("GET", "/state")["calls"]["CreateCluster"] == 2
    assert google("GET", "/state")["calls"]["DeleteCluster"] == 2


def test_cluster_that_was_there_before_is_left_alone(red, trial, google):
    """Where somebody has a cluster of that name, the run is red before it makes anything, and the cluster stays."""
    google("PUT", f"/clusters/{CLUSTER}", {"status": "RUNNING"})
    calls = google("GET", "/state")["calls"]["DeleteCluster"]
    code, log, record = trial()
    assert code != 0
    assert "ClusterUnfit: cluster brief in slipway-stand, us-central1-a: was not made by this run" in log
    assert (record["tasks"]["claim_cluster"], record["tasks"]["delete_cluster"]) == ("failed", "upstream_failed")
    assert google("GET", "/state")["clusters"][CLUSTER]["status"] == "RUNNING"
    assert google("GET", "/state")["calls"]["DeleteCluster"] == calls
