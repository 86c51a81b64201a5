from dataclasses import replace

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from slipway.errors import ClusterUnreachable, EngineUnreachable, ImagePushRefused, InputRefused
from slipway.handover import Handover
from slipway.operators import PreviewOperator, RemovePreviewOperator, StageOperator
from slipway.plan import Plan


class Refused(StageOperator):
    """A stage that raises."""

    def __init__(self, *, error, **kwargs):
        super().__init__(**kwargs)
        self.error = error

    def make(self, _run):
        """Fail."""
        raise self.error


class TaskInstance:
    """Keeps what a task leaves."""

    def __init__(self):
        self.left = {}

    def xcom_push(self, *, key, value):
        """Keep what was pushed."""
        self.left[key] = value


@pytest.mark.parametrize("error", [InputRefused("m.yaml: source: missing. Next: give one"), ImagePushRefused("denied")])
def test_failed_at_once_if_it_will_not_go_away(error):
    """What another try cannot mend fails the task without a retry, in its one line, with its cause."""
    with pytest.raises(AirflowFailException) as failure:
        Refused(task_id="refused", error=error).execute({"ti": TaskInstance()})
    assert str(failure.value) == f"{type(error).__name__}: {error}"
    assert failure.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [EngineUnreachable("no engine"), ClusterUnreachable("no answer"), ValueError("a bug")]
)
def test_tried_again_if_it_may_go_away(error):
    """What may pass a minute later, and what nobody foresaw, is left to Airflow's retries."""
    with pytest.raises(type(error)) as failure:
        Refused(task_id="refused", error=error).execute({"ti": TaskInstance()})
    assert failure.value is error


def test_the_reason_goes_to_the_record_if_a_stage_fails():
    """A failed stage leaves its verdict with the same words that its log ends with, and the time."""
    ti = TaskInstance()
    with pytest.raises(AirflowFailException):
        Refused(task_id="refused", error=InputRefused("no store")).execute({"ti": ti})
    assert ti.left["verdict"]["outcome"] == "fail"
    assert ti.left["verdict"]["reason"] == "InputRefused: no store"
    assert ti.left["verdict"]["at"].endswith("+00:00")


def test_preview_is_skipped_with_its_reason(context_of, release, export, pushed):
    """A release that gets no preview skips the task, and with it what looks at one."""
    facts = {"resolve": replace(release, strategy="rolling"), "plan": Plan(action="everything", reasons=())}
    with pytest.raises(AirflowSkipException, match=r"target\.strategy is rolling"):
        PreviewOperator(task_id="preview").execute(context_of("preview", **facts, export=export, push=pushed))


@pytest.mark.parametrize(
    ("facts", "params"), [(("resolve",), {"plan_only": True}), ((), {})], ids=["plans", "no release"]
)
def test_no_preview_is_removed_by_a_run_that_writes_nothing(context_of, release, facts, params):
    """A run that only plans writes nothing, and one without a release knows no target."""
    context = {**context_of("remove_preview", **dict.fromkeys(facts, release)), "params": params}
    with pytest.raises(AirflowSkipException):
        RemovePreviewOperator(task_id="remove_preview").execute(context)


def test_removal_says_that_there_was_nothing_to_remove(context_of, release):
    """Whether `apply` has made room already or there never was a preview, the record says that none is left."""
    context = {**context_of("remove_preview", resolve=release), "params": {}}
    assert RemovePreviewOperator(task_id="remove_preview").execute(context) == []
    assert Handover(context).said("remove_preview")["reason"] == "no preview is left"
