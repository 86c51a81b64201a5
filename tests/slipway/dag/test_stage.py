from contextlib import nullcontext
from dataclasses import replace

import pytest
from airflow.sdk.api.datamodels._generated import DagRunType
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DownstreamTasksSkipped

from slipway.dag import run_lease
from slipway.dag.run import VERDICT, Run
from slipway.dag.run_lease import acquire_lease
from slipway.dag.stage import StageOperator
from slipway.dag.tasks import plan as plan_tasks
from slipway.dag.tasks.deploy import ApplyOperator, PreviewOperator, RemovePreviewOperator
from slipway.dag.tasks.plan import PlanOperator
from slipway.dag.tasks.record import RecordOperator
from slipway.errors import (
    ClusterUnreachable,
    EngineUnreachable,
    GoogleUnreachable,
    ImagePushRefused,
    InputRefused,
    SmokeTestFailed,
    SmokeTestUnfinished,
)
from slipway.facts import ObjectRef, Plan
from slipway.records.history import read_records
from slipway.records.record import new_record, previewed, utc_now, write_record
from slipway.records.store import Store


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


PLANNED = {
    "something to change": ("everything", {}, [3600]),
    "manifests alone": ("manifests", {}, [3600]),
    "the last good one comes back": ("restore", {}, [3600]),
    "nothing to do": ("nothing", {}, []),
    "only planned": ("everything", {"plan_only": True}, []),
}


@pytest.mark.parametrize(("action", "params", "held"), PLANNED.values(), ids=PLANNED)
def test_lease_is_taken_only_to_change_something(context_of, release, monkeypatch, action, params, held):  # noqa: PLR0917
    """A plan takes the target until its apply where there will be one; a run that writes nothing takes nothing."""
    asked = []
    plan = Plan(action=action, reasons=("so",))
    monkeypatch.setattr("slipway.steps.plan.make_plan", lambda _release, **_: (plan, []))
    monkeypatch.setattr(plan_tasks, "acquire_lease", lambda _run, limit_s: asked.append(limit_s))
    context = context_of("plan", resolve=release)
    context["params"] = params
    operator = PlanOperator(task_id="plan", builds=["export"], deploys=["apply"])
    skipped = []
    try:
        operator.execute(context)
    except DownstreamTasksSkipped as skip:
        skipped = list(skip.tasks)
    assert asked == held
    writes = {"everything": [], "nothing": ["export", "apply"]}.get(action, ["export"])
    assert skipped == (["export", "apply"] if params else writes)


MEANWHILE = {
    "nothing is left to do": ("nothing", ["export", "apply"]),
    "another thing has to be done": ("manifests", ["export"]),
}


@pytest.mark.parametrize(("then", "unneeded"), MEANWHILE.values(), ids=MEANWHILE)
def test_what_is_carried_out_was_read_while_the_target_is_held(context_of, release, monkeypatch, then, unneeded):
    """A run that ended between the look and the Lease is seen: the plan is made anew, and what it needs no more is given back."""
    done = []
    plans = [Plan(action=action, reasons=(action,)) for action in ("everything", then)]

    def make_plan(_release, *, by_hand, held=False):
        done.append("held" if held else "looked")
        return plans.pop(0), []

    monkeypatch.setattr("slipway.steps.plan.make_plan", make_plan)
    monkeypatch.setattr(plan_tasks, "acquire_lease", lambda _run, _limit_s: done.append("take"))
    monkeypatch.setattr(plan_tasks, "return_own_lease", lambda _run: done.append("let go"))
    context = context_of("plan", resolve=release)
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        PlanOperator(task_id="plan", builds=["export"], deploys=["apply"]).execute(context)
    assert done == ["looked", "take", "held", *(["let go"] if then == "nothing" else [])]
    assert (list(skipped.value.tasks), Run(context).plan.action) == (unneeded, then)


BY_HAND = {"manual": True, "operator_triggered": True, "scheduled": False, "asset_triggered": False, "backfill": False}


@pytest.mark.parametrize(("run_type", "by_hand"), BY_HAND.items())
def test_who_triggered_a_run(context_of, run_type, by_hand):
    """A person, or a DAG that triggers this one, may try again what the schedule and an Asset may not."""
    context = context_of("plan")
    context["dag_run"].run_type = DagRunType(run_type)
    assert Run(context).by_hand is by_hand


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
        PreviewOperator(task_id="preview").make(Run(context_of("preview", **facts, export=export, push=pushed)))


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
    assert Run(context).verdict_of("remove_preview")["reason"] == "no preview is left"


@pytest.mark.parametrize("strategy", ["preview", "rolling"])
@pytest.mark.parametrize("planned", [False, True], ids=["nothing else to do", "with something to do"])
def test_what_a_killed_run_left_is_removed_by_whichever_run_comes_next(  # noqa: PLR0917
    context_of, release, export, pushed, leases, monkeypatch, strategy, planned
):
    """Whatever the model file says by now, and whether the run has the target already or only for this: then it gives it back."""
    store, deleted, given = Store(release.store), [], []
    left = previewed(
        new_record(replace(release, run_id="killed", strategy="preview"), now=utc_now()),
        objects=[ObjectRef(api_version="v1", kind="Service", name="tfs-server-preview", namespace="shop")],
        export=export, pushed=pushed,
    )  # fmt: skip
    write_record(store, left)
    monkeypatch.setattr("slipway.steps.preview.remove_objects", lambda *words: deleted.append(words))
    monkeypatch.setattr(run_lease, "return_lease", lambda place, _holder: given.append(place.name) or True)
    context = context_of("remove_preview", resolve=replace(release, strategy=strategy))
    if planned:
        context["ti"].task_id = "plan"
        acquire_lease(Run(context), 60)
        context["ti"].task_id = "remove_preview"
    assert RemovePreviewOperator(task_id="remove_preview").execute(context) == ["service/tfs-server-preview"]
    assert [model for _, model, _ in deleted] == ["digits-vit"]
    assert given == ([] if planned else ["slipway-tfs-server"])
    [record] = read_records(store, release.model).records
    assert record["preview"] == []


@pytest.mark.parametrize(
    ("error", "bad"),
    [
        (SmokeTestFailed("wrong label"), True),
        (SmokeTestUnfinished("docker info"), False),
        (InputRefused("no store"), False),
    ],
)
def test_the_release_is_blamed_only_for_its_own(context_of, release, store, error, bad):
    """A wrong answer on the engine is the release's own; what ended the test before there was one is not."""
    context = context_of("smoke_test", resolve=release)
    with pytest.raises(AirflowFailException):
        Refused(task_id="refused", error=error).execute(context)
    assert Run(context).verdict_of("smoke_test").get("bad", False) is bad
    assert bool(read_records(store, release.model).records) is bad


def test_apply_of_a_run_that_a_person_has_ended_writes_nothing(  # noqa: PLR0917
    context_of, release, export, pushed, leases, monkeypatch
):
    """Airflow stops a task some seconds after its run was ended; the rollback may have found nothing to undo by then."""
    wrote = []
    monkeypatch.setattr("slipway.steps.deploy.deploy", lambda *_facts, check: check() or wrote.append(True))
    plan = Plan(action="everything", reasons=())
    context = context_of("apply", resolve=release, plan=plan, export=export, push=pushed)
    context["ti"].states = {"announce": "skipped"}
    with pytest.raises(AirflowFailException, match="somebody ended the run; nothing was written"):
        ApplyOperator(task_id="apply").execute(context)
    assert wrote == []


PASSED, DOUBTED = {"outcome": "pass"}, {"outcome": "inconclusive"}
ENDINGS = {
    "live": ({"gate": "success", "announce": "success"}, {"gate": PASSED}, "live"),
    "red": ({"gate": "failed", "announce": "upstream_failed"}, {"gate": {"outcome": "fail"}}, "failed"),
    "after a yes": ({"gate": "success", "announce": "success"}, {"gate": DOUBTED, "approve": PASSED}, "live"),
}


def run_of(context_of, release, states, said):
    """The context of `record` in a run whose tasks ended so, and left these words."""
    context = context_of("record", resolve=release)
    context["ti"].states = {"apply": "success", **states}
    for task_id, verdict in said.items():
        context["ti"].facts[task_id, VERDICT] = {"reason": "", "at": "2026-11-24T12:00:00+00:00", **verdict}
    return context


@pytest.mark.parametrize(("states", "said", "outcome"), ENDINGS.values(), ids=ENDINGS)
def test_record_closes_a_run_that_has_ended_by_itself(context_of, release, store, states, said, outcome):  # noqa: PLR0917
    """Its colour is announce's; the record's task passes."""
    context = run_of(context_of, release, states, said)
    assert RecordOperator(task_id="record", proof_task_id="gate").execute(context)
    assert [record["outcome"] for record in read_records(store, release.model).records] == [outcome]


ENDED = {
    "while it waits for the rollout": ({"gate": "skipped", "announce": "skipped"}, {}),
    "while the gate asks": ({"gate": "success", "announce": "skipped"}, {}),
    "by the gate's own state": ({"gate": "success", "announce": "success"}, {}),
    "while a person is asked": ({"gate": "success", "approve": "success", "announce": "skipped"}, {"gate": DOUBTED}),
}


@pytest.mark.parametrize(("states", "said"), ENDED.values(), ids=ENDED)
def test_a_run_that_a_person_ends_is_red_and_proves_nothing(context_of, release, store, states, said):
    """A task that was marked a success has said nothing: the release is as unproven as in a run that was marked failed."""
    context = run_of(context_of, release, {"rollback": "success", **states}, said)
    context["ti"].facts["rollback", "return_value"] = {"action": "restore"}
    with pytest.raises(AirflowFailException, match="before its release was proven; the release before it serves again"):
        RecordOperator(task_id="record", proof_task_id="approve" if "approve" in states else "gate").execute(context)
    assert [record["outcome"] for record in read_records(store, release.model).records] == ["failed"]


LEFT_LIVE = {
    "taken away": ({"rollback": "success"}, {"action": "remove"}, "it was deleted again"),
    "kept": ({"rollback": "success"}, {"action": "keep"}, "what it applied was not rolled back. Next: kubectl"),
    "not undone": ({"rollback": "failed"}, None, "what it applied was not rolled back. Next: kubectl"),
    "never applied": ({"rollback": "skipped", "apply": "skipped"}, None, "what serves was not touched. Next: trigger"),
}


@pytest.mark.parametrize(("states", "undone", "words"), LEFT_LIVE.values(), ids=LEFT_LIVE)
def test_a_run_that_a_person_ends_says_what_serves(context_of, release, store, states, undone, words):  # noqa: PLR0917
    """Whether rollback brought the last good release back, took a first one away, or could do neither."""
    context = run_of(context_of, release, {"gate": "skipped", "announce": "skipped", **states}, {})
    context["ti"].facts["rollback", "return_value"] = undone
    with pytest.raises(AirflowFailException, match=words):
        RecordOperator(task_id="record", proof_task_id="gate").execute(context)


@pytest.mark.parametrize("facts", [{"plan": {"action": "nothing"}}, {}], ids=["nothing to do", "plan only"])
def test_record_of_a_run_with_nothing_to_do_says_nothing(context_of, release, store, facts):
    """Also where a person clears what its plan has skipped."""
    context = context_of("record", resolve=release)
    context["ti"].states = {"announce": "skipped"}
    for task_id, fact in facts.items():
        context["ti"].facts[task_id, "return_value"] = fact
    context["params"] = {} if facts else {"plan_only": True}
    assert RecordOperator(task_id="record", proof_task_id="gate").execute(context) is None
    assert read_records(store, release.model).records == ()


def test_a_word_of_an_earlier_try_counts_for_nothing(context_of, release, store):
    """A run is cleared, resolves to something newer and fails before its smoke test: that one's old word is of the old release."""
    said = {"smoke_test": {"outcome": "fail", "bad": True}}
    context = run_of(context_of, release, {"smoke_test": "upstream_failed", "announce": "upstream_failed"}, said)
    RecordOperator(task_id="record", proof_task_id="gate").execute(context)
    [record] = read_records(store, release.model).records
    assert (record["bad"], record["verdicts"]) == (None, {})


@pytest.mark.parametrize(("number", "fails"), [(1, True), (4, False)])
@pytest.mark.parametrize("error", [ClusterUnreachable, GoogleUnreachable])
def test_a_lease_that_is_never_given_back_is_no_reason_for_a_red_run(  # noqa: PLR0917
    context_of, release, store, leases, monkeypatch, error, number, fails
):
    """It is tried again as often as the record is; in the end the Lease runs out."""

    def never(*_words):
        raise error("away")

    monkeypatch.setattr(run_lease, "return_lease", never)
    context = run_of(context_of, release, *ENDINGS["live"][:2])
    context["ti"].task_id = "plan"
    acquire_lease(Run(context), 60)
    context["ti"].task_id, context["ti"].try_number = "record", number
    with pytest.raises(error) if fails else nullcontext():
        RecordOperator(task_id="record", proof_task_id="gate").execute(context)
    assert [record["outcome"] for record in read_records(store, release.model).records] == ["live"]
