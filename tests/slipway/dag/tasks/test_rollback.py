from dataclasses import replace

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred

from slipway.dag.run import Run
from slipway.dag.tasks.rollback import UNDOING, RollbackOperator
from slipway.errors import LeaseLost, TargetBusy
from slipway.facts import to_dict
from slipway.records.record import read_record

STUCK = (
    "deployment/tfs-server in shop: 0 of 1 updated replicas are available; pod/a: ErrImagePull: x: not found, for 12 s"
)


@pytest.fixture
def rolling_back(context_of, release, export, applied):
    """The context of a rollback that has applied the last good release again."""
    context = context_of("rollback")
    undoing = {
        "release": to_dict(release),
        "export": to_dict(export),
        "applied": to_dict(applied),
        "reason": "not proven",
    }
    context["ti"].xcom_push(key=UNDOING, value=undoing)
    return context


def rollback():
    """The teardown."""
    return RollbackOperator(task_id="rollback", model="digits-vit", proof_task_id="gate")


def test_a_stuck_rollback_says_why_and_what_next(rolling_back, release, store):
    """A release that will not come back fails the teardown in its pods' words, and its record is closed with them."""
    event = {"outcome": "fail", "reason": STUCK, "found": None}
    with pytest.raises(AirflowFailException) as failure:
        rollback().rolled_out(rolling_back, event)
    assert str(failure.value) == (
        f"RollbackFailed: release abcdefabcdef: {STUCK}. "
        "Next: kubectl -n shop describe pods -l slipway/release=abcdefabcdef"
    )
    record = read_record(store, release.model, release.run_id)
    assert (record["outcome"], record["verdicts"]["rollback"]["reason"]) == ("failed", STUCK)


@pytest.mark.parametrize("error", [TargetBusy("held by run r9"), LeaseLost("this run's no more")])
def test_nothing_is_undone_if_the_target_is_anothers(rolling_back, leases, error):
    """A run that does not have the Lease undoes nothing of what another may be doing, and the record will say so."""
    leases.answers.append(error)
    with pytest.raises(AirflowSkipException):
        rollback().rolled_out(rolling_back, {"outcome": "pass", "reason": "there", "found": None})
    said = Run(rolling_back).verdict_of("rollback")
    assert (said["outcome"], said["reason"]) == ("fail", f"nothing is rolled back: {type(error).__name__}: {error}")


def test_what_came_back_counts_only_while_the_target_is_the_runs(rolling_back, leases, release, store):
    """A rollback whose Lease a person has broken during its gate records nothing as live: what serves is the breaker's to prove."""
    leases.answers.append(LeaseLost("this run's no more"))
    with pytest.raises(AirflowSkipException):
        rollback().gated(rolling_back, {"outcome": "pass", "reason": "right", "found": None})
    assert read_record(store, release.model, release.run_id) is None


def test_a_rollback_that_came_goes_on_to_the_address(rolling_back, leases):
    """A rollout that passed is not the end: address and gate follow, the Lease renewed for as long as they may take."""
    with pytest.raises(TaskDeferred) as deferral:
        rollback().rolled_out(rolling_back, {"outcome": "pass", "reason": "there", "found": None})
    assert deferral.value.method_name == "addressed"
    assert leases.asked == [("slipway-tfs-server", "refresh_digits_vit", 660)]


def test_a_rollback_is_asked_over_grpc_too(rolling_back, leases):
    """What comes back has to answer where the first gate asked: over REST and over gRPC, by the same descriptors."""
    found = {"url": "http://203.0.113.9:8501", "grpc": "203.0.113.9:8500"}
    with pytest.raises(TaskDeferred) as deferral:
        rollback().addressed(rolling_back, {"outcome": "pass", "reason": "there", "found": found})
    _, kept = deferral.value.trigger.serialize()
    assert found.items() <= kept.items()
    assert (kept["version"], kept["descriptors_uri"]) == (7, "file:///store/exports/digits-vit/7/descriptors.bin")


def test_a_rollback_behind_a_fixed_url_needs_no_address(rolling_back, leases, release):
    """The model file's URL, and gRPC's address where it has one, are taken as they are."""
    fixed = replace(release, address="https://models.example.com/", grpc_address="models.example.com:8500")
    rolling_back["ti"].facts["rollback", UNDOING]["release"] = to_dict(fixed)
    with pytest.raises(TaskDeferred) as deferral:
        rollback().rolled_out(rolling_back, {"outcome": "pass", "reason": "there", "found": None})
    _, kept = deferral.value.trigger.serialize()
    assert (kept["url"], kept["grpc"]) == ("https://models.example.com", "models.example.com:8500")
