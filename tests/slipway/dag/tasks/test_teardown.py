"""Deletion of a GKE cluster: what the provider's operator does alone, and what the tasks do with it.

The tests use the stand's emulator of Google, in this process, through the unmodified provider. tests/e2e/test_teardown.py
deletes objects from a real cluster.
"""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from google_clock import end_operations, event_of, run_task
from teardowns import BALANCER, CLUSTER, PATH, SERVICE, TARGET, delete, put

from slipway.dag.tasks.cluster import ClaimClusterOperator, CreateClusterOperator
from slipway.dag.tasks.teardown import (
    ApproveTeardownOperator,
    DeleteClusterOperator,
    LeftoversOperator,
    RemoveObjectsOperator,
)
from slipway.errors import ClusterUnreachable, GoogleUnreachable, PreflightFailed
from slipway.facts import to_dict
from slipway.gke.leftovers import balancer_name
from slipway.gke.preflight import inspect_cluster_deletion
from slipway.model.target_settings import GkeSettings
from slipway.names import CLUSTER_LABEL_RUN
from slipway.records.history import read_history
from slipway.records.record import read_record, write_record
from slipway.steps.teardown_plan import TeardownPlan
from slipway.verdict import require_nothing_missing

pytestmark = pytest.mark.usefixtures("workloads")


@pytest.fixture
def temporary(release):
    """A release whose run has a temporary cluster."""
    return replace(release, target=TARGET, cluster=GkeSettings(temporary=True).spec)


@pytest.fixture
def in_run(context_of, temporary):
    """Makes the context of a task of a run with a temporary cluster."""
    return lambda task_id, release=temporary: {**context_of(task_id, resolve=release), "task": None}


def provider(**options):
    """The provider's operator, used without Slipway."""
    from airflow.providers.google.cloud.operators.kubernetes_engine import GKEDeleteClusterOperator

    where = {"location": CLUSTER.location, "project_id": CLUSTER.project, "cluster_name": CLUSTER.name}
    return GKEDeleteClusterOperator(task_id="delete", **where, **options)


def test_cluster_is_deleted_and_waited_for(google, planned):
    """The provider's call is made once, and the verdict says that the cluster is gone."""
    put(google, "RUNNING")
    context = planned("delete_cluster")
    assert delete(google, context) == f"{CLUSTER}: gone"
    assert google.clusters == {}
    assert google.calls["DeleteCluster"] == 1
    assert context["ti"].facts["delete_cluster", "verdict"]["outcome"] == "pass"


def test_passes_if_the_cluster_is_gone_already(google, planned):
    """The only call to Google is the one that looks for the cluster."""
    assert delete(google, planned("delete_cluster")) == f"{CLUSTER}: gone already"
    assert set(google.calls) == {"GetCluster"}


def test_waits_if_the_cluster_is_being_deleted(google, planned):
    """The task waits for a deletion that an earlier try or somebody else started, and starts no second one."""
    put(google, "STOPPING")
    assert delete(google, planned("delete_cluster")) == f"{CLUSTER}: gone"
    assert google.calls["DeleteCluster"] == 0


def test_waits_while_the_cluster_is_being_created(google, planned):
    """Google refuses to delete a cluster that is being created: the task waits, then deletes it."""
    put(google, "PROVISIONING")
    assert delete(google, planned("delete_cluster")) == f"{CLUSTER}: gone"
    assert google.calls["DeleteCluster"] == 1


def test_passes_if_the_cluster_disappears(google, planned):
    """A cluster that disappears during the wait is gone."""
    put(google, "RUNNING")
    assert delete(google, planned("delete_cluster"), before_polls=google.clusters.clear) == f"{CLUSTER}: gone"


def test_provider_alone_accepts_a_failed_deletion(google, planned):
    """The provider's wait succeeds on an operation that is DONE with an error, while the cluster still exists."""
    put(google, "RUNNING")
    google.faults.operation_error = "the node pool cannot be drained"
    operator = provider(deferrable=True, poll_interval=0.1)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(planned("delete"))
    end_operations(google)
    event = asyncio.run(anext(deferred.value.trigger.run())).payload
    assert event["status"] == "success"
    assert google.clusters[PATH].status.name == "ERROR"


def test_fails_with_googles_message_if_the_deletion_failed(google, planned):
    """The error has the operation's error; a second try deletes again."""
    put(google, "RUNNING")
    google.faults.operation_error = "the node pool cannot be drained"
    words = r"^TeardownIncomplete: .* it is ERROR: the node pool cannot be drained\. Next: gcloud .* describe"
    with pytest.raises(AirflowFailException, match=words):
        delete(google, planned("delete_cluster"))
    google.faults.operation_error = None
    assert delete(google, planned("delete_cluster")) == f"{CLUSTER}: gone"


def test_refused_in_one_line_if_the_right_to_delete_is_missing(google, planned):
    """The line names the missing right; nothing is deleted."""
    put(google, "RUNNING")
    google.faults.deny = ["DeleteCluster"]
    with pytest.raises(
        AirflowFailException, match=r"^ClusterRefused: .*container\.clusters\.delete.*Next: "
    ) as refusal:
        delete(google, planned("delete_cluster"))
    assert "\n" not in str(refusal.value)
    assert google.clusters[PATH].status.name == "RUNNING"
    assert set(google.calls) == {"GetCluster", "DeleteCluster"}


def test_waits_if_google_is_unavailable(google, planned):
    """Google's client repeats a call that is UNAVAILABLE, and the wait polls again."""
    put(google, "RUNNING")
    google.faults.unavailable = {"DeleteCluster": 2}

    def become_unavailable():
        google.faults.unavailable = {"GetCluster": 2, "ListOperations": 2}

    assert delete(google, planned("delete_cluster"), before_polls=become_unavailable) == f"{CLUSTER}: gone"


def test_goes_on_if_the_response_to_delete_was_lost(google, planned):
    """Google refuses the repeated call because the cluster is being deleted; the task waits for that."""
    put(google, "RUNNING")
    google.faults.swallow = {"DeleteCluster": 1}
    assert delete(google, planned("delete_cluster")) == f"{CLUSTER}: gone"
    assert google.calls["DeleteCluster"] == 2


def test_second_try_waits_for_the_deletion_of_the_first(google, planned):
    """If a worker died after its call, the second try does not delete again."""
    put(google, "RUNNING")
    with pytest.raises(TaskDeferred):
        DeleteClusterOperator(task_id="delete_cluster").execute(planned("delete_cluster"))  # and here it dies
    assert delete(google, planned("delete_cluster")) == f"{CLUSTER}: gone"
    assert google.calls["DeleteCluster"] == 1


def test_fails_if_time_is_up(google, planned, teardown):
    """The error has the cluster's state."""
    put(google, "RUNNING")
    task = DeleteClusterOperator(task_id="delete_cluster")
    context = planned("delete_cluster")
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    deferred.value.trigger.deadline = 0.0
    event = event_of(google, deferred.value.trigger)
    with pytest.raises(AirflowFailException, match=r"^TeardownIncomplete: time is up: .*: STOPPING, being deleted"):
        task.decide(context, event)


def test_right_to_delete_is_checked_before_anything_is_deleted(google):
    """If the account may not delete the cluster, the run fails before a person is asked and before an object is deleted."""
    google.project.missing = ["container.clusters.delete"]
    with pytest.raises(
        PreflightFailed, match=r"no permission container\.clusters\.delete on project slipway-stand\. Next: "
    ):
        require_nothing_missing(str(CLUSTER), inspect_cluster_deletion(TARGET, CLUSTER))
    google.project.missing = []
    require_nothing_missing(str(CLUSTER), inspect_cluster_deletion(TARGET, CLUSTER))


# --- the objects in the cluster ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "words"), [(None, "gone"), ("ERROR", "ERROR"), ("STOPPING", "STOPPING")])
def test_no_objects_are_deleted_without_an_api_server(google, planned, status, words):
    """A cluster that is gone, or whose API server does not answer, needs no deletion of objects."""
    if status:
        put(google, status)
    said = run_task(google, RemoveObjectsOperator(task_id="remove_objects"), planned("remove_objects"))
    assert said == f"{CLUSTER}: {words}, there is nothing to remove"


@pytest.mark.parametrize("task", [RemoveObjectsOperator, DeleteClusterOperator])
def test_retried_if_the_api_server_does_not_answer(google, planned, workloads, task):
    """A RUNNING cluster whose API server does not answer is not deleted."""
    put(google, "RUNNING")
    workloads.error = ClusterUnreachable("no answer")
    with pytest.raises(ClusterUnreachable):
        run_task(google, task(task_id="one"), planned("one"))
    assert google.calls["DeleteCluster"] == 0


# --- the record -------------------------------------------------------------------------------------------------------


def test_teardown_is_recorded(google, planned, store, record_of):
    """The teardown has a record of its own: nothing counts as applied, but a proven release can be rolled back to."""
    write_record(store, record_of("r0", "live", objects=[SERVICE], target=TARGET))
    run_task(google, RemoveObjectsOperator(task_id="remove_objects"), planned("remove_objects"))
    assert delete(google, planned("delete_cluster")) == f"{CLUSTER}: gone already"
    record = read_record(store, "digits-vit", "manual__down")
    assert (record["cause"], record["outcome"], record["objects"], record["removed"]) == (
        "teardown", "gone", [], ["service/tfs-server"],
    )  # fmt: skip
    history = read_history(store, "digits-vit").at(TARGET, "tfs-server")
    assert history.torn_down
    assert history.objects == ()
    assert history.good["run_id"] == "r0"


# --- a temporary cluster ----------------------------------------------------------------------------------------------


def test_temporary_cluster_is_claimed_created_and_deleted(google, in_run, temporary):
    """The run labels its cluster, and deletes only a cluster with that label."""
    run_task(google, ClaimClusterOperator(task_id="claim_cluster"), in_run("claim_cluster"))
    run_task(google, CreateClusterOperator(task_id="create_cluster"), in_run("create_cluster"))
    assert google.clusters[PATH].resource_labels[CLUSTER_LABEL_RUN] == temporary.claim
    assert delete(google, in_run("delete_cluster")) == f"{CLUSTER}: gone"


def test_claim_passes_if_the_run_created_the_cluster(google, in_run):
    """A cleared run continues with its own cluster."""
    run_task(google, CreateClusterOperator(task_id="create_cluster"), in_run("create_cluster"))
    said = run_task(google, ClaimClusterOperator(task_id="claim_cluster"), in_run("claim_cluster"))
    assert said == f"{CLUSTER}: created by this run"


EACH_TASK = pytest.mark.parametrize(
    "task", [ClaimClusterOperator, CreateClusterOperator, RemoveObjectsOperator, DeleteClusterOperator]
)


@pytest.mark.parametrize("labels", [{}, {"slipway-run": "another0run0"}], ids=["no run's", "another run's"])
@EACH_TASK
def test_cluster_that_existed_before_is_refused(google, in_run, labels, task):
    """No task of a run with a temporary cluster uses or deletes a cluster that the run did not create."""
    put(google, "RUNNING", resourceLabels=labels)
    with pytest.raises(AirflowFailException, match=r"^ClusterUnfit: .* was not created by this run.* left as it is"):
        run_task(google, task(task_id="one"), in_run("one"))
    assert google.clusters[PATH].status.name == "RUNNING"
    assert set(google.calls) == {"GetCluster"}


@EACH_TASK
def test_cluster_of_another_airflow_is_refused(google, in_run, temporary, task):
    """Two Airflows with the same store, schedule and model have runs with the same id: each keeps to its own cluster."""
    ours, theirs = (replace(temporary, installation=name) for name in ("here", "there"))
    run_task(google, CreateClusterOperator(task_id="create_cluster"), in_run("create_cluster", theirs))
    with pytest.raises(AirflowFailException, match=r"^ClusterUnfit: .* was not created by this run.* left as it is"):
        run_task(google, task(task_id="one"), in_run("one", ours))
    assert google.clusters[PATH].status.name == "RUNNING"
    assert delete(google, in_run("delete_cluster", theirs)) == f"{CLUSTER}: gone"


def test_cluster_is_deleted_if_its_creation_failed(google, in_run):
    """The run deletes what a stockout left."""
    google.faults.stockout = True
    with pytest.raises(AirflowFailException, match="GCE_STOCKOUT"):
        run_task(google, CreateClusterOperator(task_id="create_cluster"), in_run("create_cluster"))
    assert google.clusters[PATH].status.name == "ERROR"
    assert delete(google, in_run("delete_cluster")) == f"{CLUSTER}: gone"


def test_passes_if_nothing_was_created(google, in_run):
    """After a denied creation there is nothing to delete."""
    assert delete(google, in_run("delete_cluster")) == f"{CLUSTER}: gone already"


def test_temporary_release_does_not_count_as_live(google, in_run, temporary, store, record_of):
    """A release proven on a temporary cluster is not live and cannot be rolled back to; it does not affect the next run."""
    record = record_of("x", "live", objects=[SERVICE], target=TARGET, cluster=temporary.cluster)
    assert record["outcome"] == "proven"
    write_record(store, {**record, "run_id": temporary.run_id})
    delete(google, in_run("delete_cluster"))
    assert read_record(store, "digits-vit", temporary.run_id)["outcome"] == "proven"
    assert read_history(store, "digits-vit").records == ()


# --- leftovers --------------------------------------------------------------------------------------------------------


def test_leftovers_are_listed_with_their_commands(google, planned):
    """All pages of all four lists are read; nothing is deleted."""
    google.residue.forwardingRules = {
        "global": [{"name": "of-somebody-else"}],
        "regions/us-central1": [{"name": balancer_name(BALANCER), "IPAddress": "203.0.113.7"}],
    }
    google.residue.disks = {
        "zones/us-central1-a": [{"name": "pvc-1", "labels": {"goog-k8s-cluster-name": "tfs-cluster"}}]
    }
    found = LeftoversOperator(task_id="leftovers").execute(planned("leftovers"))
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


def test_leftovers_fail_in_one_line_if_a_right_is_missing(google, planned):
    """The line names the missing right; the task is retried if Google is unavailable."""
    google.faults.deny = ["compute.disks.aggregatedList"]
    with pytest.raises(AirflowFailException, match=r"^ClusterRefused: disks of slipway-stand: HTTP 403: .*Next: "):
        LeftoversOperator(task_id="leftovers").execute(planned("leftovers"))
    google.faults.unavailable = {"compute.forwardingRules.aggregatedList": 1}
    with pytest.raises(GoogleUnreachable):
        LeftoversOperator(task_id="leftovers").execute(planned("leftovers"))


def test_plan_survives_xcom(planned, teardown):
    """A TeardownPlan is the same after the way through JSON."""
    from slipway.facts import from_dict

    left = planned("approve")["ti"].facts["look", "return_value"]
    assert from_dict(TeardownPlan, json.loads(json.dumps(left))).teardown == teardown
    assert to_dict(from_dict(TeardownPlan, left)) == left


NOT_APPROVED = {
    "rejected": ({"chosen_options": ["Reject"]}, r"^rejected: nothing is deleted\. Next: "),
    "no answer": ({"error": "late", "error_type": "timeout"}, r"^not answered in time: nothing is deleted\. Next: "),
    "not asked": ({"error": "broken", "error_type": "unknown"}, r"^Airflow could not ask: .*\. Next: "),
}


@pytest.mark.parametrize(("answer", "words"), NOT_APPROVED.values(), ids=NOT_APPROVED)
def test_any_answer_but_yes_fails_without_asking_again(context_of, answer, words):
    """The task has retries only for tries that Airflow loses; an answer is final."""
    task = ApproveTeardownOperator(task_id="approve", subject="Delete it?", fail_on_reject=True)
    event = {"params_input": {}, "responded_at": datetime.now(UTC), "responded_by_user": None, **answer}
    with pytest.raises(AirflowFailException, match=words):
        task.execute_complete(context_of("approve"), event)
