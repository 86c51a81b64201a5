"""Taking a GKE cluster away: what the provider does by itself, and what the tasks make of it.

Against the stand's emulator of Google, in this process, through the unmodified provider. Objects are removed from a real
cluster in tests/e2e/test_teardown.py.
"""

import asyncio
import json
from dataclasses import replace

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from google_clock import end_operations, event_of, run_task

from slipway.dag.tasks.cluster import ClaimClusterOperator, CreateClusterOperator
from slipway.dag.tasks.teardown import DeleteClusterOperator, LeftoversOperator, RemoveObjectsOperator
from slipway.errors import ClusterUnreachable, GoogleUnreachable, PreflightFailed
from slipway.facts import Balancer, ObjectRef, Teardown, to_dict
from slipway.gke.leftovers import balancer_name
from slipway.gke.preflight import inspect_deletion
from slipway.model.target_settings import GkeSettings
from slipway.names import CLUSTER_LABEL_RUN
from slipway.records.history import read_history
from slipway.records.record import read_record, write_record
from slipway.steps.teardown_plan import TeardownPlan
from slipway.target import GkeCluster, Target
from slipway.verdict import require

CLUSTER = GkeCluster(project="slipway-stand", location="us-central1-a", name="tfs-cluster")
PATH = CLUSTER.path
TARGET = Target(kind="gke", conn_id="google_cloud_default", namespace="shop", gke=CLUSTER)
SERVICE = ObjectRef(api_version="v1", kind="Service", name="tfs-server", namespace="shop")
BALANCER = Balancer(service="shop/tfs-server", uid="0f9b-11", address="203.0.113.7")


@pytest.fixture
def teardown(release):
    """A teardown of digits-vit's cluster, by hand."""
    return Teardown(
        model=release.model,
        run_id="manual__down",
        store=release.store,
        target=TARGET,
        deployment=release.deployment,
        objects=(SERVICE,),
        balancers=(BALANCER,),
        claim=None,
        address_timeout_s=600,
        cluster_timeout_s=1800,
    )


@pytest.fixture
def looked(context_of, teardown):
    """Makes the context of a task after `look`: `looked("delete_cluster")`."""

    def make(task_id, *, others=()):
        plan = TeardownPlan(
            teardown=teardown, status="RUNNING", cost=None, others=others, blind=None, sharing=(), body="Delete it?"
        )
        return {**context_of(task_id, look=plan), "task": None}

    return make


@pytest.fixture
def temporary(release):
    """A release whose run makes its own cluster."""
    return replace(release, target=TARGET, cluster=GkeSettings(temporary=True).spec)


@pytest.fixture
def in_run(context_of, temporary):
    """Makes the context of a task of a run with a cluster of its own."""
    return lambda task_id, release=temporary: {**context_of(task_id, resolve=release), "task": None}


def put(google, status, **fields):
    """Have a cluster in this state, however it came to be so."""
    from google.cloud.container_v1.types import Cluster

    google.put(PATH, Cluster.from_json(json.dumps({"status": status, **fields})))


def delete(google, context, **options):
    """Run the task that deletes the cluster from start to end; its result."""
    return run_task(google, DeleteClusterOperator(task_id="delete_cluster"), context, **options)


def provider(**options):
    """The provider's operator as anybody would use it."""
    from airflow.providers.google.cloud.operators.kubernetes_engine import GKEDeleteClusterOperator

    where = {"location": CLUSTER.location, "project_id": CLUSTER.project, "cluster_name": CLUSTER.name}
    return GKEDeleteClusterOperator(task_id="delete", **where, **options)


def test_cluster_is_deleted_and_waited_for(google, looked):
    """By the provider's call, once, until it is gone; the verdict says so."""
    put(google, "RUNNING")
    context = looked("delete_cluster")
    assert delete(google, context) == f"{CLUSTER}: gone"
    assert google.clusters == {}
    assert google.calls["DeleteCluster"] == 1
    assert context["ti"].facts["delete_cluster", "verdict"]["outcome"] == "pass"


def test_done_already_if_the_cluster_is_gone(google, looked):
    """A cluster that is not there is what was wanted; nothing is asked of Google but whether it is."""
    assert delete(google, looked("delete_cluster")) == f"{CLUSTER}: gone already"
    assert set(google.calls) == {"GetCluster"}


def test_waited_for_if_it_is_being_deleted(google, looked):
    """A second try after a worker's death, or somebody else's deletion, is waited for and not asked for again."""
    put(google, "STOPPING")
    assert delete(google, looked("delete_cluster")) == f"{CLUSTER}: gone"
    assert google.calls["DeleteCluster"] == 0


def test_deleted_only_when_google_would(google, looked):
    """While a cluster is being made Google refuses to delete it: that is waited for."""
    put(google, "PROVISIONING")
    assert delete(google, looked("delete_cluster")) == f"{CLUSTER}: gone"
    assert google.calls["DeleteCluster"] == 1


def test_gone_is_gone_if_somebody_deletes_it_at_once(google, looked):
    """A cluster that vanishes under the wait is gone."""
    put(google, "RUNNING")
    assert delete(google, looked("delete_cluster"), before_polls=google.clusters.clear) == f"{CLUSTER}: gone"


def test_the_provider_alone_takes_a_failed_deletion_for_success(google, looked):
    """An operation that is DONE with an error ends the provider's wait as a success, while the cluster is still there."""
    put(google, "RUNNING")
    google.faults.operation_error = "the node pool cannot be drained"
    operator = provider(deferrable=True, poll_interval=0.1)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(looked("delete"))
    end_operations(google)
    event = asyncio.run(anext(deferred.value.trigger.run())).payload
    assert event["status"] == "success"
    assert google.clusters[PATH].status.name == "ERROR"


def test_red_with_googles_words_if_the_deletion_failed(google, looked):
    """The operation's error is the line; a second try deletes again."""
    put(google, "RUNNING")
    google.faults.operation_error = "the node pool cannot be drained"
    words = r"^TeardownIncomplete: .* it is ERROR: the node pool cannot be drained\. Next: gcloud .* describe"
    with pytest.raises(AirflowFailException, match=words):
        delete(google, looked("delete_cluster"))
    google.faults.operation_error = None
    assert delete(google, looked("delete_cluster")) == f"{CLUSTER}: gone"


def test_refused_in_one_line_if_it_may_not_delete(google, looked):
    """The right that is missing is named, the cluster is as it was, and nothing else was asked to go."""
    put(google, "RUNNING")
    google.faults.deny = ["DeleteCluster"]
    with pytest.raises(
        AirflowFailException, match=r"^ClusterRefused: .*container\.clusters\.delete.*Next: "
    ) as refusal:
        delete(google, looked("delete_cluster"))
    assert "\n" not in str(refusal.value)
    assert google.clusters[PATH].status.name == "RUNNING"
    assert set(google.calls) == {"GetCluster", "DeleteCluster"}


def test_tried_again_if_google_is_in_trouble(google, looked):
    """UNAVAILABLE is Google's bad minute: its client calls again, and the wait looks again."""
    put(google, "RUNNING")
    google.faults.unavailable = {"DeleteCluster": 2}

    def trouble():
        google.faults.unavailable = {"GetCluster": 2, "ListOperations": 2}

    assert delete(google, looked("delete_cluster"), before_polls=trouble) == f"{CLUSTER}: gone"


def test_goes_on_if_the_answer_to_delete_was_lost(google, looked):
    """Google's client calls again, is refused because the cluster is being deleted, and that is what is waited for."""
    put(google, "RUNNING")
    google.faults.swallow = {"DeleteCluster": 1}
    assert delete(google, looked("delete_cluster")) == f"{CLUSTER}: gone"
    assert google.calls["DeleteCluster"] == 2


def test_second_try_waits_for_what_a_dead_worker_began(google, looked):
    """A worker that died after its call is followed by one that asks for nothing a second time."""
    put(google, "RUNNING")
    with pytest.raises(TaskDeferred):
        DeleteClusterOperator(task_id="delete_cluster").execute(looked("delete_cluster"))  # and here it dies
    assert delete(google, looked("delete_cluster")) == f"{CLUSTER}: gone"
    assert google.calls["DeleteCluster"] == 1


def test_red_if_time_is_up(google, looked, teardown):
    """A deletion that does not end is said so, with the cluster's state."""
    put(google, "RUNNING")
    task = DeleteClusterOperator(task_id="delete_cluster")
    context = looked("delete_cluster")
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    deferred.value.trigger.deadline = 0.0
    event = event_of(google, deferred.value.trigger)
    with pytest.raises(AirflowFailException, match=r"^TeardownIncomplete: time is up: .*: STOPPING, being deleted"):
        task.decide(context, event)


def test_right_to_delete_is_asked_before_anything_goes(google):
    """An account that may not delete the cluster is told so before a person is asked, and before an object is gone."""
    google.project.missing = ["container.clusters.delete"]
    with pytest.raises(
        PreflightFailed, match=r"no permission container\.clusters\.delete on project slipway-stand\. Next: "
    ):
        require(str(CLUSTER), inspect_deletion(TARGET, CLUSTER))
    google.project.missing = []
    require(str(CLUSTER), inspect_deletion(TARGET, CLUSTER))


# --- the objects before it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "words"), [(None, "gone"), ("ERROR", "ERROR"), ("STOPPING", "STOPPING")])
def test_there_is_nothing_to_remove_without_an_api_server(google, looked, status, words):
    """Objects go with a cluster that is gone, or has no API server that answers."""
    if status:
        put(google, status)
    said = run_task(google, RemoveObjectsOperator(task_id="remove_objects"), looked("remove_objects"))
    assert said == f"{CLUSTER}: {words}, there is nothing to remove"


def test_tried_again_if_the_api_server_does_not_answer(google, looked):
    """The cluster is RUNNING and nobody answers in it: nothing is deleted behind its back."""
    put(google, "RUNNING")
    with pytest.raises(ClusterUnreachable):
        run_task(google, RemoveObjectsOperator(task_id="remove_objects"), looked("remove_objects"))
    assert google.calls["DeleteCluster"] == 0


# --- what the record says ---------------------------------------------------------------------------------------------


def test_record_says_that_it_was_torn_down(google, looked, store, record_of):
    """The teardown has a record of its own, and nothing counts as applied any more; what was proven can still come back."""
    write_record(store, record_of("r0", "live", objects=[SERVICE], target=TARGET))
    run_task(google, RemoveObjectsOperator(task_id="remove_objects"), looked("remove_objects"))
    assert delete(google, looked("delete_cluster")) == f"{CLUSTER}: gone already"
    record = read_record(store, "digits-vit", "manual__down")
    assert (record["cause"], record["outcome"], record["objects"], record["removed"]) == (
        "teardown", "gone", [], ["service/tfs-server"],
    )  # fmt: skip
    history = read_history(store, "digits-vit").at(TARGET, "tfs-server")
    assert history.torn_down
    assert history.objects == ()
    assert history.good["run_id"] == "r0"


# --- a temporary cluster ----------------------------------------------------------------------------------------------


def test_temporary_cluster_is_claimed_made_and_deleted(google, in_run, temporary):
    """The run labels what it makes, and by that label alone it deletes it."""
    run_task(google, ClaimClusterOperator(task_id="claim_cluster"), in_run("claim_cluster"))
    run_task(google, CreateClusterOperator(task_id="create_cluster"), in_run("create_cluster"))
    assert google.clusters[PATH].resource_labels[CLUSTER_LABEL_RUN] == temporary.claim
    assert delete(google, in_run("delete_cluster")) == f"{CLUSTER}: gone"


def test_claimed_again_by_the_run_that_made_it(google, in_run):
    """A cleared run finds its own cluster, and goes on with it."""
    run_task(google, CreateClusterOperator(task_id="create_cluster"), in_run("create_cluster"))
    said = run_task(google, ClaimClusterOperator(task_id="claim_cluster"), in_run("claim_cluster"))
    assert said == f"{CLUSTER}: created by this run"


EACH_TASK = pytest.mark.parametrize(
    "task", [ClaimClusterOperator, CreateClusterOperator, RemoveObjectsOperator, DeleteClusterOperator]
)


@pytest.mark.parametrize("labels", [{}, {"slipway-run": "another0run0"}], ids=["nobody's", "another run's"])
@EACH_TASK
def test_cluster_that_was_there_before_is_left_alone(google, in_run, labels, task):
    """No task of a run with a cluster of its own uses or deletes one that the run has not made."""
    put(google, "RUNNING", resourceLabels=labels)
    with pytest.raises(AirflowFailException, match=r"^ClusterUnfit: .* was not created by this run.* left as it is"):
        run_task(google, task(task_id="one"), in_run("one"))
    assert google.clusters[PATH].status.name == "RUNNING"
    assert set(google.calls) == {"GetCluster"}


@EACH_TASK
def test_cluster_of_another_airflows_run_is_left_alone(google, in_run, temporary, task):
    """Two Airflows that share store, schedule and model have runs of one id: neither takes the other's cluster for its own."""
    ours, theirs = (replace(temporary, installation=name) for name in ("here", "there"))
    run_task(google, CreateClusterOperator(task_id="create_cluster"), in_run("create_cluster", theirs))
    with pytest.raises(AirflowFailException, match=r"^ClusterUnfit: .* was not created by this run.* left as it is"):
        run_task(google, task(task_id="one"), in_run("one", ours))
    assert google.clusters[PATH].status.name == "RUNNING"
    assert delete(google, in_run("delete_cluster", theirs)) == f"{CLUSTER}: gone"


def test_creation_that_failed_is_deleted_too(google, in_run):
    """What a stockout leaves is the run's own, and goes."""
    google.faults.stockout = True
    with pytest.raises(AirflowFailException, match="GCE_STOCKOUT"):
        run_task(google, CreateClusterOperator(task_id="create_cluster"), in_run("create_cluster"))
    assert google.clusters[PATH].status.name == "ERROR"
    assert delete(google, in_run("delete_cluster")) == f"{CLUSTER}: gone"


def test_nothing_to_delete_if_nothing_was_made(google, in_run):
    """A creation that was denied leaves nothing, and the teardown passes."""
    assert delete(google, in_run("delete_cluster")) == f"{CLUSTER}: gone already"


def test_temporary_record_is_no_live_release(google, in_run, temporary, store, record_of):
    """What was proven on a cluster that is gone is neither live, nor to be gone back to, nor in the way of the next run."""
    record = record_of("x", "live", objects=[SERVICE], target=TARGET, cluster=temporary.cluster)
    assert record["outcome"] == "proven"
    write_record(store, {**record, "run_id": temporary.run_id})
    delete(google, in_run("delete_cluster"))
    assert read_record(store, "digits-vit", temporary.run_id)["outcome"] == "proven"
    assert read_history(store, "digits-vit").records == ()


# --- what Google leaves -----------------------------------------------------------------------------------------------


def test_leftovers_are_listed_with_their_commands(google, looked):
    """All pages of all four lists are read, and nothing is deleted."""
    google.residue.forwardingRules = {
        "global": [{"name": "somebody-elses"}],
        "regions/us-central1": [{"name": balancer_name(BALANCER), "IPAddress": "203.0.113.7"}],
    }
    google.residue.disks = {
        "zones/us-central1-a": [{"name": "pvc-1", "labels": {"goog-k8s-cluster-name": "tfs-cluster"}}]
    }
    found = LeftoversOperator(task_id="leftovers").execute(looked("leftovers"))
    assert [one["command"] for one in found] == [
        "gcloud compute forwarding-rules delete a0f9b11 --region us-central1 --project slipway-stand",
        "gcloud compute disks delete pvc-1 --zone us-central1-a --project slipway-stand",
    ]
    assert google.calls == {
        "compute.forwardingRules.aggregatedList": 2,
        "compute.targetPools.aggregatedList": 1,
        "compute.addresses.aggregatedList": 1,
        "compute.disks.aggregatedList": 1,
    }


def test_leftovers_refused_in_one_line(google, looked):
    """A right that is missing is named; Google's bad minute is tried again."""
    google.faults.deny = ["compute.disks.aggregatedList"]
    with pytest.raises(AirflowFailException, match=r"^ClusterRefused: disks of slipway-stand: HTTP 403: .*Next: "):
        LeftoversOperator(task_id="leftovers").execute(looked("leftovers"))
    google.faults.unavailable = {"compute.forwardingRules.aggregatedList": 1}
    with pytest.raises(GoogleUnreachable):
        LeftoversOperator(task_id="leftovers").execute(looked("leftovers"))


def test_survey_can_be_handed_on(looked, teardown):
    """A TeardownPlan survives the way through XCom."""
    from slipway.facts import from_dict

    left = looked("approve")["ti"].facts["look", "return_value"]
    assert from_dict(TeardownPlan, json.loads(json.dumps(left))).teardown == teardown
    assert to_dict(from_dict(TeardownPlan, left)) == left
