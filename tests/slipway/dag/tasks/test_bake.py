from dataclasses import replace
from datetime import timedelta

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from slipway.dag.run import BEFORE, Run
from slipway.dag.tasks import waits
from slipway.dag.tasks.bake import BakeSensor
from slipway.facts import Plan, from_dict
from slipway.records.record import read_record
from slipway.records.store import Store
from slipway.release import Bake, Gate, Release

ADDRESS = "http://203.0.113.9:8501"
PATH = f"{ADDRESS}/v1/models/digits-vit/versions/7"
MEASURED = {"rounds": 3, "servers": {"answered": 60}}
PASS = {"outcome": "pass", "reason": "watched", "found": MEASURED, "late": False}
BAKE = Bake(for_s=600, every_s=20, max_slowdown=2)

pytestmark = pytest.mark.usefixtures("leases")


@pytest.fixture
def context(context_of, release, export, applied):
    """Makes the context of a bake, all earlier tasks done."""

    def make(*, bake=BAKE, action="everything"):
        facts = {"export": export, "apply": applied, "wait_for_address": ADDRESS}
        baked = replace(release, gate=Gate(bake=bake))
        return context_of("bake", resolve=baked, plan=Plan(action=action, reasons=()), **facts)

    return make


def sensor():
    """The task."""
    return BakeSensor(task_id="bake")


def test_defers_at_once_and_holds_the_lease(context, monkeypatch):
    """The trigger looks from the beginning. It, the Lease and Airflow have time for the bake and its end."""
    renewed = []
    monkeypatch.setattr(waits, "renew_run_lease", lambda _run, limit_s: renewed.append(limit_s))
    monkeypatch.delenv("AIRFLOW_VAR_SLIPWAY_LOOK_S")
    run = context()
    run["ti"].facts["apply", BEFORE] = {"release_id": "0" * 12, "answers": 9, "mean_ms": 5.0}
    with pytest.raises(TaskDeferred) as deferral:
        sensor().execute(run)
    path, kept = deferral.value.trigger.serialize()
    assert path == "slipway.dag.triggers.bake.BakeTrigger"
    assert (kept["url"], kept["version"], kept["poll_s"]) == (ADDRESS, 7, 20.0)
    assert (kept["release_id"], kept["before"]["answers"]) == ("abcdefabcdef", 9)
    assert from_dict(Release, kept["release"]).gate.bake == BAKE
    assert renewed == [600 + 160 + 60]
    assert timedelta(seconds=815) < deferral.value.timeout <= timedelta(seconds=820)


NOT_WATCHED = {
    "a proven release comes back": ({"action": "restore"}, "it was proven live before, and is only applied again"),
    "the model file has no bake any more": ({"bake": None}, "the model file has no gate.bake"),
}


@pytest.mark.parametrize(("changes", "why"), NOT_WATCHED.values(), ids=NOT_WATCHED)
def test_passes_at_once_if_there_is_nothing_to_watch(context, changes, why):
    """The verdict says so: the run is proven by its gate."""
    run = context(**changes)
    assert sensor().execute(run) == f"not watched: {why}"
    assert Run(run).verdict_of("bake")["outcome"] == "pass"


def test_record_has_what_was_measured(context):
    """The verdict has the figures."""
    run = context()
    assert sensor().decide(run, PASS) == "watched"
    found = Run(run).verdict_of("bake")
    assert (found["outcome"], found["measured"]) == ("pass", MEASURED)


SLOW = "6 of them took more than 20 ms"
FAILURES = {
    "a limit": (
        {"reason": SLOW},
        True,
        rf"{SLOW}\. Next: compare verdicts\.bake\.measured in the record with gate\.bake",
    ),
    "a wrong answer": (
        {"reason": "golden case 'three': got '8'"},
        True,
        rf"golden case 'three': got '8'\. Next: curl {PATH}",
    ),
    "missing answers": ({"reason": "no answer", "unanswered": True}, False, rf"no answer\. Next: curl {PATH}"),
    "time is up": (
        {"reason": "time is up: x. Next: give a Role", "late": True},
        False,
        r"time is up: x\. Next: give a Role$",
    ),
}


@pytest.mark.parametrize(("event", "bad", "words"), FAILURES.values(), ids=FAILURES)
def test_failure_says_what_is_next_and_blames_the_release_only_for_its_own_figures(context, release, event, bad, words):
    """The record has reason and figures, and marks a bad release at once: the run may be killed before it ends."""
    run = context()
    with pytest.raises(AirflowFailException, match=rf"^BakeFailed: {PATH}: {words}"):
        sensor().decide(run, {**PASS, "outcome": "fail", **event})
    found = Run(run).verdict_of("bake")
    assert (found["outcome"], found.get("bad", False), found["measured"]) == ("fail", bad, MEASURED)
    record = read_record(Store(release.store), release.model, release.run_id)
    assert bool(record and record["bad"]["task"] == "bake") is bad
