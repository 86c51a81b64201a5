from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.standard.operators import hitl
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput

from slipway.dag.run import Run
from slipway.dag.tasks import gate as approval
from slipway.dag.tasks.gate import ApproveOperator
from slipway.errors import LeaseLost
from slipway.release import Gate
from slipway.verdict import Verdict

DOUBT = "3 of 3 rounds in a row passed; 95 of 100 answers within 900 ms, limit 500 ms"
ADDRESS = "http://203.0.113.9:8501"


@pytest.fixture
def context(context_of, release, pushed):
    """Makes the context of the question, after a gate with this verdict."""

    def make(verdict):
        found = context_of(
            "approve", resolve=replace(release, gate=Gate(ask_timeout_s=60)), push=pushed, wait_for_address=ADDRESS
        )
        found["task_instance"] = found["ti"]
        found["ti"].id = "0"
        found["ti"].facts["gate", "verdict"] = verdict.to_dict()
        return found

    return make


@pytest.fixture
def asked(monkeypatch):
    """What Airflow is told to ask, and for how long the target's Lease is renewed."""
    told = {}
    monkeypatch.setattr(approval, "renew_lease", lambda _run, limit_s: told.update(lease_s=limit_s))
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **question: told.update(question))
    return told


def operator(**where):
    """The task."""
    return ApproveOperator(task_id="approve", gate_task_id="gate", **where)


def answer(option):
    """What Airflow says of an answer."""
    return {
        "chosen_options": [option],
        "params_input": {},
        "responded_at": datetime(2026, 11, 24, 8, tzinfo=UTC),
        "responded_by_user": {"id": "7", "name": "ada"},
        "timedout": False,
    }


def test_nobody_is_asked_if_the_gate_was_sure(context, asked):
    """A pass goes on at once, without a question and without a word in the record."""
    run = context(Verdict.passed("3 of 3"))
    assert operator().execute(run) == "the gate was not in doubt"
    assert asked == {}
    assert Run(run).verdict_of("approve") is None


def test_a_person_is_shown_what_the_gate_doubts(context, asked):
    """The question names release, version and address, and each thing that the gate found; it has the model file's limit."""
    with pytest.raises(TaskAwaitingInput) as parked:
        operator().execute(context(Verdict.inconclusive(DOUBT)))
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


def test_a_person_is_told_what_a_yes_and_a_no_do(context, asked):
    """Beside the live release a no changes nothing; at the public address it brings the last good one back."""
    for preview, words in (
        (
            True,
            (
                "beside the live release",
                "*Approve*: the release replaces the live one.",
                "it goes, and nothing has changed.",
            ),
        ),
        (False, (f"at {ADDRESS}", "*Approve*: the release stays", "it goes, and the last good release serves.")),
    ):
        with pytest.raises(TaskAwaitingInput):
            operator(preview=preview).execute(context(Verdict.inconclusive(DOUBT)))
        assert [part for part in words if part not in asked["body"]] == []


def test_a_yes_is_recorded_with_who_said_it(context, asked):
    """The record knows who let the release pass, and when."""
    run = context(Verdict.inconclusive(DOUBT))
    operator().execute_complete(run, answer("Approve"))
    said = Run(run).verdict_of("approve")
    assert (said["outcome"], said["reason"]) == ("pass", "ada said yes at 2026-11-24 08:00:00+00:00")
    assert asked == {"lease_s": 600}


def test_a_yes_to_what_another_run_has_replaced_meanwhile_is_none(context, leases):
    """A person may answer half an hour after the gate: where the target is another run's by then, nothing was let through."""
    leases.answers.append(LeaseLost("this run's no more"))
    run = context(Verdict.inconclusive(DOUBT))
    with pytest.raises(AirflowFailException, match=r"^LeaseLost: this run's no more$"):
        operator().execute_complete(run, answer("Approve"))
    assert Run(run).verdict_of("approve")["outcome"] == "fail"


NOES = {
    "rejected": (answer("Reject"), "ada said no", True),
    "silence": ({"error": "timeout", "error_type": "timeout"}, "nobody answered within 60 s, which means no", True),
    "broken": ({"error": "odd", "error_type": "unknown"}, r"Airflow could not ask: \{'error': 'odd'.*\}", None),
}


@pytest.mark.parametrize(("event", "words", "bad"), NOES.values(), ids=NOES)
def test_anything_but_yes_means_no(context, event, words, bad):
    """A rejection and a silence fail the task, without another try, and are remembered; what Airflow broke off decides nothing."""
    run = context(Verdict.inconclusive(DOUBT))
    with pytest.raises(AirflowFailException, match=rf"GateFailed: the gate was in doubt, and {words}\. Next: "):
        operator().execute_complete(run, event)
    said = Run(run).verdict_of("approve")
    assert (said["outcome"], said.get("bad")) == ("fail", bad)
