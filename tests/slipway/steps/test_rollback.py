import pytest

from slipway.records.history import History
from slipway.steps.plan import Observation, plan_refresh
from slipway.steps.rollback import plan_rollback
from slipway.verdict import Verdict

PLANS = {
    "nothing was ever applied": ([], False, "nothing", None),
    "this run was proven": ([("r0", "live"), ("now", "open")], True, "nothing", None),
    "this run applied nothing": ([("r0", "live")], False, "nothing", None),
    "this run applied and was not proven": ([("r0", "live"), ("now", "open")], False, "restore", "r0"),
    "an earlier run was killed": ([("r0", "live"), ("r1", "open")], False, "restore", "r0"),
    "an earlier run failed and its rollback too": ([("r0", "live"), ("r1", "failed"), ("r1.plan", "failed")], False, "restore", "r0"),
    "an earlier run failed and was rolled back": ([("r0", "live"), ("r1", "failed"), ("r1.plan", "live")], False, "nothing", None),
    "a first release failed": ([("now", "open")], False, "remove", None),
    "this run was live; its cleared gate failed": ([("r0", "live"), ("now", "live")], False, "restore", "r0"),
    "this first run was live; its cleared gate failed": ([("now", "live")], False, "keep", None),
    "this run was live; its cleared gate failed; its rollback was killed": ([("r0", "live"), ("now", "live"), ("now.plan", "open")], False, "restore", "r0"),
    "this run was never live; its rollback was killed": ([("r0", "live"), ("now", "open"), ("now.plan", "open")], False, "restore", "r0"),
}  # fmt: skip


@pytest.mark.parametrize(("records", "proven", "action", "good"), PLANS.values(), ids=PLANS)
def test_rolled_back_if_what_was_applied_last_was_not_proven(record_of, records, proven, action, good):
    """The next run of the model rolls back what was applied last and not proven live."""
    history = History(tuple(record_of(run, outcome, n) for n, (run, outcome) in enumerate(records)))
    plan = plan_rollback(history, run_id="now", proven=proven, applied=True)
    assert (plan.action, plan.good["run_id"] if plan.good else None) == (action, good)


def test_nothing_is_rolled_back_if_a_cleared_run_applied_nothing(record_of):
    """The second try failed before `apply`: the release of the first try is still live."""
    history = History((record_of("r0", "live", 0), record_of("now", "live", 1)))
    assert plan_rollback(history, run_id="now", proven=False, applied=False).action == "nothing"


def test_first_release_is_kept_if_the_model_file_says_so(record_of):
    """A first release that failed is kept for inspection if `on_first_failure` is keep."""
    plan = plan_rollback(
        History((record_of("now", "open", keep_first=True),)), run_id="now", proven=False, applied=True
    )
    assert plan.action == "keep"


def test_first_release_is_kept_if_it_replaced_an_unknown_one(record_of):
    """Another store may have a record of what it replaced; this holds for all later runs of this store."""
    found = {**record_of("r0", "failed", 0), "found": True}
    plan = plan_rollback(History((found, record_of("now", "open", 1))), run_id="now", proven=False, applied=True)
    assert plan.action == "keep"
    assert "this store has no record of" in plan.reason


KILLED = {  # when the run is killed: its records, the action of the next plan, and of the rollback of the next failed run
    "before its record is opened": ([("r0", "live")], "nothing", "nothing"),
    "after its record is opened, before the apply": ([("r0", "live"), ("r1", "open")], "manifests", "restore"),
    "after the apply": ([("r0", "live"), ("r1", "open")], "manifests", "restore"),
    "during the gate": ([("r0", "live"), ("r1", "open")], "manifests", "restore"),
    "between gate and record": ([("r0", "live"), ("r1", "open")], "manifests", "restore"),
    "during its rollback": ([("r0", "live"), ("r1", "open"), ("r1.plan", "open")], "manifests", "restore"),
    "between rollback and record": ([("r0", "live"), ("r1", "open"), ("r1.plan", "live")], "nothing", "nothing"),
    "in a first release": ([("r1", "open")], "everything", "remove"),
}


@pytest.mark.parametrize(("records", "planned", "rolled_back"), KILLED.values(), ids=KILLED)
def test_next_run_continues_or_rolls_back_if_a_run_was_killed(record_of, release, records, planned, rolled_back):
    """The records of a killed run lead the next one to continue or to roll back; neither takes half-done work for proven.

    The store replaces a record atomically: there is no state between the old record and the new one (test_store).
    """
    history = History(tuple(record_of(run, outcome, n) for n, (run, outcome) in enumerate(records)))
    assert plan_refresh(release, Observation(history=history, health=Verdict.passed("it answers"))).action == planned
    assert plan_rollback(history, run_id="now", proven=False, applied=True).action == rolled_back


def test_first_release_is_kept_if_a_record_cannot_be_read(record_of):
    """The record that cannot be read may be of an earlier good release."""
    plan = plan_rollback(
        History((record_of("now", "open"),), ("r0.json: no JSON object",)), run_id="now", proven=False, applied=True
    )
    assert (plan.action, plan.reason) == (
        "keep",
        "the last good release may be in a record that cannot be read: r0.json: no JSON object",
    )
