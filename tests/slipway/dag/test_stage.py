from dataclasses import replace
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException

from slipway.dag.run import Run
from slipway.dag.stage import StageOperator, reported_failures
from slipway.errors import (
    ClusterUnreachable,
    EngineUnreachable,
    ImagePushRefused,
    InputRefused,
    SmokeTestFailed,
    SmokeTestUnfinished,
)
from slipway.facts import Plan
from slipway.records.history import find_bad_record, read_records


class Failing(StageOperator):
    """A stage that raises."""

    def __init__(self, *, error, **kwargs):
        super().__init__(**kwargs)
        self.error = error

    def make(self, _run):
        """Fail."""
        raise self.error


@pytest.mark.parametrize("error", [InputRefused("m.yaml: source: missing. Next: give one"), ImagePushRefused("denied")])
def test_fails_without_a_retry_if_the_error_cannot_be_retried(context_of, error):
    """The failure has the error's one line and the error as its cause."""
    with pytest.raises(AirflowFailException) as failure:
        Failing(task_id="failing", error=error).execute(context_of("failing"))
    assert str(failure.value) == f"{type(error).__name__}: {error}"
    assert failure.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [EngineUnreachable("no engine"), ClusterUnreachable("no answer"), ValueError("a bug")]
)
def test_retried_if_the_error_can_be_retried(context_of, error):
    """Airflow retries an error that may pass in a minute, and one that is not Slipway's."""
    with pytest.raises(type(error)) as failure:
        Failing(task_id="failing", error=error).execute(context_of("failing"))
    assert failure.value is error


def test_verdict_has_the_error_if_a_stage_fails(context_of):
    """A failed stage leaves a verdict with the last line of its log, and the time."""
    context = context_of("failing")
    with pytest.raises(AirflowFailException):
        Failing(task_id="failing", error=InputRefused("no store")).execute(context)
    left = Run(context).verdict_of("failing")
    assert left["outcome"] == "fail"
    assert left["reason"] == "InputRefused: no store"
    assert left["at"].endswith("+00:00")


@pytest.mark.parametrize(
    ("error", "bad"),
    [
        (SmokeTestFailed("wrong label"), True),
        (SmokeTestUnfinished("docker info"), False),
        (InputRefused("no store"), False),
    ],
)
def test_release_is_blamed_only_for_its_own_errors(context_of, release, store, error, bad):
    """A wrong answer in the smoke test is the release's fault; a test that ended without an answer is not."""
    context = context_of("smoke_test", resolve=release)
    with pytest.raises(AirflowFailException):
        Failing(task_id="failing", error=error).execute(context)
    assert Run(context).verdict_of("smoke_test").get("bad", False) is bad
    assert bool(read_records(store, release.model).records) is bad


def test_bad_release_is_recorded_before_its_run_ends(context_of, release, store):
    """If the run is killed between the verdict and its `record` task, the schedule still knows the bad release."""
    with pytest.raises(AirflowFailException), reported_failures(Run(context_of("smoke_test", resolve=release))):
        raise SmokeTestFailed("wrong label")
    found = find_bad_record(read_records(store, release.model).records, release)
    assert (found["outcome"], found["bad"]) == (
        "open",
        {"task": "smoke_test", "reason": "SmokeTestFailed: wrong label"},
    )


def test_verdict_is_kept_if_the_store_refuses_the_mark(context_of, release, caplog):
    """If the release cannot be marked as bad now, the `record` task does it at the end of the run."""
    run = Run(context_of("gate", resolve=replace(release, store="file:///proc/nowhere")))
    with pytest.raises(AirflowFailException), reported_failures(run):
        raise SmokeTestFailed("wrong label")
    assert run.verdict_of("gate")["bad"] is True
    assert "record: the release could not be marked as bad yet: " in caplog.text


class Shown(StageOperator):
    """Shows what it is for: nothing.

    More of it.
    """

    def make(self, _run):
        """Nothing."""
        return Plan(action="nothing", reasons=())


@pytest.mark.parametrize(
    ("before", "took"), [(SimpleNamespace(duration=18.6), "; the last time it took 19 s"), (None, "")]
)
def test_a_task_says_what_it_does_and_how_long_that_takes(context_of, caplog, before, took):
    """Its own sentence, and the time of the last run in which it succeeded; if Airflow cannot say, only the sentence."""
    context = context_of("shown")
    context["ti"].get_previous_ti = lambda **_: before
    with caplog.at_level("INFO"):
        Shown(task_id="shown", task_display_name="shown here").execute(context)
    assert f"shown here: Shows what it is for: nothing{took}" in caplog.messages
    del context["ti"].get_previous_ti
    caplog.clear()
    Shown(task_id="shown", task_display_name="shown here").execute(context)
    assert "shown here: Shows what it is for: nothing" in caplog.messages
