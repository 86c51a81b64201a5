"""Creation of a GKE cluster: what the provider's operator does alone, and what the task does with it.

The tests use the stand's emulator of Google, in this process, through the unmodified provider.
"""

import asyncio
import json
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from google_clock import end_operations, event_of, run_task

from slipway.dag.tasks.cluster import CreateClusterOperator
from slipway.errors import GoogleUnreachable
from slipway.model.target_settings import GkeSettings
from slipway.target import GkeCluster, Target

PATH = "projects/slipway-stand/locations/us-central1-a/clusters/tfs-cluster"


@pytest.fixture
def run(context_of, release):
    """The context of a run whose model file says `target: gke`, and what it left in XCom."""
    cluster = GkeCluster(project="slipway-stand", location="us-central1-a", name="tfs-cluster")
    target = Target(kind="gke", conn_id="google_cloud_default", namespace="shop", gke=cluster)
    context = {
        **context_of("create_cluster", resolve=replace(release, target=target, cluster=GkeSettings().spec)),
        "task": None,
    }
    return SimpleNamespace(context=context, left=context["ti"].facts)


@pytest.fixture(autouse=True)
def planned_again(monkeypatch):
    """The runs whose plan the task has made again; there is no cluster behind the emulator to plan for."""
    runs = []
    monkeypatch.setattr("slipway.dag.tasks.cluster.plan_again_under_lease", runs.append)
    return runs


@pytest.mark.parametrize(("temporary", "held", "again"), [(False, False, 1), (False, True, 0), (True, False, 0)])
def test_plan_is_made_again_once_the_cluster_runs(google, run, planned_again, temporary, held, again):  # noqa: PLR0917
    """It is not if `plan` has already read the cluster under the Lease, or if the cluster is temporary."""
    asked = run.left["resolve", "return_value"]
    asked["cluster"]["temporary"] = temporary
    if held:
        run.left["plan", "lease"] = {"place": {}, "holder": "here/d/r", "attempt": 0, "broke": None}
    create(google, run)
    assert len(planned_again) == again


def put(google, status, **fields):
    """Make a cluster with this status exist."""
    from google.cloud.container_v1.types import Cluster

    shape = {
        "node_pools": [{"name": "default-pool", "initial_node_count": 2, "config": {"machine_type": "n1-standard-8"}}]
    }
    google.put(PATH, Cluster.from_json(json.dumps({"status": status, **shape, **fields})))


def provider(**options):
    """The provider's operator, used without Slipway."""
    from airflow.providers.google.cloud.operators.kubernetes_engine import GKECreateClusterOperator

    body = {
        "name": "tfs-cluster",
        "node_pools": [{"name": "default-pool", "initial_node_count": 2, "config": {"machine_type": "n1-standard-8"}}],
    }
    return GKECreateClusterOperator(
        task_id="create",
        body=body,
        location="us-central1-a",
        project_id="slipway-stand",
        **{"deferrable": True, **options},
    )


def create(google, run, **options):
    """Run the task from start to end; its result."""
    return run_task(google, CreateClusterOperator(task_id="create_cluster"), run.context, **options)


def test_cluster_is_created_and_waited_for(google, run):
    """The provider creates a missing cluster; the task's result is a cluster that is RUNNING."""
    made = create(google, run)
    cost = made.pop("cost")
    assert made == {"cluster": PATH, "drift": [], "made": True, "version": "v1.34.4", "endpoint": "127.0.0.1:1"}
    assert cost.startswith("about $0.90 per hour (the cluster $0.10, 2 n1-standard-8 $0.76, ")
    assert google.calls["CreateCluster"] == 1
    assert google.clusters[PATH].resource_labels["airflow-version"].startswith("v3-")
    assert run.left["create_cluster", "verdict"]["outcome"] == "pass"
    assert f"; created by this run, {cost}" in run.left["create_cluster", "verdict"]["reason"]


def test_new_cluster_has_labels_of_its_maker(google, run, release):
    """A new cluster has labels for store, model and run; their absence on a cluster that was found is not drift."""
    create(google, run)
    assert release.cluster_labels.items() <= dict(google.clusters[PATH].resource_labels).items()
    for label in release.cluster_labels:
        del google.clusters[PATH].resource_labels[label]
    found = create(google, run)
    assert (found["made"], found["drift"]) == (False, [])
    assert "created by this run" not in run.left["create_cluster", "verdict"]["reason"]


@pytest.mark.parametrize("status", ["PROVISIONING", "ERROR", "STOPPING", "DEGRADED"])
def test_provider_alone_accepts_a_cluster_in_any_state(google, run, status):
    """The provider's operator succeeds if a cluster of that name exists."""
    put(google, status)
    assert provider().execute(run.context).endswith("tfs-cluster")
    assert google.clusters[PATH].status.name == status


@pytest.mark.parametrize("status", ["ERROR", "DEGRADED"])
def test_fails_if_the_cluster_is_broken(google, run, status):
    """The error has Google's message and the next command; the cluster is not changed."""
    put(google, status, statusMessage="nodes did not register")
    with pytest.raises(
        AirflowFailException, match=rf"^ClusterUnfit: .*{status}: nodes did not register\. Next: gcloud .*describe"
    ):
        create(google, run)
    assert google.calls["CreateCluster"] == google.calls["DeleteCluster"] == 0


def test_waits_if_the_cluster_is_being_created(google, run):
    """The task waits for the cluster of another run, or of an earlier try, until it is RUNNING."""
    put(google, "PROVISIONING")
    assert create(google, run)["cluster"] == PATH
    assert google.calls["CreateCluster"] == 0
    assert google.clusters[PATH].status.name == "RUNNING"


def test_created_again_if_the_old_cluster_is_being_deleted(google, run):
    """The task waits until the name is free, then creates the cluster."""
    put(google, "STOPPING")
    assert create(google, run)["cluster"] == PATH
    assert google.calls["CreateCluster"] == 1


FAILURES = {
    "stockout": ({"stockout": True}, "GCE_STOCKOUT"),
    "operation error": ({"operation_error": "the network was not found"}, "the network was not found"),
    "no cluster left behind": ({"operation_error": "internal error", "lost": True}, "internal error"),
}


@pytest.mark.parametrize(("faults", "words"), FAILURES.values(), ids=FAILURES)
def test_provider_alone_accepts_a_failed_operation(google, run, faults, words):
    """The provider's wait succeeds on an operation that is DONE with an error."""
    for name, value in faults.items():
        setattr(google.faults, name, value)
    operator = provider(poll_interval=0.1)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(run.context)
    end_operations(google)
    event = asyncio.run(anext(deferred.value.trigger.run())).payload
    assert event["status"] == "success"
    assert operator.execute_complete(run.context, event).endswith("tfs-cluster")


@pytest.mark.parametrize(("faults", "words"), FAILURES.values(), ids=FAILURES)
def test_fails_if_the_operation_failed(google, run, faults, words):
    """The task's error has the operation's error."""
    for name, value in faults.items():
        setattr(google.faults, name, value)
    with pytest.raises(AirflowFailException, match=words):
        create(google, run)
    assert words in run.left["create_cluster", "verdict"]["reason"]
    assert google.calls["DeleteCluster"] == 0


def test_drift_is_reported_and_not_changed(google, run):
    """A cluster with other settings is used as it is; result and verdict list each field that differs."""
    put(google, "RUNNING", releaseChannel={"channel": "RAPID"})
    before = type(google.clusters[PATH]).to_json(google.clusters[PATH])
    made = create(google, run)
    assert {"field": "release_channel.channel", "asked": "REGULAR", "found": "RAPID"} in made["drift"]
    assert "release_channel.channel is 'RAPID', asked for 'REGULAR'" in run.left["create_cluster", "verdict"]["reason"]
    assert before == type(google.clusters[PATH]).to_json(google.clusters[PATH])
    assert set(google.calls) == {"GetCluster", "ListOperations"}


def test_provider_alone_deletes_a_running_cluster_if_it_may_not_create(google, run):
    """By default, the provider deletes the cluster of that name if its create is denied."""
    put(google, "RUNNING")
    google.faults.deny = ["CreateCluster"]
    with pytest.raises(Exception, match="Required"):
        provider(deferrable=False).execute(run.context)
    assert google.calls["DeleteCluster"] == 1
    assert google.clusters[PATH].status.name == "STOPPING"


def test_task_deletes_nothing_if_it_may_not_create(google, run, monkeypatch):
    """The same holds if somebody creates the cluster between the check and the create."""
    google.faults.deny = ["CreateCluster"]
    monkeypatch.setattr(import_module("slipway.gke.lookup"), "find_cluster", lambda *_: put(google, "RUNNING"))
    with pytest.raises(AirflowFailException, match=r"^ClusterRefused: .*container\.clusters\.create"):
        create(google, run)
    assert google.calls["DeleteCluster"] == 0
    assert google.clusters[PATH].status.name == "RUNNING"


def test_refused_with_googles_message_if_the_quota_is_too_small(google, run):
    """The task does not retry, and no cluster remains."""
    google.faults.quota_cpus = 8
    with pytest.raises(AirflowFailException, match=r"^ClusterRefused: .*request requires '16\.0' and is short '8\.0'"):
        create(google, run)
    assert google.clusters == {}


def test_provider_alone_succeeds_too_early_on_a_second_try(google, run):
    """After a worker's death, the second try succeeds while the cluster is still being created."""
    with pytest.raises(TaskDeferred):
        provider().execute(run.context)  # and here the worker dies
    provider().execute(run.context)
    assert google.clusters[PATH].status.name == "PROVISIONING"


def test_goes_on_if_the_response_to_create_was_lost(google, run):
    """The second try creates no second cluster and waits for the first one."""
    google.faults.swallow = {"CreateCluster": 1}
    with pytest.raises(GoogleUnreachable, match="unavailable"):
        create(google, run)
    assert create(google, run)["cluster"] == PATH
    assert google.calls["CreateCluster"] == 1


def test_second_try_reports_the_error_of_the_first(google, run):
    """The second try finds the operation of a worker that died, and its error, even if the cluster is gone."""
    google.faults.swallow, google.faults.operation_error, google.faults.lost = {"CreateCluster": 1}, "no subnet", True
    with pytest.raises(GoogleUnreachable):
        create(google, run)
    with pytest.raises(AirflowFailException, match="no subnet"):
        create(google, run)


def test_fails_if_somebody_deletes_the_cluster(google, run):
    """A cluster that disappears during the wait is not created again."""
    with pytest.raises(AirflowFailException, match="it is gone, or was never created"):
        create(google, run, before_polls=google.clusters.clear)
    assert google.calls["CreateCluster"] == 1


def test_waits_if_google_is_unavailable(google, run):
    """UNAVAILABLE does not fail the wait."""
    task = CreateClusterOperator(task_id="create_cluster")
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(run.context)
    google.faults.unavailable = {"GetCluster": 4, "ListOperations": 4}
    assert event_of(google, deferred.value.trigger)["outcome"] == "pass"
    assert google.faults.unavailable == {"GetCluster": 0, "ListOperations": 0}


def test_refused_in_one_line_if_google_refuses_the_token(google, run):
    """The task does not retry."""
    google.faults.refuse_tokens = True
    with pytest.raises(AirflowFailException, match=r"^ClusterRefused: .*Unauthenticated"):
        create(google, run)
