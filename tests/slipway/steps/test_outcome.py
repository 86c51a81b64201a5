from dataclasses import replace

import pytest

from slipway.steps.outcome import (
    describe_ended_run,
    is_run_proven,
    was_run_ended_by_hand,
    why_run_must_not_write,
    with_load_verdict,
)

PASSED, FAILED, INCONCLUSIVE = {"outcome": "pass"}, {"outcome": "fail"}, {"outcome": "inconclusive"}
PROVEN = {
    "the gate passed": (PASSED, None, "success", True),
    "the gate failed": (FAILED, None, "failed", False),
    "a person approved": (INCONCLUSIVE, PASSED, "success", True),
    "a person rejected": (INCONCLUSIVE, FAILED, "failed", False),
    "nobody was asked yet": (INCONCLUSIVE, None, "success", False),
    "the gate passed and a person had rejected before": (PASSED, FAILED, "success", True),
    "the gate left no verdict": (None, None, "success", False),
    "the gate failed and a person approved before": (FAILED, PASSED, "success", False),
    "the gate passed and the last task failed": (PASSED, None, "failed", False),
    "the last task has no state": (PASSED, None, None, False),
}


@pytest.mark.parametrize(("gate", "approval", "state", "proven"), PROVEN.values(), ids=PROVEN)
def test_proven_only_by_a_pass_and_a_success(gate, approval, state, proven):
    """The gate's pass counts; if the gate is inconclusive, the approval's pass counts; a task state alone does not."""
    assert proven is is_run_proven(gate=gate, approval=approval, proof_state=state)


TOGETHER = {
    "no load": (PASSED, None, "pass"),
    "both passed": (PASSED, PASSED, "pass"),
    "the gate is inconclusive": (INCONCLUSIVE, PASSED, "inconclusive"),
    "the load is inconclusive": (PASSED, INCONCLUSIVE, "inconclusive"),
}


@pytest.mark.parametrize(("gate", "load", "outcome"), TOGETHER.values(), ids=TOGETHER)
def test_a_person_decides_on_gate_and_load_at_once(gate, load, outcome):
    """One question with everything that was measured; nothing is lost of either."""
    gate = {**gate, "reason": "3 of 3", "measured": {"latency_ms": 40}}
    load = load and {**load, "reason": "load: 5/s", "measured": {"load": {"uri": "u"}}}
    found = with_load_verdict(gate, load)
    assert found["outcome"] == outcome
    assert found["reason"] == ("3 of 3; load: 5/s" if load else "3 of 3")
    assert found["measured"] == {"latency_ms": 40, **({"load": {"uri": "u"}} if load else {})}


BAKED = {
    "it passed": (PASSED, PASSED, True),
    "it failed": (PASSED, FAILED, False),
    "it left no verdict, because a person set its state": (PASSED, None, False),
    "it passed, and the gate did not": (FAILED, PASSED, False),
}


@pytest.mark.parametrize(("gate", "bake", "proven"), BAKED.values(), ids=BAKED)
def test_a_bake_must_pass_too(gate, bake, proven):
    """In a run with a bake the release is proven only after it."""
    assert proven is is_run_proven(gate=gate, approval=None, proof_state="success", bake=bake, baked=True)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (None, None),
        ("success", None),
        (
            "skipped",
            "apply: somebody ended the run; nothing was written. Next: trigger refresh_digits_vit again",
        ),
    ],
)
def test_nothing_may_be_written_if_announce_was_skipped(state, reason):
    """Airflow skips `announce` when a person ends the run."""
    assert reason == why_run_must_not_write(state, "refresh_digits_vit")


ENDED = [
    (False, "skipped", True),
    (False, "success", True),
    (False, "upstream_failed", False),
    (False, None, False),
    (True, "success", False),
    (True, "skipped", False),
]


@pytest.mark.parametrize(("proven", "state", "by_hand"), ENDED)
def test_ended_by_hand_if_announce_went_on_without_a_proof(proven, state, by_hand):
    """Only a person can have skipped `announce`, or marked it a success, before the release was proven."""
    assert by_hand is was_run_ended_by_hand(proven=proven, announce_state=state)


AGAIN = "Next: trigger refresh_digits_vit again"
NOT_ROLLED_BACK = (
    "what it applied was not rolled back. Next: kubectl -n shop describe deployment tfs-server; "
    "then trigger refresh_digits_vit again"
)
LEFT = {
    "the last good release was restored": ({"action": "restore"}, "success", "success", f"the release before it serves again. {AGAIN}"),
    "a first release was deleted": ({"action": "remove"}, "success", "success", f"it was deleted again. {AGAIN}"),
    "a first release was kept": ({"action": "keep"}, "success", "success", NOT_ROLLED_BACK),
    "the rollback failed": (None, "failed", "success", NOT_ROLLED_BACK),
    "the rollback failed after an earlier try": ({"action": "restore"}, "failed", "failed", NOT_ROLLED_BACK),
    "nothing was applied": (None, "skipped", "skipped", f"what serves was not touched. {AGAIN}"),
    "apply was not reached": (None, "skipped", None, f"what serves was not touched. {AGAIN}"),
}  # fmt: skip


@pytest.mark.parametrize(("rollback", "rollback_state", "apply_state", "words"), LEFT.values(), ids=LEFT)
def test_what_is_live_if_a_person_ended_the_run(release, rollback, rollback_state, apply_state, words):
    """It follows from the rollback's result and from whether anything was applied."""
    assert words == describe_ended_run(
        rollback=rollback,
        rollback_state=rollback_state,
        apply_state=apply_state,
        release=replace(release, deployment="tfs-server"),
        dag_id="refresh_digits_vit",
    )
