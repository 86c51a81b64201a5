import pytest

from slipway.records.history import History
from slipway.steps.plan import Observation, plan_refresh
from slipway.steps.rollback import plan_rollback
from slipway.verdict import Verdict

UNDO = {
    "nothing was ever applied": ([], False, "nothing", None),
    "this run was proven": ([("r0", "live"), ("now", "open")], True, "nothing", None),
    "this run applied nothing": ([("r0", "live")], False, "nothing", None),
    "this run applied and was not proven": ([("r0", "live"), ("now", "open")], False, "restore", "r0"),
    "an earlier run was killed half-way": ([("r0", "live"), ("r1", "open")], False, "restore", "r0"),
    "an earlier run failed and its undo too": ([("r0", "live"), ("r1", "failed"), ("r1.undo", "failed")], False, "restore", "r0"),
    "an earlier run failed and was undone": ([("r0", "live"), ("r1", "failed"), ("r1.undo", "live")], False, "nothing", None),
    "a first release failed": ([("now", "open")], False, "remove", None),
    "this run was live, and its gate was cleared and failed": ([("r0", "live"), ("now", "live")], False, "restore", "r0"),
    "likewise, and it was the first": ([("now", "live")], False, "keep", None),
    "likewise, and its rollback died": ([("r0", "live"), ("now", "live"), ("now.undo", "open")], False, "restore", "r0"),
    "a rollback died after a run that never was live": ([("r0", "live"), ("now", "open"), ("now.undo", "open")], False, "restore", "r0"),
}  # fmt: skip


@pytest.mark.parametrize(("records", "proven", "action", "good"), UNDO.values(), ids=UNDO)
def test_undone_if_what_was_applied_last_was_not_proven(record_of, records, proven, action, good):
    """Whatever was applied last and not proven live is undone, by whichever run comes next."""
    history = History(tuple(record_of(run, outcome, n) for n, (run, outcome) in enumerate(records)))
    undo = plan_rollback(history, run_id="now", proven=proven, applied=True)
    assert (undo.action, undo.good["run_id"] if undo.good else None) == (action, good)


def test_a_cleared_run_that_applies_nothing_undoes_nothing(record_of):
    """What it brought at its first try is live as before: the second failed before its apply."""
    history = History((record_of("r0", "live", 0), record_of("now", "live", 1)))
    assert plan_rollback(history, run_id="now", proven=False, applied=False).action == "nothing"


def test_first_release_is_left_if_the_model_file_says_so(record_of):
    """A first release that failed stays for inspection where `on_first_failure` is keep."""
    undo = plan_rollback(
        History((record_of("now", "open", keep_first=True),)), run_id="now", proven=False, applied=True
    )
    assert undo.action == "keep"


def test_nothing_is_removed_that_another_store_may_know(record_of):
    """A first release that took another's place stays, whichever of the store's runs comes next."""
    found = {**record_of("r0", "failed", 0), "found": True}
    undo = plan_rollback(History((found, record_of("now", "open", 1))), run_id="now", proven=False, applied=True)
    assert undo.action == "keep"
    assert "this store has no record of" in undo.reason


KILLED = {  # the records that a run leaves which dies there, what the next plan does, and the next rollback of a run that failed
    "before its record was opened": ([("r0", "live")], "nothing", "nothing"),
    "after its record was opened, before the apply": ([("r0", "live"), ("r1", "open")], "manifests", "restore"),
    "between apply and prune": ([("r0", "live"), ("r1", "open")], "manifests", "restore"),
    "during the gate": ([("r0", "live"), ("r1", "open")], "manifests", "restore"),
    "between gate and record": ([("r0", "live"), ("r1", "open")], "manifests", "restore"),
    "during its rollback": ([("r0", "live"), ("r1", "open"), ("r1.undo", "open")], "manifests", "restore"),
    "between rollback and record": ([("r0", "live"), ("r1", "open"), ("r1.undo", "live")], "nothing", "nothing"),
    "in a first release": ([("r1", "open")], "everything", "remove"),
}


@pytest.mark.parametrize(("records", "planned", "undone"), KILLED.values(), ids=KILLED)
def test_what_a_killed_run_left_is_understood(record_of, release, records, planned, undone):
    """Wherever a run dies, its records tell the next one to go on or to undo, and neither takes what is half done for good.

    A record that is being written is the old one until it is the new one: a store has no third state (test_store).
    """
    history = History(tuple(record_of(run, outcome, n) for n, (run, outcome) in enumerate(records)))
    assert plan_refresh(release, Observation(history=history, health=Verdict.passed("it answers"))).action == planned
    assert plan_rollback(history, run_id="now", proven=False, applied=True).action == undone


def test_nothing_is_removed_while_a_record_cannot_be_read(record_of):
    """A release that looks like a first one may have a good one before it, in a record that cannot be read: it stays."""
    undo = plan_rollback(
        History((record_of("now", "open"),), ("r0.json: no JSON object",)), run_id="now", proven=False, applied=True
    )
    assert (undo.action, undo.reason) == (
        "keep",
        "the last good release may be in a record that cannot be read: r0.json: no JSON object",
    )
