import json
from dataclasses import replace
from datetime import datetime

import pytest

from slipway.dag.run import Run
from slipway.errors import InputRefused
from slipway.facts import Plan, to_dict
from slipway.records.history import find_bad, read_records
from slipway.verdict import Verdict


def test_facts_are_what_tasks_left(context_of, release, export, proof, pushed, applied):  # noqa: PLR0917 - one of each
    """Each fact is the one that its task left."""
    run = Run(
        context_of(
            "gate", resolve=release, export=export, build_image=proof.image, smoke_test=proof, push=pushed, apply=applied,
            wait_for_address="http://x:8501",
        )
    )  # fmt: skip
    left = (run.release, run.export, run.image, run.proof, run.pushed, run.applied, run.address)
    assert left == (release, export, proof.image, proof, pushed, applied, "http://x:8501")


TASKS = {
    "release": "resolve",
    "export": "export",
    "image": "build_image",
    "proof": "smoke_test",
    "pushed": "push",
    "applied": "apply",
    "address": "wait_for_address",
}


@pytest.mark.parametrize(("fact", "task_id"), TASKS.items())
def test_refused_if_a_task_left_nothing(context_of, fact, task_id):
    """A fact that is missing is refused, naming the task to clear."""
    with pytest.raises(InputRefused, match=rf"^task {task_id}: left nothing in this run\. Next: clear {task_id}$"):
        getattr(Run(context_of("gate")), fact)


def test_refused_if_a_task_left_something_else(context_of, export):
    """A fact of another kind is refused in one line."""
    with pytest.raises(InputRefused, match=r"^Release from an earlier task: .*Next: "):
        Run(context_of("gate", resolve=export)).release  # noqa: B018 - reading it is the act


def test_release_that_a_plan_brings_back(context_of, release, export, pushed):
    """Where the plan brings a recorded release back, that one is the run's, not the one that it was triggered for."""
    back = replace(release, manifests_hash="sha256:9")
    plan = Plan(action="restore", reasons=("not well",), export=export, pushed=pushed, release=back)
    assert Run(context_of("apply", resolve=release, plan=plan)).release == back
    assert Run(context_of("apply", resolve=release, plan=replace(plan, release=None))).release == release


def test_a_bad_release_is_in_the_record_before_its_run_ends(context_of, release, store):
    """A run that is killed between the verdict and its record leaves word of the bad release: the schedule knows it."""
    Run(context_of("smoke_test", resolve=release)).report(Verdict.failed("wrong label"), bad=True)
    found = find_bad(read_records(store, release.model).records, release)
    assert (found["outcome"], found["bad"]) == ("open", {"task": "smoke_test", "reason": "wrong label"})


def test_a_store_that_does_not_take_the_mark_hides_no_verdict(context_of, release, caplog):
    """What cannot be marked now is written by the record, at the run's end."""
    run = Run(context_of("gate", resolve=replace(release, store="file:///proc/nowhere")))
    run.report(Verdict.failed("wrong label"), bad=True)
    assert run.verdict_of("gate")["bad"] is True
    assert "record: not marked bad before its end: " in caplog.text


def test_verdict_is_left_beside_the_fact(context_of):
    """A task's verdict is found by the task's name, with the time, and leaves its fact alone."""
    run = Run(context_of("gate", gate="the fact"))
    assert run.verdict_of("gate") is None
    run.report(Verdict.failed("wrong label"))
    said = run.verdict_of("gate")
    at = datetime.fromisoformat(said.pop("at"))
    assert at.tzinfo is not None
    assert said == Verdict.failed("wrong label").to_dict()
    assert run.left("gate") == "the fact"


def test_left_facts_are_what_json_can_carry(context_of, release):
    """What is handed over is plain."""
    assert json.loads(json.dumps(to_dict(release))) == json.loads(
        json.dumps(context_of("export", resolve=release)["ti"].xcom_pull(task_ids="resolve"))
    )
