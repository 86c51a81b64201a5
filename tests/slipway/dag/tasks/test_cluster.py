"""The traps of creating a GKE cluster: what the provider does by itself, and what the task makes of it.

Against the stand's emulator of Google, in this process, through the unmodified provider.
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
from slipway.facts import to_dict
from slipway.model.target_settings import GkeSettings
from slipway.target import GkeCluster, Target

PATH = "projects/slipway-stand/locations/us-central1-a/clusters/tfs-cluster"


@pytest.fixture
def run(release):
    """The context of a run whose model file says `target: gke`, what it left, and what it said."""
    cluster = GkeCluster(project="slipway-stand", location="us-central1-a", name="tfs-cluster")
    target = Target(kind="gke", conn_id="google_cloud_default", namespace="shop", gke=cluster)
    asked = replace(release, target=target, cluster=GkeSettings().spec)
    left = {("resolve", "return_value"): to_dict(asked)}

    def pull(*, task_ids, key="return_value"):
        return left.get((task_ids, key))

    def push(key, value):
        left["create_cluster", key] = value

    ti = SimpleNamespace(xcom_pull=pull, xcom_push=push)
    return SimpleNamespace(context={"ti": ti, "task": None}, left=left)


def put(google, status, **fields):
    """Have a cluster in this state, however it came to be so."""
    from google.cloud.container_v1.types import Cluster

    shape = {
        "node_pools": [{"name": "default-pool", "initial_node_count": 2, "config": {"machine_type": "n1-standard-8"}}]
    }
    google.put(PATH, Cluster.from_json(json.dumps({"status": status, **shape, **fields})))


def provider(**options):
    """The provider's operator as anybody would use it."""
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


def test_cluster_is_made_and_waited_for(google, run):
    """Where there is none it is made, by the provider's call, and what is handed on is a cluster that is RUNNING."""
    made = create(google, run)
    cost = made.pop("cost")
    assert made == {"cluster": PATH, "drift": [], "made": True, "version": "v1.34.4", "endpoint": "127.0.0.1:1"}
    assert cost.startswith("about $0.90 per hour (the cluster $0.10, 2 n1-standard-8 $0.76, ")
    assert google.calls["CreateCluster"] == 1
    assert google.clusters[PATH].resource_labels["airflow-version"].startswith("v3-")
    assert run.left["create_cluster", "verdict"]["outcome"] == "pass"
    assert f"; created by this run, {cost}" in run.left["create_cluster", "verdict"]["reason"]


def test_cluster_says_who_made_it(google, run, release):
    """Store, model and run are labels of a cluster that is made; one that is found without them has no drift for it."""
    create(google, run)
    assert release.cluster_labels.items() <= dict(google.clusters[PATH].resource_labels).items()
    for label in release.cluster_labels:
        del google.clusters[PATH].resource_labels[label]
    found = create(google, run)
    assert (found["made"], found["drift"]) == (False, [])
    assert "created by this run" not in run.left["create_cluster", "verdict"]["reason"]


@pytest.mark.parametrize("status", ["PROVISIONING", "ERROR", "STOPPING", "DEGRADED"])
def test_the_provider_alone_takes_any_cluster_for_a_good_one(google, run, status):
    """A cluster of that name is success to the provider's operator, whatever its state."""
    put(google, status)
    assert provider().execute(run.context).endswith("tfs-cluster")
    assert google.clusters[PATH].status.name == status


@pytest.mark.parametrize("status", ["ERROR", "DEGRADED"])
def test_red_if_the_cluster_that_is_there_is_broken(google, run, status):
    """It is named with Google's words and the next command, and left as it is."""
    put(google, status, statusMessage="nodes did not register")
    with pytest.raises(
        AirflowFailException, match=rf"^ClusterUnfit: .*{status}: nodes did not register\. Next: gcloud .*describe"
    ):
        create(google, run)
    assert google.calls["CreateCluster"] == google.calls["DeleteCluster"] == 0


def test_waits_if_the_cluster_is_being_made(google, run):
    """Another run's cluster, or an earlier try's, is waited for until it is RUNNING."""
    put(google, "PROVISIONING")
    assert create(google, run)["cluster"] == PATH
    assert google.calls["CreateCluster"] == 0
    assert google.clusters[PATH].status.name == "RUNNING"


def test_made_anew_if_the_old_one_is_being_deleted(google, run):
    """The name is waited for, then the cluster is made."""
    put(google, "STOPPING")
    assert create(google, run)["cluster"] == PATH
    assert google.calls["CreateCluster"] == 1


FAILURES = {
    "stockout": ({"stockout": True}, "GCE_STOCKOUT"),
    "operation error": ({"operation_error": "the network was not found"}, "the network was not found"),
    "no cluster left behind": ({"operation_error": "internal error", "lost": True}, "internal error"),
}


@pytest.mark.parametrize(("faults", "words"), FAILURES.values(), ids=FAILURES)
def test_the_provider_alone_takes_a_failed_operation_for_success(google, run, faults, words):
    """An operation that is DONE with an error ends the provider's wait as a success."""
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
def test_red_if_the_operation_failed(google, run, faults, words):
    """The operation's error is the run's last line."""
    for name, value in faults.items():
        setattr(google.faults, name, value)
    with pytest.raises(AirflowFailException, match=words):
        create(google, run)
    assert words in run.left["create_cluster", "verdict"]["reason"]
    assert google.calls["DeleteCluster"] == 0


def test_drift_is_reported_and_left(google, run):
    """A cluster of another shape is used; each field that differs is in the result and the verdict, and nothing is changed."""
    put(google, "RUNNING", releaseChannel={"channel": "RAPID"})
    before = type(google.clusters[PATH]).to_json(google.clusters[PATH])
    made = create(google, run)
    assert {"field": "release_channel.channel", "asked": "REGULAR", "found": "RAPID"} in made["drift"]
    assert "release_channel.channel is 'RAPID', asked for 'REGULAR'" in run.left["create_cluster", "verdict"]["reason"]
    assert before == type(google.clusters[PATH]).to_json(google.clusters[PATH])
    assert set(google.calls) == {"GetCluster", "ListOperations"}


def test_the_provider_alone_deletes_a_live_cluster_if_it_may_not_create(google, run):
    """By default a create that is denied deletes the cluster of that name, whoever made it."""
    put(google, "RUNNING")
    google.faults.deny = ["CreateCluster"]
    with pytest.raises(Exception, match="Required"):
        provider(deferrable=False).execute(run.context)
    assert google.calls["DeleteCluster"] == 1
    assert google.clusters[PATH].status.name == "STOPPING"


def test_never_deletes_if_it_may_not_create(google, run, monkeypatch):
    """Not even where somebody makes the cluster between the look and the create."""
    google.faults.deny = ["CreateCluster"]
    monkeypatch.setattr(import_module("slipway.gke.lookup"), "find_cluster", lambda *_: put(google, "RUNNING"))
    with pytest.raises(AirflowFailException, match=r"^ClusterRefused: .*container\.clusters\.create"):
        create(google, run)
    assert google.calls["DeleteCluster"] == 0
    assert google.clusters[PATH].status.name == "RUNNING"


def test_quota_is_said_in_googles_words(google, run):
    """A cluster that is too large is refused at once, is not tried again, and nothing is left."""
    google.faults.quota_cpus = 8
    with pytest.raises(AirflowFailException, match=r"^ClusterRefused: .*request requires '16\.0' and is short '8\.0'"):
        create(google, run)
    assert google.clusters == {}


def test_the_provider_alone_is_done_at_once_if_tried_again_after_a_workers_death(google, run):
    """The second try of a creation that goes on passes while there is nothing to use."""
    with pytest.raises(TaskDeferred):
        provider().execute(run.context)  # and here the worker dies
    provider().execute(run.context)
    assert google.clusters[PATH].status.name == "PROVISIONING"


def test_goes_on_if_the_answer_to_create_was_lost(google, run):
    """A try that died after its create reached Google is tried again, makes no second cluster, and waits for the first."""
    google.faults.swallow = {"CreateCluster": 1}
    with pytest.raises(GoogleUnreachable, match="unavailable"):
        create(google, run)
    assert create(google, run)["cluster"] == PATH
    assert google.calls["CreateCluster"] == 1


def test_second_try_reads_the_first_ones_error(google, run):
    """The operation that a dead worker began is found again: its error is not lost with the worker, nor with the cluster."""
    google.faults.swallow, google.faults.operation_error, google.faults.lost = {"CreateCluster": 1}, "no subnet", True
    with pytest.raises(GoogleUnreachable):
        create(google, run)
    with pytest.raises(AirflowFailException, match="no subnet"):
        create(google, run)


def test_red_if_the_cluster_is_deleted_under_the_run(google, run):
    """A cluster that vanishes while it is waited for is not made again behind somebody's back."""
    with pytest.raises(AirflowFailException, match="it is gone, or was never created"):
        create(google, run, before_polls=google.clusters.clear)
    assert google.calls["CreateCluster"] == 1


def test_waits_through_a_burst_of_unavailable(google, run):
    """Google's bad minute is no failure of the cluster."""
    task = CreateClusterOperator(task_id="create_cluster")
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(run.context)
    google.faults.unavailable = {"GetCluster": 4, "ListOperations": 4}
    assert event_of(google, deferred.value.trigger)["outcome"] == "pass"
    assert google.faults.unavailable == {"GetCluster": 0, "ListOperations": 0}


def test_refused_in_one_line_if_the_token_does_not_count(google, run):
    """A login that Google refuses is not tried again."""
    google.faults.refuse_tokens = True
    with pytest.raises(AirflowFailException, match=r"^ClusterRefused: .*Unauthenticated"):
        create(google, run)
