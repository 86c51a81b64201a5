"""Which tasks of a refresh Airflow's own scheduler starts, whatever the tasks beside each other have come to."""

import pytest
from dag_trials import GOOD
from scheduling import Scheduled

BUILDS = ("export", "build_image", "smoke_test", "push")
STATES = {
    "all is built": ({}, {"preview_gate", "apply", "gate"}, set()),
    "only manifests changed": (dict.fromkeys(BUILDS, "skipped"), {"preview_gate", "apply", "gate"}, set()),
    "the smoke test failed": (
        {"smoke_test": "failed"},
        {"wait_for_preview"},
        {"preview_gate", "apply", "gate", "announce"},
    ),
    "the preview cannot become ready": (
        {"wait_for_preview": "failed"},
        {"smoke_test"},
        {"preview_gate", "apply", "gate"},
    ),
    "the push was refused": ({"push": "failed"}, {"smoke_test"}, {"preview", "preview_gate", "apply", "gate"}),
    "there is no preview": ({"preview": "skipped", "preview_gate": "skipped"}, {"apply", "gate"}, {"wait_for_preview"}),
    "the address did not come": ({"wait_for_address": "failed"}, {"wait_for_rollout"}, {"gate", "announce"}),
}


def run_of(dag, ends):
    """The tasks that the scheduler queues together, turn by turn, if they end in these states, and all others succeed."""
    scheduled, turns = Scheduled(dag), []
    for _ in range(3 * len(dag.tasks)):  # a state that only passes on to the next task takes a turn too
        now = scheduled.queue()
        for task, number in now:
            scheduled.end(task, number, ends.get(task, "success"))
        turns.append({task for task, _ in now})
    return turns


@pytest.mark.parametrize(("ends", "started", "not_started"), STATES.values(), ids=STATES)
def test_a_gate_waits_for_both_sides_of_a_fork(dags_of, ends, started, not_started):
    """It runs if neither has failed; a failed side starts nothing below, and the teardowns run in any case."""
    seen = set().union(*run_of(dags_of(forked=GOOD)["forked"], ends))
    assert started <= seen
    assert not not_started & seen
    assert {"rollback", "remove_preview", "record", "prune"} <= seen


def test_smoke_test_and_push_are_queued_together(dags_of):
    """Neither waits for the other; nor does the wait for the address for the rollout."""
    together = run_of(dags_of(forked=GOOD)["forked"], {})
    assert {"smoke_test", "push"} in together
    assert {"wait_for_rollout", "wait_for_address"} in together
