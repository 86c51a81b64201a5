import json
import threading
from dataclasses import replace

import pytest
from airflow.sdk.module_loading import import_string
from trigger_events import FAR, events_of

from slipway.dag.triggers.bake import BakeTrigger
from slipway.dag.triggers.gate import PredictionTrigger
from slipway.dag.triggers.polling import ReleaseTrigger
from slipway.dag.triggers.rollout import AddressTrigger, RolloutTrigger
from slipway.facts import to_dict
from slipway.target import GkeCluster, Target
from slipway.verdict import Verdict


class Scripted(ReleaseTrigger):
    """Returns the given verdicts one after another; raises the exceptions among them."""

    def __init__(self, *, results, **kwargs):
        super().__init__(**kwargs)
        self.results = list(results)
        self.polls = 0
        self.last = None  # the poll at which time is up, whatever the clock says

    def serialize(self):
        """It is never stored."""
        raise NotImplementedError

    async def poll_release(self, release):  # noqa: ARG002 - the results are given
        """The next verdict; the last one is repeated."""
        self.polls += 1
        self.deadline = 0 if self.polls == self.last else self.deadline
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(result, Exception):
            raise result
        return result


def scripted(release, *results, deadline=FAR):
    """A trigger whose polls have these results."""
    return Scripted(release=to_dict(release), deadline=deadline, poll_s=0.001, results=results)


WAIT, PASS, FAIL = Verdict.wait("not yet"), Verdict.passed("there"), Verdict.failed("broken")
DECIDED = {
    "pass at once": ([PASS], PASS, 1),
    "pass after waiting": ([WAIT, WAIT, PASS], PASS, 3),
    "fail at once": ([FAIL, PASS], FAIL, 1),
    "fail after waiting": ([WAIT, FAIL], FAIL, 2),
    "an exception is a wait": ([ConnectionResetError("gone"), PASS], PASS, 2),
}


@pytest.mark.parametrize(("results", "verdict", "polls"), DECIDED.values(), ids=DECIDED)
async def test_one_event_if_the_verdict_is_pass_or_fail(release, results, verdict, polls):
    """A trigger polls until the verdict is pass or fail."""
    trigger = scripted(release, *results)
    assert [{**verdict.to_dict(), "found": None, "late": False}] == await events_of(trigger)
    assert polls == trigger.polls


LATE = {
    "waiting": (WAIT, "time is up: not yet"),
    "a failing poll": (OSError("no\nroute"), "time is up: polling failed: OSError: no route"),
}


@pytest.mark.parametrize(("results", "reason"), LATE.values(), ids=LATE)
async def test_fail_if_time_is_up(release, results, reason):
    """After the deadline a wait becomes a failure with its reason."""
    assert [{"outcome": "fail", "reason": reason, "found": None, "late": True}] == await events_of(
        scripted(release, results, deadline=0)
    )


async def test_pass_if_the_last_poll_passes(release):
    """The poll at the deadline still counts."""
    assert [{**PASS.to_dict(), "found": None, "late": False}] == await events_of(scripted(release, PASS, deadline=0))


async def test_polls_again_until_the_deadline(release):
    """It polls as long as there is time, however long a poll takes."""
    trigger = scripted(release, WAIT)
    trigger.last = 3
    (event,) = await events_of(trigger)
    assert (event["outcome"], trigger.polls) == ("fail", 3)


TRIGGERS = {
    RolloutTrigger: {"release_id": "abcdefabcdef", "uid": "u-1", "generation": 4},
    AddressTrigger: {},
    PredictionTrigger: {
        "url": "http://x:8501",
        "version": 7,
        "golden_uri": "file:///store/golden.json",
        "grpc": "x:8500",
        "no_grpc": "",
        "pods": None,
        "descriptors_uri": "file:///store/descriptors.bin",
        "baseline": None,
        "int8_uri": None,
    },
    BakeTrigger: {
        "url": "http://x:8501",
        "version": 7,
        "golden_uri": "file:///store/golden.json",
        "grpc": "x:8500",
        "no_grpc": "",
        "pods": None,
        "descriptors_uri": "file:///store/descriptors.bin",
        "release_id": "abcdefabcdef",
        "before": {"release_id": "0" * 12, "answers": 100, "mean_ms": 9.5},
    },
}


@pytest.mark.parametrize(("kind", "own"), TRIGGERS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_trigger_can_be_made_again_from_the_database(release, kind, own):
    """The database stores a class to import and plain values."""
    arguments = {"release": to_dict(release), "deadline": FAR, "poll_s": 2.0, **own}
    path, kept = kind(**arguments).serialize()
    assert import_string(path) is kind
    assert arguments == kept
    assert kind(**json.loads(json.dumps(kept))).serialize() == (path, json.loads(json.dumps(kept)))


async def test_libraries_are_loaded_beside_the_loop(release, monkeypatch):
    """Other triggers of the same triggerer go on meanwhile; a library that is missing stops nothing."""
    loaded = {}

    def load(name):
        loaded[name] = threading.current_thread() is threading.main_thread()
        raise ImportError(name)

    monkeypatch.setattr("slipway.dag.triggers.polling.import_module", load)
    assert len(await events_of(scripted(release, PASS))) == 1
    assert loaded == {"airflow.providers.cncf.kubernetes.hooks.kubernetes": False}
    cluster = GkeCluster(project="p", location="l", name="c")
    on_gke = replace(release, target=Target(kind="gke", conn_id="g", namespace="n", gke=cluster))
    assert "airflow.providers.google.cloud.hooks.kubernetes_engine" in scripted(on_gke, PASS).libraries
