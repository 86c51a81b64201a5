import json
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace

import pytest
from airflow.sdk.api.datamodels._generated import DagRunType

from slipway.dag.run import CLEARING, Run
from slipway.errors import InputRefused
from slipway.facts import Plan, Previewed, to_dict
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


def test_a_result_is_asked_for_once_and_only_of_tasks_that_there_are(context_of, release, export, monkeypatch):
    """Each question is a request to Airflow's API server. What the task itself leaves, and what is not there yet, is asked again."""
    context, asked = context_of("gate", resolve=release), []
    pull = context["ti"].xcom_pull
    monkeypatch.setattr(context["ti"], "xcom_pull", lambda **one: asked.append(one["task_ids"]) or pull(**one))
    context["dag"] = SimpleNamespace(has_task=lambda task_id: task_id != "choose")
    run = Run(context)
    assert run.result_of("resolve") == run.result_of("resolve")
    assert (run.result_of("choose"), run.result_of("export")) == (None, None)
    context["ti"].facts["export", "return_value"] = to_dict(export)
    assert run.result_of("export") == to_dict(export)
    for value in (1, 2):
        run.leave("count", value)
        assert run.result_of("gate", key="count") == value
    assert asked == ["resolve", "export", "export", "gate", "gate"]


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


def test_export_is_the_live_one_with_new_golden_cases(context_of, release, export, pushed):
    """If only golden cases changed, `export` makes these; the image is the live one."""
    renewed = replace(export, golden_uri="file:///store/exports/digits-vit/7/golden-new.json")
    plan = Plan(action="cases", reasons=(), export=export, pushed=pushed)
    run = Run(context_of("gate", resolve=release, plan=plan, export=renewed))
    assert (run.export, run.pushed) == (renewed, pushed)
    assert Run(context_of("gate", resolve=release, plan=replace(plan, action="gate"), export=renewed)).export == export


def test_verdict_is_kept_next_to_the_result(context_of):
    """A task's verdict has its time, its release and the clearing of the run; it does not change the task's result."""
    run = Run(context_of("gate", gate="the result"))
    assert run.verdict_of("gate") is None
    run.report(Verdict.failed("wrong label"))
    found = run.verdict_of("gate")
    at = datetime.fromisoformat(found.pop("at"))
    assert at.tzinfo is not None
    assert found == {**Verdict.failed("wrong label").to_dict(), "release": None, "clearing": 0}
    assert run.result_of("gate") == "the result"


TRIES = {  # which tasks ran in which clearing of the run, in this order; the gate passed in the last one of its list
    "in one try": ((0, "resolve"), (0, "apply"), (0, "gate"), True),
    "cleared from the first task, gate set by hand": ((0, "gate"), (1, "resolve"), (1, "apply"), False),
    "cleared from the first task, apply and gate set by hand": ((0, "apply"), (0, "gate"), (1, "resolve"), False),
    "cleared from apply, gate set by hand": ((0, "resolve"), (0, "gate"), (1, "apply"), False),
    "cleared from apply, gate ran again": ((0, "resolve"), (1, "apply"), (1, "gate"), True),
    "cleared from the gate": ((0, "resolve"), (0, "apply"), (1, "gate"), True),
    "cleared after the gate": ((0, "apply"), (0, "gate"), (1, "announce"), True),
}


@pytest.mark.parametrize(("first", "second", "third", "proven"), TRIES.values(), ids=TRIES)
def test_only_a_verdict_on_what_the_run_has_made_proves_it(context_of, release, applied, first, second, third, proven):  # noqa: PLR0917
    """A task that does not start again keeps its earlier verdict in XCom, which is about what the run had made before."""
    context = context_of("gate", resolve=release, apply=applied)
    for clearing, task_id in (first, second, third):
        context["ti"].task_id, context["dag_run"].clear_number = task_id, clearing
        run = Run(context)
        run.report(Verdict.passed("3 of 3")) if task_id == "gate" else run.leave(CLEARING, clearing)
    assert Run(context).is_proven({"gate": "success"}, "gate") is proven


def test_a_run_with_a_bake_is_proven_by_its_verdict(context_of, release, applied):
    """The state of `bake` alone proves nothing, nor does a verdict on what was applied before."""
    context = context_of("gate", resolve=release, apply=applied)
    Run(context).report(Verdict.passed("3 of 3"))
    assert Run(context).is_proven({"bake": "success"}, "bake") is False
    context["ti"].task_id = "bake"
    Run(context).report(Verdict.passed("watched"))
    assert Run(context).is_proven({"bake": "success"}, "bake") is True
    context["ti"].facts["apply", "return_value"]["release_id"] = "f" * 12
    context["ti"].task_id = "gate"
    Run(context).report(Verdict.passed("3 of 3"))
    assert Run(context).is_proven({"gate": "success"}, "gate") is True
    assert Run(context).is_proven({"bake": "success"}, "bake") is False


def test_verdict_on_another_release_does_not_count(context_of, release, applied):
    """The gate's verdict names the release that was applied at that time."""
    context = context_of("gate", resolve=release, apply=applied)
    Run(context).report(Verdict.passed("3 of 3"))
    assert Run(context).verdict_of("gate")["release"] == "abcdefabcdef"
    context["ti"].facts["apply", "return_value"]["release_id"] = "f" * 12
    assert Run(context).verdict_of("gate") is None


def test_approval_of_an_earlier_preview_does_not_count(context_of, release, applied, pushed):
    """A person approved the earlier preview, not what the cleared run previews now."""
    previewed = Previewed(
        release_id="abcdefabcdef-preview", reference=pushed.reference, version=7, objects=(), uid="u", generation=1
    )
    context = context_of("approve", resolve=release, preview=previewed, apply=applied)
    Run(context).report(Verdict.passed("ada approved it"))
    assert Run(context).verdict_of("approve")["release"] == "abcdefabcdef-preview"
    context["dag_run"].clear_number = 1
    context["ti"].facts["preview", CLEARING] = 1
    assert Run(context).verdict_of("approve") is None


def test_approval_of_a_preview_counts_if_only_apply_is_cleared(context_of, release, applied, pushed):
    """The person approved what the preview ran, which is what is applied again: they are not asked twice, and stay in the record."""
    previewed = Previewed(
        release_id="abcdefabcdef-preview", reference=pushed.reference, version=7, objects=(), uid="u", generation=1
    )
    context = context_of("approve", resolve=release, preview=previewed)
    Run(context).report(Verdict.passed("ada approved it"))
    context["dag_run"].clear_number = 1
    context["ti"].facts["apply", "return_value"] = to_dict(applied)
    context["ti"].facts["apply", CLEARING] = 1
    assert Run(context).verdict_of("approve")["reason"] == "ada approved it"


def test_verdict_counts_if_slipway_was_upgraded_during_the_run(context_of, release, applied):
    """An earlier Slipway's results and verdicts name no clearing."""
    context = context_of("record", resolve=release, apply=applied)
    context["ti"].facts["gate", "verdict"] = {"outcome": "pass", "reason": "3 of 3", "at": "2026-11-24T12:00:00+00:00"}
    assert Run(context).is_proven({"gate": "success"}, "gate")


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
