"""The teardown of a GKE model through the scheduler: refused, rejected and approved; then the next refresh.

Google is emulated; the objects, and the finalizer in place of a load balancer, are in the real Kubernetes. If the environment
names a Google project (docs/gke.md), everything is Google's, and the tests tear down what `test_gke.py` made.
"""

import json
import time
from types import SimpleNamespace

import pytest
from dag_run import Run, until

MODEL, REFRESH, DAG = "digits-vit-gke", "refresh_digits_vit_gke", "teardown_digits_vit_gke"
CLUSTER = "projects/slipway-stand/locations/us-central1-a/clusters/tfs-cluster"
OBJECTS = "deployment,service,hpa,pdb"
FINALIZER = "service.kubernetes.io/load-balancer-cleanup"

# alone: the approved list must not grow meanwhile, and other tests make previews in the same namespace.
pytestmark = [pytest.mark.stand, pytest.mark.google, pytest.mark.alone, pytest.mark.slow]


@pytest.fixture(scope="module")
def live(request, gke, refresh, stand):
    """The model, live on an existing cluster; the folder of its records."""
    if gke["emulator"]:
        pool = {"name": "default-pool", "initialNodeCount": 2, "config": {"machineType": "n1-standard-8"}}
        google = request.getfixturevalue("google")
        google("PUT", f"/clusters/{CLUSTER}", {"status": "RUNNING", "nodePools": [pool]})
    done = refresh(MODEL)
    assert done.returncode == 0, done.stdout + done.stderr
    return SimpleNamespace(records=stand["store"].removeprefix("file://") + f"/records/{MODEL}")


@pytest.fixture(scope="module")
def approved(live, gke, request):
    """An approved teardown: the run, its final state, and what the person was shown."""
    if gke["emulator"]:
        return request.getfixturevalue("kept")
    run = Run(request.getfixturevalue("airflow_api"), DAG, with_others=True)
    shown = run.answer("Approve")
    return SimpleNamespace(run=run, state=run.end(), shown=shown)


@pytest.fixture(scope="module")
def kept(live, google, airflow_api, kubectl):
    """The same with a load balancer whose deletion takes time, and what was seen while it kept the Service."""
    kubectl("patch", f"service/{MODEL}", "--type=merge", "-p", json.dumps({"metadata": {"finalizers": [FINALIZER]}}))
    uid = json.loads(kubectl("get", f"service/{MODEL}", "-o", "json"))["metadata"]["uid"]
    rule = {"name": f"a{uid.replace('-', '')}"[:32], "IPAddress": "203.0.113.7"}
    google("PUT", "/residue", {"forwardingRules": {"regions/us-central1": [rule]}})
    run = Run(airflow_api, DAG, with_others=True)
    shown = run.answer("Approve")
    try:
        run.wait("remove_objects", "deferred")
        until(lambda: not kubectl("get", "deployment", "-l", f"slipway/model={MODEL}", "-o", "name"), "Deployment gone")
        time.sleep(6)  # at least one poll of the trigger
        seen = {"states": run.states(), "calls": google("GET", "/state")["calls"]}
    finally:
        kubectl("patch", f"service/{MODEL}", "--type=merge", "-p", '{"metadata": {"finalizers": null}}', check=False)
    state = run.end()
    return SimpleNamespace(run=run, state=state, shown=shown, seen=seen, rule=rule["name"])


def test_refused_if_something_else_may_run_there(live, google, airflow_api, kubectl):
    """The account may list only its own namespace: the run is red before it asks a person, and nothing is deleted."""
    run = Run(airflow_api, DAG)
    assert run.end() == "failed"
    assert run.states()["look"] == "failed"
    assert run.states()["remove_objects"] == "upstream_failed"
    assert "ClusterInUse: cluster tfs-cluster in slipway-stand, us-central1-a: " in run.log("look")
    assert "DeleteCluster" not in google("GET", "/state")["calls"]


def test_nothing_is_deleted_if_rejected(live, google, airflow_api, kubectl):
    """A rejected run is red; the cluster and every object are unchanged."""
    before = kubectl(
        "get", OBJECTS, "-l", f"slipway/model={MODEL}", "-o", "jsonpath={.items[*].metadata.resourceVersion}"
    )
    run = Run(airflow_api, DAG, with_others=True)
    run.answer("Reject")
    assert run.end() == "failed"
    states = run.states()
    assert (states["approve"], states["remove_objects"], states["record"]) == ("failed", "upstream_failed", "success")
    found = kubectl("get", OBJECTS, "-l", f"slipway/model={MODEL}", "-o", "name").split()
    assert len(found) == len(before.split()) == 4
    state = google("GET", "/state")
    assert state["clusters"][CLUSTER]["status"] == "RUNNING"
    assert "DeleteCluster" not in state["calls"]


def test_the_approval_shows_what_is_deleted(approved, gke):
    """It lists the objects and the cluster."""
    body = approved.shown["body"]
    assert f"`service/{MODEL}`" in body
    project = gke.get("project") or "slipway-stand"
    assert f"**cluster tfs-cluster in {project}, us-central1-a**, RUNNING" in body


def test_the_approval_warns_of_what_cannot_be_seen(kept):
    """The emulated account may list only one namespace."""
    assert "NOT digits-vit-gke's" in kept.shown["body"]


def test_cluster_waits_for_the_load_balancer(kept, google):
    """While the load balancer keeps the Service, the wait holds no slot, and the cluster is not deleted."""
    assert kept.seen["states"]["remove_objects"] == "deferred"
    assert kept.seen["states"]["delete_cluster"] is None
    assert "DeleteCluster" not in kept.seen["calls"]


def test_green_if_all_of_it_is_gone(approved):
    """The cluster was deleted, and the run says so."""
    assert approved.state == "success"
    assert approved.run.states()["delete_cluster"] == "success"


def test_nothing_is_left_but_what_google_keeps(kept, google, kubectl):
    """Objects and cluster are gone; the forwarding rule that Google keeps is listed with the command that deletes it."""
    until(lambda: not kubectl("get", "all,hpa,pdb", "-l", f"slipway/model={MODEL}", "-o", "name"), "pods gone")
    state = google("GET", "/state")
    assert state["clusters"] == {}
    assert state["calls"]["DeleteCluster"] == 1
    listed = f"gcloud compute forwarding-rules delete {kept.rule} --region us-central1"
    assert listed in kept.run.log("leftovers")


def test_the_record_says_so(approved, live, gke):
    """The teardown's record lists what was deleted, what is left over, and no more objects."""
    from pathlib import Path

    records = [json.loads(path.read_text()) for path in Path(live.records).glob("*.json")]
    [record] = [found for found in records if found["run_id"] == approved.run.id]
    assert (record["cause"], record["outcome"], record["objects"]) == ("teardown", "gone", [])
    assert f"service/{MODEL}" in record["removed"]
    assert record["tasks"]["delete_cluster"] == "success"
    listed = {one["name"] for one in record["leftovers"]}
    assert listed >= ({approved.rule} if gke["emulator"] else set())


def test_the_next_refresh_makes_all_of_it_again(approved, google, refresh):
    """The run makes the cluster, applies the known release without a build, and its gate passes."""
    done = refresh(MODEL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "create_cluster           success" in done.stdout
    assert "export                   skipped" in done.stdout
    assert google("GET", "/state")["clusters"][CLUSTER]["status"] == "RUNNING"
