"""A cluster is identified by its uid, not by how it is reached: a renamed connection or another endpoint keeps its history."""

import json
import logging
import os
from dataclasses import replace

import pytest
from airflow.sdk.exceptions import DownstreamTasksSkipped, TaskDeferred

from slipway.dag.run import Run
from slipway.dag.tasks.plan import ChooseOperator, PlanOperator
from slipway.dag.tasks.rollback import UNDOING, RollbackOperator
from slipway.records.history import read_records
from slipway.records.record import close_run, new_record, record_is_about, utc_now, write_record
from slipway.records.store import Store
from slipway.steps.deploy import deploy
from slipway.steps.plan import make_plan
from slipway.steps.rendering import render_release
from slipway.target import GkeCluster, Target, is_same_target

GKE = GkeCluster(project="p", location="europe-west1-b", name="c")


def free():
    """A check that finds no other run."""


@pytest.fixture
def moved(monkeypatch, release, export, pushed, api_server_of, connected):  # noqa: PLR0917
    """A release that was proven live over the connection `old`, and the same over `new`, which reaches the same cluster."""
    server = api_server_of(uid="a", conn_id="old")
    connected(server, conn_id="new")
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_STORE", release.store)
    before = render_release(replace(release, run_id="before", target=replace(release.target, conn_id="old")))
    deploy(before, export, pushed, check=free)
    close_run(before, {}, {}, proven=True, applied=True)
    return replace(before, run_id="now", target=replace(release.target, conn_id="new"))


def forget_uids(release):
    """Make the records those of an earlier Slipway, which did not know a cluster's uid."""
    store = Store(release.store)
    for record in read_records(store, release.model).records:
        record["release"]["target"].pop("cluster_uid", None)
        write_record(store, record)


def uids(release):
    """The uid in each record, by run."""
    records = read_records(Store(release.store), release.model).records
    return {record["run_id"]: record["release"]["target"].get("cluster_uid") for record in records}


def test_live_release_is_known_over_a_renamed_connection(moved, monkeypatch):
    """Nothing is built again, and the live Deployment is no orphan, whether the old connection still exists or not."""
    for _ in range(2):
        plan, _ = make_plan(moved, by_hand=True)
        assert plan.action == "manifests"  # the pods of this API server never become ready
        assert "there is no release" not in str(plan.reasons)
        assert plan.orphans == ()
        monkeypatch.delenv("AIRFLOW_CONN_OLD", raising=False)


def test_failed_release_is_rolled_back_over_the_new_connection(moved, export, pushed, context_of, leases, monkeypatch):  # noqa: PLR0917
    """The last good release was applied over the old connection, which is gone."""
    monkeypatch.delenv("AIRFLOW_CONN_OLD")
    deploy(moved, export, replace(pushed, release_id="2" * 12), check=free)
    context = context_of("rollback", resolve=moved)
    context["run_id"] = "now"
    context["ti"].states = {"apply": "success", "gate": "failed"}
    with pytest.raises(TaskDeferred):
        RollbackOperator(task_id="rollback", model="digits-vit", proof_task_id="gate").execute(context)
    undoing = context["ti"].facts["rollback", UNDOING]
    assert undoing["applied"]["release_id"] == pushed.release_id
    assert undoing["release"]["target"]["conn_id"] == "new"


def test_rollback_by_hand_goes_over_the_model_files_connection(  # noqa: PLR0917
    moved, export, pushed, context_of, leases, monkeypatch
):
    """The model file now names the connection `kubernetes_default`; every record names one that is gone."""
    deploy(replace(moved, run_id="second"), export, replace(pushed, release_id="2" * 12), check=free)
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", with_namespace("NEW", "shop"))
    for name in ("OLD", "NEW"):
        monkeypatch.delenv(f"AIRFLOW_CONN_{name}")
    choice = ChooseOperator(task_id="choose", model="digits-vit").make(Run(context_of("choose")))
    assert choice.plan.pushed.release_id == pushed.release_id
    assert choice.release.target.conn_id == "kubernetes_default"


def with_namespace(name, namespace):
    """A connection like another, with a namespace."""
    connection = json.loads(os.environ[f"AIRFLOW_CONN_{name}"])
    return json.dumps({**connection, "extra": {**connection["extra"], "namespace": namespace}})


def test_a_new_cluster_behind_the_same_connection_has_no_history(moved, api_server_of, export, pushed):
    """The connection was pointed at a new cluster: nothing is live there, and nothing there is called an orphan."""
    api_server_of(uid="b", conn_id="old")
    there = replace(moved, target=replace(moved.target, conn_id="old"))
    plan, _ = make_plan(there, by_hand=True)
    assert plan.action == "everything"
    assert not any("is an orphan" in line for line in plan.orphans)


def test_records_of_an_earlier_slipway_are_known_by_the_connection_and_get_the_uid(
    moved, context_of, leases, export, pushed
):
    """From then on the connection may be renamed."""
    forget_uids(moved)
    before = replace(moved, target=replace(moved.target, conn_id="old"))
    deploy(replace(moved, run_id="running"), export, pushed, check=free)
    assert make_plan(before, by_hand=True)[0].action == "manifests"
    plan_only = {**context_of("plan", resolve=before), "params": {"plan_only": True}}
    run_plan(plan_only)
    assert uids(moved) == {"before": None, "running": "a"}
    run_plan(context_of("plan", resolve=before))
    assert uids(moved) == {"before": "a", "running": "a"}
    assert make_plan(moved, by_hand=True)[0].action == "manifests"


def run_plan(context):
    """Run the task, which skips others."""
    with pytest.raises(DownstreamTasksSkipped):
        PlanOperator(task_id="plan", builds=["export"], deploys=["apply"]).execute(context)


def test_old_identity_and_one_warning_if_the_uid_may_not_be_read(moved, api_server_of, caplog):
    """Without the right, a target is its connection and namespace, as before."""
    server = api_server_of(conn_id="old")
    server.forbidden.add("/api/v1/namespaces/kube-system")
    plan, _ = make_plan(replace(moved, target=replace(moved.target, conn_id="old")), by_hand=True)
    assert "there is no release" not in str(plan.reasons)
    [warned] = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert "no right to get the namespace kube-system" in warned
    assert "--resource-name=kube-system" in warned


def test_bad_release_is_remembered_over_another_endpoint_of_its_cluster(release):
    """The schedule does not retry it just because its cluster has another address."""
    at = replace(release, target=IN_GKE)
    record = new_record(at, now=utc_now())
    assert record_is_about(record, replace(at, target=replace(IN_GKE, gke=replace(GKE, endpoint="dns"))))
    assert not record_is_about(record, replace(at, target=replace(IN_GKE, gke=replace(GKE, name="d"))))


OLD = Target(conn_id="old", namespace="shop")
IN_A, IN_B = replace(OLD, cluster_uid="a"), replace(OLD, cluster_uid="b")
IN_GKE = Target(kind="gke", conn_id="google", namespace="shop", gke=GKE)
SAME = {
    "the same connection": (OLD, OLD, True),
    "another connection, the same cluster": (IN_A, replace(IN_A, conn_id="new"), True),
    "another connection, a cluster that is unknown": (OLD, replace(IN_A, conn_id="new"), False),
    "the same connection, one of an earlier Slipway": (OLD, IN_A, True),
    "the same connection, another cluster": (IN_B, IN_A, False),
    "another namespace": (IN_A, replace(IN_A, namespace="x"), False),
    "another endpoint of a GKE cluster": (IN_GKE, replace(IN_GKE, gke=replace(GKE, endpoint="dns")), True),
    "another connection to a GKE cluster": (IN_GKE, replace(IN_GKE, conn_id="other"), True),
    "two GKE clusters": (
        replace(IN_GKE, cluster_uid="a"),
        replace(IN_GKE, gke=replace(GKE, name="d"), cluster_uid="a"),
        False,
    ),
    "a GKE cluster that was created again": (replace(IN_GKE, cluster_uid="a"), replace(IN_GKE, cluster_uid="b"), True),
    "another GKE cluster": (IN_GKE, replace(IN_GKE, gke=replace(GKE, name="d")), False),
    "a GKE cluster by a kubeconfig": (replace(IN_GKE, cluster_uid="a"), IN_A, True),
    "a GKE cluster and one that is unknown": (IN_GKE, replace(OLD, conn_id="google"), False),
}


@pytest.mark.parametrize(("one", "other", "same"), SAME.values(), ids=SAME)
def test_same_target(one, other, same):
    """A GKE cluster is identified by its name, any other by its uid, or by the connection if a uid is unknown."""
    assert is_same_target(one, other) is is_same_target(other, one) is same
