"""The Lease of a run: from its tasks to the stand's API server."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException
from leases import NOW, holder_of, kubectl, lease, place_on

from slipway.dag.run import Run
from slipway.dag.run_lease import RunLease, acquire_run_lease, lease_broken_by, return_run_leases
from slipway.dag.tasks.gate import PredictionSensor
from slipway.errors import LeaseLost, TargetBusy
from slipway.kubernetes.lease import judge_lease


def test_two_installations_with_one_store_are_different_holders(context_of, release, monkeypatch):
    """Installations differ by their names: two can share the store, and run ids if their schedules are the same."""
    run = Run(context_of("plan"))
    ours = RunLease.of(run, release).me
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_INSTALLATION", "there")
    theirs = RunLease.of(run, release).me
    assert (ours.installation, theirs.installation) == ("here", "there")
    assert (ours.dag_id, ours.run_id) == (theirs.dag_id, theirs.run_id)
    assert judge_lease(lease(theirs), ours, now=NOW, is_over=lambda _: True).outcome == "wait"


@pytest.fixture
def place(stand, monkeypatch):
    """The place of a Lease that only the test uses, in the stand's namespace."""
    with place_on(stand, monkeypatch) as place:
        yield place


@pytest.fixture
def run_of(place, stand, release, context_of, record_of):
    """Makes a task of a run: `run_of(dag_id, run_id, task_id)`; the tasks of a run share their XCom."""
    runs = {}
    asked = replace(release, target=place.target, deployment=place.deployment)

    def make(dag_id, run_id, task_id, **params):
        context = runs.setdefault((dag_id, run_id), context_of(task_id, resolve=asked))
        context["ti"].task_id, context["ti"].dag_id = task_id, dag_id
        context.update(run_id=run_id, params={**context["params"], **params})
        return Run(context)

    return make


@pytest.mark.stand
@pytest.mark.alongside
def test_a_run_holds_the_lease_from_plan_to_record(stand, place, run_of):
    """A run's tasks renew one Lease, another run is refused until it is returned, and then it is deleted."""
    acquire_run_lease(run_of("refresh_digits_vit", "r1", "plan"), 500)
    with pytest.raises(TargetBusy):
        acquire_run_lease(run_of("rollback_digits_vit", "r2", "choose"), 3600)
    acquire_run_lease(run_of("refresh_digits_vit", "r1", "apply"), 600)
    spec = json.loads(kubectl(stand, "get", "lease", place.name, "-o", "json"))["spec"]
    assert (spec["leaseDurationSeconds"], spec["leaseTransitions"]) == (600, 0)
    return_run_leases(run_of("refresh_digits_vit", "r1", "record"))
    assert place.name not in kubectl(stand, "get", "leases", "-o", "name")
    acquire_run_lease(run_of("rollback_digits_vit", "r2", "choose"), 3600)


@pytest.mark.stand
@pytest.mark.alongside
def test_a_broken_lease_is_lost_and_the_breaker_remembers_whose_it_was(stand, place, run_of):
    """The run that breaks the Lease remembers its holder; that holder writes no more, even after the breaker has ended."""
    acquire_run_lease(run_of("refresh_digits_vit", "r1", "plan"), 3600)
    acquire_run_lease(run_of("rollback_digits_vit", "r2", "choose", break_lease=True), 3600)
    acquire_run_lease(run_of("rollback_digits_vit", "r2", "apply"), 3600)
    assert lease_broken_by(run_of("rollback_digits_vit", "r2", "record")).startswith(
        "run r1 of refresh_digits_vit (installation "
    )
    with pytest.raises(LeaseLost, match="now held by run r2 of rollback_digits_vit"):
        acquire_run_lease(run_of("refresh_digits_vit", "r1", "apply"), 3600)
    return_run_leases(run_of("refresh_digits_vit", "r1", "record"))
    assert "rollback_digits_vit" in holder_of(stand, place)
    return_run_leases(run_of("rollback_digits_vit", "r2", "record"))
    for lost in ({}, {"break_lease": True}):
        with pytest.raises(LeaseLost, match="broken, and free now"):
            acquire_run_lease(run_of("refresh_digits_vit", "r1", "rollback", **lost), 3600)


@pytest.mark.stand
@pytest.mark.alongside
def test_a_gate_that_passed_while_its_lease_was_broken_is_no_pass(place, run_of):
    """The right answers may come from the release of the run that broke the Lease: the gate fails."""
    acquire_run_lease(run_of("refresh_digits_vit", "r1", "plan"), 3600)
    acquire_run_lease(run_of("rollback_digits_vit", "r2", "choose", break_lease=True), 3600)
    run = run_of("refresh_digits_vit", "r1", "gate")
    with pytest.raises(AirflowFailException, match=r"^LeaseLost: .*now held by run r2 of rollback_digits_vit"):
        PredictionSensor(task_id="gate").decide(run.context, {"outcome": "pass", "reason": "right", "found": None})
    assert run.verdict_of("gate")["outcome"] == "fail"


@pytest.mark.stand
@pytest.mark.alongside
def test_a_cleared_run_may_acquire_the_lease_again(place, run_of):
    """A run that returned or lost its Lease may acquire it again when a person clears it."""
    run = run_of("refresh_digits_vit", "r1", "plan")
    acquire_run_lease(run, 3600)
    return_run_leases(run)
    with pytest.raises(LeaseLost):
        acquire_run_lease(run_of("refresh_digits_vit", "r1", "gate"), 3600)
    run.context["dag_run"] = SimpleNamespace(run_type="manual", clear_number=1)
    acquire_run_lease(run_of("refresh_digits_vit", "r1", "gate"), 3600)


@pytest.mark.stand
@pytest.mark.alongside
def test_a_cleared_run_breaks_no_lease(stand, place, run_of):
    """A run broke a Lease and ended. If it is cleared while another run writes, it is refused, and the other run keeps its Lease."""
    acquire_run_lease(run_of("refresh_digits_vit", "r1", "plan"), 3600)
    breaker = run_of("rollback_digits_vit", "r2", "choose", break_lease=True)
    acquire_run_lease(breaker, 3600)
    return_run_leases(breaker)
    acquire_run_lease(run_of("refresh_digits_vit", "r3", "plan"), 3600)
    cleared = run_of("rollback_digits_vit", "r2", "choose")
    cleared.context["dag_run"] = SimpleNamespace(run_type="manual", clear_number=1)
    with pytest.raises(TargetBusy, match="held by run r3 of refresh_digits_vit"):
        acquire_run_lease(cleared, 3600)
    assert holder_of(stand, place).endswith("/refresh_digits_vit/r3")


@pytest.mark.stand
@pytest.mark.alongside
def test_a_teardown_checks_the_lease_before_the_approval(place, run_of):
    """While a refresh runs, a teardown is refused before a person is asked, unless it breaks the Lease."""
    refresh = run_of("refresh_digits_vit", "r1", "plan")
    acquire_run_lease(refresh, 3600)
    with pytest.raises(TargetBusy, match="trigger teardown_digits_vit --conf"):
        RunLease.of(run_of("teardown_digits_vit", "r2", "look"), refresh.release).check_free()
    RunLease.of(run_of("teardown_digits_vit", "r3", "look", break_lease=True), refresh.release).check_free()
