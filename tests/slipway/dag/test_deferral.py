import json
import time
from dataclasses import dataclass
from datetime import timedelta

import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import TaskDeferred

from slipway.dag.deferral import Wait, verdict_of_event, wait_or_defer
from slipway.dag.tries import count_lost_try, lost_tries
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


class Waiting(BaseOperator):
    """A task that waits."""

    def decide(self, context, event):
        """What was found."""
        return verdict_of_event(context, event), event["found"]


@pytest.fixture
def begin(context_of, release):
    """Begins a wait of 100 s in a context, by default that of a first try."""

    def begin(context=None):
        task, context = Waiting(task_id="wait"), context or context_of("wait")
        count_lost_try(task, context)
        return wait_or_defer(task, context, HundredSeconds(release), task.decide)

    return begin


def service(*ingress):
    """A Service as an API server gives it, with these addresses of a load balancer."""
    ports = [{"name": "tf-serving-rest", "port": 8501}, {"name": "tf-serving-grpc", "port": 8500}]
    return 200, json.dumps(
        {
            "metadata": {"name": "tfs-server", "namespace": "shop"},
            "spec": {"type": "LoadBalancer", "ports": ports},
            "status": {"loadBalancer": {"ingress": list(ingress)}},
        }
    )


@pytest.mark.parametrize("polls", [1, 2])
def test_wait_that_ends_soon_does_not_defer(begin, connected, http_server, monkeypatch, polls):
    """The task polls for some seconds itself, and has the result without a deferral."""
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_LOOK_S", "30")
    monkeypatch.setattr("slipway.dag.deferral.LOOK_POLL_S", 0.01)
    connected(http_server(*[service()] * (polls - 1), service({"ip": "203.0.113.9"})))
    verdict, found = begin()
    assert (verdict.outcome, found["url"]) == ("pass", "http://203.0.113.9:8501")


def test_wait_that_lasts_longer_defers(begin, connected, http_server, monkeypatch):
    """It defers once the next poll would come after the seconds that the Variable allows."""
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_LOOK_S", "0.2")
    server = http_server(service())
    connected(server)
    with pytest.raises(TaskDeferred):
        begin()
    assert len(server.seen) == 1


def test_variable_of_zero_defers_at_once(begin):
    """The fixture's Variable says 0: no request is sent."""
    with pytest.raises(TaskDeferred):
        begin()


@pytest.mark.parametrize("value", ["soon", "-1", "nan"])
def test_invalid_variable_ends_no_wait(begin, connected, http_server, monkeypatch, caplog, value):  # noqa: PLR0917 - fixtures
    """It only tunes: a mistake in it is one line in the log, and the wait polls as if it were not set."""
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_LOOK_S", value)
    connected(http_server(service({"ip": "203.0.113.9"})))
    assert begin()[0].outcome == "pass"
    assert f"Variable slipway_look_s: '{value}' is not a number of seconds. Next: " in caplog.text


def test_deferred_to_its_trigger_with_its_limit(begin):
    """The trigger has the wait's deadline and pace; Airflow's own limit comes 60 s later."""
    before = time.time()
    with pytest.raises(TaskDeferred) as deferral:
        begin()
    _, arguments = deferral.value.trigger.serialize()
    assert deferral.value.method_name == "decide"
    assert timedelta(seconds=159) < deferral.value.timeout <= timedelta(seconds=160)
    assert before + 100 <= arguments["deadline"] <= time.time() + 100
    assert arguments["poll_s"] == pytest.approx(3.0)


@pytest.mark.parametrize(("resumed", "lost"), [(True, 0), (False, 1)])
def test_try_is_lost_if_it_deferred_and_was_not_resumed(begin, context_of, resumed, lost):
    """The next try knows whether Airflow resumed the one before."""
    context = context_of("wait")
    with pytest.raises(TaskDeferred):
        begin(context)
    if resumed:
        verdict_of_event(context, {"outcome": "fail", "reason": "it failed", "found": None, "late": False})
    context["ti"].try_number = 2
    with pytest.raises(TaskDeferred):
        begin(context)
    assert lost_tries(context) == lost


def test_verdict_of_an_event_is_read_and_logged(context_of, caplog):
    """What the trigger found is in the event next to the verdict, and is no part of it."""
    event = {"outcome": "fail", "reason": "time is up", "found": None, "late": True}
    with caplog.at_level("INFO", logger="slipway.dag.deferral"):
        verdict = verdict_of_event(context_of("wait"), event)
    assert verdict == Verdict.failed("time is up")
    assert str(verdict) in caplog.text
