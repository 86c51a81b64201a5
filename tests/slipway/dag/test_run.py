import json
from dataclasses import replace
from datetime import datetime

import pytest
from airflow.sdk.api.datamodels._generated import DagRunType

from slipway.dag.run import Run
from slipway.errors import InputRefused
from slipway.facts import Plan, to_dict
from slipway.verdict import Verdict


def test_facts_are_the_results_of_tasks(context_of, release, export, proof, pushed, applied):  # noqa: PLR0917 - one of each
    """Each fact is read from the result of its task."""
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
def test_refused_if_a_task_left_no_result(context_of, fact, task_id):
    """If a fact is missing, the error names the task to clear."""
    with pytest.raises(InputRefused, match=rf"^task {task_id}: left nothing in this run\. Next: clear {task_id}$"):
        getattr(Run(context_of("gate")), fact)


def test_refused_if_a_result_is_of_another_kind(context_of, export):
    """The error is one line."""
    with pytest.raises(InputRefused, match=r"^Release from an earlier task: .*Next: "):
        Run(context_of("gate", resolve=export)).release  # noqa: B018 - reading it is the act


def test_release_is_the_plans_if_the_plan_restores_one(context_of, release, export, pushed):
    """A plan that restores a recorded release replaces the release that `resolve` made."""
    restored = replace(release, manifests_hash="sha256:9")
    plan = Plan(action="restore", reasons=("not healthy",), export=export, pushed=pushed, release=restored)
    assert Run(context_of("apply", resolve=release, plan=plan)).release == restored
    assert Run(context_of("apply", resolve=release, plan=replace(plan, release=None))).release == release


def test_verdict_is_kept_next_to_the_result(context_of):
    """A task's verdict has its time and does not change the task's result."""
    run = Run(context_of("gate", gate="the result"))
    assert run.verdict_of("gate") is None
    run.report(Verdict.failed("wrong label"))
    found = run.verdict_of("gate")
    at = datetime.fromisoformat(found.pop("at"))
    assert at.tzinfo is not None
    assert found == Verdict.failed("wrong label").to_dict()
    assert run.result_of("gate") == "the result"


def test_facts_in_xcom_are_plain_json(context_of, release):
    """A fact survives the way through JSON."""
    assert json.loads(json.dumps(to_dict(release))) == json.loads(
        json.dumps(context_of("export", resolve=release)["ti"].xcom_pull(task_ids="resolve"))
    )


BY_HAND = {"manual": True, "operator_triggered": True, "scheduled": False, "asset_triggered": False, "backfill": False}


@pytest.mark.parametrize(("run_type", "by_hand"), BY_HAND.items())
def test_run_is_by_hand_if_a_person_or_a_dag_triggered_it(context_of, run_type, by_hand):
    """Only such a run may try a bad release again; the schedule and an Asset may not."""
    context = context_of("plan")
    context["dag_run"].run_type = DagRunType(run_type)
    assert Run(context).by_hand is by_hand
