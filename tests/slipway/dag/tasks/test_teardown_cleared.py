"""The deleting tasks of a teardown, each cleared alone: they rely on no earlier task but the approval."""

import pytest
from airflow.sdk.exceptions import AirflowFailException
from google_clock import run_task
from teardowns import CLUSTER, delete, put, running

from slipway.dag.tasks.teardown import DeleteClusterOperator, RemoveObjectsOperator
from slipway.errors import NamespaceMissing, TargetBusy


def test_deletion_surveys_the_cluster_under_the_lease(google, planned, workloads):
    """If the task is cleared alone, it holds the Lease for as long as the deletion may take."""
    put(google, "RUNNING")
    assert delete(google, planned("delete_cluster")) == f"{CLUSTER}: gone"
    assert workloads.leases.asked == [("slipway-tfs-server", "refresh_digits_vit", 1860)]


def refuse(google, context, error, words):
    """Run the task that deletes the cluster: it ends in this error, with this reason, and deletes nothing."""
    with pytest.raises(error, match=words):
        delete(google, context)
    assert google.calls["DeleteCluster"] == 0


def test_deletion_is_refused_while_another_run_writes(google, planned, workloads):
    """A refresh may be deploying the model again."""
    put(google, "RUNNING")
    workloads.leases.answers.append(TargetBusy("held by run r9"))
    refuse(google, planned("delete_cluster"), TargetBusy, "held by run r9")


def test_deletion_is_refused_if_something_was_added(google, planned, workloads):
    """What a person did not approve is not deleted."""
    put(google, "RUNNING")
    workloads.items = [running("Deployment", "shop-window", model="windows")]
    words = r"^ClusterInUse: .*added after the approval: deployment/shop-window in shop, of model windows"
    refuse(google, planned("delete_cluster"), AirflowFailException, words)
    assert delete(google, planned("delete_cluster", others=("deployment/shop-window in shop, of model windows",)))


def test_deletion_is_refused_if_the_model_serves_again(google, planned, workloads):
    """A refresh may have deployed the model after its objects were deleted: users would lose it."""
    put(google, "RUNNING")
    workloads.items = [running("Service", "tfs-server")]
    words = (
        r"^ClusterInUse: .*service/tfs-server in shop of model digits-vit is there\. Next: clear remove_objects and "
    )
    refuse(google, planned("delete_cluster"), AirflowFailException, words)


@pytest.mark.parametrize("answer", [None, "Reject"])
@pytest.mark.parametrize("task", [RemoveObjectsOperator, DeleteClusterOperator])
def test_nothing_is_deleted_without_an_approval(google, planned, task, answer):
    """A person's answer counts, not the state of `approve`, which somebody may have set to success."""
    put(google, "RUNNING")
    words = r"^InputRefused: .*nobody has approved its deletion in this run\. Next: clear approve, or trigger teardown_digits_vit"
    with pytest.raises(AirflowFailException, match=words):
        run_task(google, task(task_id="one"), planned("one", answer=answer))
    assert google.calls == {}


def test_teardown_goes_on_if_the_models_namespace_is_missing(google, planned, workloads, caplog):
    """No Lease can be there, and nothing of the model: a run may have failed before it created the namespace."""
    put(google, "RUNNING")
    workloads.leases.answers.append(NamespaceMissing('lease/slipway-tfs-server in shop: namespaces "shop" not found'))
    assert delete(google, planned("delete_cluster")) == f"{CLUSTER}: gone"
    assert "there is no namespace shop, so nothing of the model is there" in caplog.text
