import time
from dataclasses import dataclass
from datetime import timedelta

import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import TaskDeferred

from slipway.dag.deferral import Wait, defer, verdict_of_event
from slipway.dag.triggers.rollout import AddressTrigger
from slipway.errors import AddressMissing
from slipway.facts import to_dict
from slipway.release import Release
from slipway.verdict import Verdict


@dataclass(frozen=True)
class HundredSeconds(Wait):
    """A wait of 100 s."""

    release: Release
    poll_s = 3.0
    limit_s = 100

    def trigger(self, times):
        """Any trigger that polls."""
        return AddressTrigger(release=to_dict(self.release), **times)

    def failure(self, event):
        """An error of a stage."""
        return AddressMissing(event["reason"])


def test_deferred_to_its_trigger_with_its_limit(release):
    """The trigger has the wait's deadline and pace; Airflow's own limit comes 60 s later."""
    before = time.time()
    with pytest.raises(TaskDeferred) as deferral:
        defer(BaseOperator(task_id="wait"), HundredSeconds(release), "decide")
    _, arguments = deferral.value.trigger.serialize()
    assert (deferral.value.method_name, deferral.value.timeout) == ("decide", timedelta(seconds=160))
    assert before + 100 <= arguments["deadline"] <= time.time() + 100
    assert arguments["poll_s"] == pytest.approx(3.0)


def test_verdict_of_an_event_is_read_and_logged(caplog):
    """What the trigger found is in the event next to the verdict, and is no part of it."""
    with caplog.at_level("INFO", logger="slipway.dag.deferral"):
        verdict = verdict_of_event({"outcome": "fail", "reason": "time is up", "found": None, "late": True})
    assert verdict == Verdict.failed("time is up")
    assert str(verdict) in caplog.text
