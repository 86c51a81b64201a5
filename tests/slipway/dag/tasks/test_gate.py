from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.standard.operators import hitl
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskAwaitingInput

from slipway.dag.run import Run
from slipway.dag.tasks import gate
from slipway.dag.tasks.gate import ApproveOperator, PredictionSensor
from slipway.errors import LeaseLost
from slipway.facts import Accuracy, Baseline, Plan
from slipway.release import Gate, QualityBounds
from slipway.verdict import Verdict

REASON = "3 of 3 rounds in a row passed; 95 of 100 answers within 900 ms, limit 500 ms"
ADDRESS = "http://203.0.113.9:8501"


@pytest.fixture
def context(context_of, release, pushed):
    """Makes the context of the approval, after a gate with this verdict."""

    def make(verdict, *, measured=None, baseline=None, **rules):
        found = context_of(
            "approve",
            resolve=replace(release, gate=Gate(ask_timeout_s=60, **rules)),
            plan=Plan(action="everything", reasons=(), baseline=baseline),
            push=pushed,
            wait_for_address=ADDRESS,
        )
        found["task_instance"] = found["ti"]
        found["ti"].id = "0"
        for task in ("preview_gate", "gate"):
            found["ti"].facts[task, "verdict"] = {**verdict.to_dict(), "measured": measured}
        return found

    return make


@pytest.fixture
def asked(monkeypatch):
    """The question that Airflow gets, and for how long the Lease is renewed."""
    question = {}
    monkeypatch.setattr(gate, "renew_run_lease", lambda _run, limit_s: question.update(lease_s=limit_s))
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **arguments: question.update(arguments))
    return question


def operator(**where):
    """The task."""
    return ApproveOperator(task_id="approve", **where)


def answer(option):
    """Airflow's event for an answer."""
    return {
        "chosen_options": [option],
        "params_input": {},
        "responded_at": datetime(2026, 11, 24, 8, tzinfo=UTC),
        "responded_by_user": {"id": "7", "name": "ada"},
        "timedout": False,
    }


def test_nobody_is_asked_if_the_gate_was_conclusive(context, asked):
    """After a pass there is no question and no verdict."""
    run = context(Verdict.passed("3 of 3"))
    assert operator().execute(run) == "the gate's result was conclusive"
    assert asked == {}
    assert Run(run).verdict_of("approve") is None


def test_nobody_is_asked_if_the_gate_left_no_result(context, asked):
    """Somebody has set the gate's state: there is nothing to approve, and `apply` refuses a release that has to be approved."""
    run = context(Verdict.passed(""), approval="always")
    del run["ti"].facts["gate", "verdict"]
    assert operator().execute(run) == "the gate left no result"
    assert asked == {}


def test_question_shows_what_is_inconclusive(context, asked):
    """The question names release, version, address and each of the gate's findings; it has the model file's limit."""
    with pytest.raises(TaskAwaitingInput) as parked:
        operator().execute(context(Verdict.inconclusive(REASON)))
    assert parked.value.timeout == timedelta(seconds=60)
    assert asked["subject"] == "Is version 7 of digits-vit good enough?"
    assert asked["options"] == ["Approve", "Reject"]
    assert asked["defaults"] is None
    assert asked["lease_s"] == 120
    for words in (
        "`abcdefabcdef`",
        ADDRESS,
        "- 3 of 3 rounds in a row passed\n",
        "- 95 of 100 answers within 900 ms",
        "1 minutes",
    ):
        assert words in asked["body"]


def test_question_says_what_each_answer_does(context, asked):
    """Rejecting a preview changes nothing; rejecting a live release rolls it back to the last good one."""
    for preview, words in (
        (
            True,
            (
                "next to the live release",
                "*Approve*: the release replaces the live one.",
                "it is deleted, and nothing has changed.",
            ),
        ),
        (False, (f"at {ADDRESS}", "*Approve*: the release stays", "it is rolled back to the last good release.")),
    ):
        with pytest.raises(TaskAwaitingInput):
            operator(preview=preview).execute(context(Verdict.inconclusive(REASON)))
        assert [part for part in words if part not in asked["body"]] == []


def test_question_after_a_preview_shows_its_load_too(context, asked):
    """One question for both: a load that is inconclusive is asked about although the gate passed."""
    run = context(Verdict.passed("3 of 3"))
    load = Verdict.inconclusive("load: p95 112 ms at 5/s, limit 100 ms").to_dict()
    run["ti"].facts["preview_load", "verdict"] = {**load, "measured": {"load": {"uri": "file:///l/load.json"}}}
    with pytest.raises(TaskAwaitingInput):
        operator(preview=True).execute(run)
    for words in (
        "- 3 of 3\n",
        "- load: p95 112 ms at 5/s, limit 100 ms\n",
        "- load: each round is in file:///l/load.json",
    ):
        assert words in asked["body"]


def test_every_release_is_asked_for_if_the_model_file_says_always(context, asked):
    """The question shows what the preview measured, next to the live release; a pass alone does not go on."""
    quality = QualityBounds(uri="u", digest="sha256:5", min_top1=0.9, max_drop=None)
    live = Accuracy(digest="sha256:5", images=100, wrong=("a.png",))
    run = context(
        Verdict.passed("3 of 3 rounds in a row passed"),
        measured={"latency_ms": 40, "quality": {"digest": "sha256:5", "images": 100, "wrong": []}},
        baseline=Baseline(measured=live, source="measured by run r1"),
        approval="always",
        quality=quality,
    )
    with pytest.raises(TaskAwaitingInput):
        operator(preview=True).execute(run)
    for words in (
        "The gate passed.",
        "- 3 of 3 rounds in a row passed\n",
        "- 95 of 100 answers within 40 ms",
        "- quality: 100 of 100 correct, the live release 99 (measured by run r1)\n",
        "*Approve*: the release replaces the live one. *Reject*, or no answer within 1 minutes: it is deleted, and nothing has changed.",
    ):
        assert words in asked["body"]
    assert "inconclusive" not in asked["body"]


def test_rejected_release_is_bad_also_if_its_gate_passed(context, asked):
    """It fails as after an inconclusive result: the schedule does not try it again."""
    run = context(Verdict.passed("3 of 3"), approval="always")
    with pytest.raises(AirflowFailException, match=r"GateFailed: the gate passed, but ada rejected it\. Next: fix"):
        operator(preview=True).execute_complete(run, answer("Reject"))
    found = Run(run).verdict_of("approve")
    assert (found["outcome"], found["bad"]) == ("fail", True)


def test_approval_is_recorded_with_the_person(context, asked):
    """The record has who approved the release, and when."""
    run = context(Verdict.inconclusive(REASON))
    operator().execute_complete(run, answer("Approve"))
    found = Run(run).verdict_of("approve")
    assert (found["outcome"], found["reason"]) == ("pass", "ada approved it at 2026-11-24 08:00:00+00:00")
    assert asked == {"lease_s": 600}


def test_approval_does_not_count_if_the_lease_was_lost(context, leases):
    """A person may answer half an hour after the gate: another run may have broken the Lease by then."""
    leases.answers.append(LeaseLost("this run no longer holds the lease"))
    run = context(Verdict.inconclusive(REASON))
    with pytest.raises(AirflowFailException, match=r"^LeaseLost: this run no longer holds the lease$"):
        operator().execute_complete(run, answer("Approve"))
    assert Run(run).verdict_of("approve")["outcome"] == "fail"


REFUSALS = {
    "rejected": (answer("Reject"), "ada rejected it", True),
    "no answer": ({"error": "timeout", "error_type": "timeout"}, "nobody answered within 60 s, which means no", True),
    "an error of Airflow": (
        {"error": "odd", "error_type": "unknown"},
        r"Airflow could not ask: \{'error': 'odd'.*\}",
        None,
    ),
}


@pytest.mark.parametrize(("event", "words", "bad"), REFUSALS.values(), ids=REFUSALS)
def test_fails_if_nobody_approves(context, event, words, bad):
    """A rejection and a missing answer mark the release as bad; an error of Airflow does not."""
    run = context(Verdict.inconclusive(REASON))
    with pytest.raises(
        AirflowFailException, match=rf"GateFailed: the gate's result was inconclusive, and {words}\. Next: "
    ):
        operator().execute_complete(run, event)
    found = Run(run).verdict_of("approve")
    assert (found["outcome"], found.get("bad")) == ("fail", bad)


def test_the_gate_of_a_preview_that_there_is_not_is_skipped(context_of, release):
    """The smoke test beside it may have passed all the same."""
    run = context_of("preview_gate", resolve=release)
    with pytest.raises(AirflowSkipException, match="there is no preview"):
        PredictionSensor(task_id="preview_gate", preview=True).execute(run)
