from contextlib import nullcontext
from dataclasses import replace

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from metric_pods import MetricPod

from slipway.dag import run_lease
from slipway.dag.run import Run
from slipway.dag.run_lease import acquire_run_lease
from slipway.dag.tasks.deploy import ApplyOperator, PreviewOperator, RemovePreviewOperator
from slipway.facts import ObjectRef, Plan, to_dict
from slipway.records.history import read_records
from slipway.records.record import new_record, record_with_preview, utc_now, write_record
from slipway.records.store import Store
from slipway.release import Bake, Gate, LoadBounds


def test_preview_is_skipped_if_the_strategy_is_rolling(context_of, api_server, release, export, pushed):
    """The skip names its reason."""
    facts = {"resolve": replace(release, strategy="rolling"), "plan": Plan(action="everything", reasons=())}
    with pytest.raises(AirflowSkipException, match=r"target\.strategy is rolling"):
        PreviewOperator(task_id="preview").make(Run(context_of("preview", **facts, export=export, push=pushed)))


@pytest.mark.parametrize("operator", [PreviewOperator, ApplyOperator])
def test_nothing_is_deployed_if_the_second_plan_has_nothing_to_do(context_of, release, operator):
    """`create_cluster` makes the plan again once the cluster runs, too late to skip tasks by name."""
    context = context_of("apply", resolve=release, plan=Plan(action="everything", reasons=()))
    again = {"plan": to_dict(Plan(action="nothing", reasons=())), "clearing": 0}
    context["ti"].facts["create_cluster", "plan"] = again
    with pytest.raises(AirflowSkipException, match="nothing to do"):
        operator(task_id="apply").execute(context)


@pytest.mark.parametrize(
    ("facts", "params"), [(("resolve",), {"plan_only": True}), ((), {})], ids=["plan only", "no release"]
)
def test_removal_is_skipped_if_the_run_writes_nothing(context_of, release, facts, params):
    """A run that only plans writes nothing, and a run without a release has no target."""
    context = {**context_of("remove_preview", **dict.fromkeys(facts, release)), "params": params}
    with pytest.raises(AirflowSkipException):
        RemovePreviewOperator(task_id="remove_preview", proof_task_id="gate").execute(context)


def test_removal_passes_if_no_preview_is_left(context_of, release):
    """`apply` may have deleted the preview already, or there never was one."""
    context = {**context_of("remove_preview", resolve=release), "params": {}}
    assert RemovePreviewOperator(task_id="remove_preview", proof_task_id="gate").execute(context) == []
    assert Run(context).verdict_of("remove_preview")["reason"] == "no preview is left"


@pytest.mark.parametrize("strategy", ["preview", "rolling"])
@pytest.mark.parametrize("planned", [False, True], ids=["nothing else to do", "something to do"])
def test_next_run_removes_the_preview_of_a_killed_run(  # noqa: PLR0917
    context_of, api_server, release, export, pushed, leases, monkeypatch, strategy, planned
):
    """The strategy does not matter; a run that acquires the Lease only for the removal returns it."""
    store, deleted, returned = Store(release.store), [], []
    left = record_with_preview(
        new_record(replace(release, run_id="killed", strategy="preview"), now=utc_now()),
        objects=[ObjectRef(api_version="v1", kind="Service", name="tfs-server-preview", namespace="shop")],
        export=export, pushed=pushed,
    )  # fmt: skip
    write_record(store, left)
    monkeypatch.setattr("slipway.steps.preview.remove_objects", lambda *arguments: deleted.append(arguments))
    monkeypatch.setattr(run_lease, "return_lease", lambda place, _holder: returned.append(place.name) or True)
    context = context_of("remove_preview", resolve=replace(release, strategy=strategy))
    if planned:
        context["ti"].task_id = "plan"
        acquire_run_lease(Run(context), 60)
        context["ti"].task_id = "remove_preview"
    assert RemovePreviewOperator(task_id="remove_preview", proof_task_id="gate").execute(context) == [
        "service/tfs-server-preview"
    ]
    assert [model for _, model, _ in deleted] == ["digits-vit"]
    assert returned == ([] if planned else ["slipway-tfs-server"])
    [record] = read_records(store, release.model).records
    assert record["preview"] == []


def test_apply_writes_nothing_if_a_person_ended_the_run(  # noqa: PLR0917
    context_of, release, export, pushed, leases, monkeypatch
):
    """Airflow stops a task some seconds after its run was ended; the rollback may already have found nothing to roll back."""
    wrote = []
    monkeypatch.setattr("slipway.steps.deploy.deploy", lambda *_facts, check: check() or wrote.append(True))
    plan = Plan(action="everything", reasons=())
    context = context_of("apply", resolve=release, plan=plan, export=export, push=pushed)
    context["ti"].states = {"announce": "skipped"}
    with pytest.raises(AirflowFailException, match="somebody ended the run; nothing was written"):
        ApplyOperator(task_id="apply").execute(context)
    assert wrote == []


COMPARED = {
    "the release before": (Bake(max_slowdown=2), "everything", "0" * 12, 20.0),
    "its errors alone": (Bake(max_more_errors=0.1), "everything", "0" * 12, 20.0),
    "no comparison asked for": (Bake(), "everything", "0" * 12, None),
    "no bake": (None, "everything", "0" * 12, None),
    "the same release": (Bake(max_slowdown=2), "gate", "abcdefabcdef", None),
    "no release before": (Bake(max_slowdown=2), "everything", None, None),
    "a proven release comes back": (Bake(max_slowdown=2), "restore", "0" * 12, None),
}


@pytest.mark.parametrize(("bake", "action", "live", "mean_ms"), COMPARED.values(), ids=COMPARED)
def test_apply_measures_what_it_replaces(  # noqa: PLR0917
    context_of, metric_cluster, release, export, pushed, applied, leases, monkeypatch, bake, action, live, mean_ms
):
    """How fast the release is that serves until then, if the bake compares them: afterwards its pods are gone."""
    pods = [MetricPod("a", "0" * 12), MetricPod("b", "0" * 12), MetricPod("c")]
    pods[0].count(10, 20)
    pods[1].count(30, INTERNAL=4, NOT_FOUND=5)
    pods[2].count(1000)
    metric_cluster(*pods).live = live
    monkeypatch.setattr("slipway.steps.deploy.deploy", lambda *_facts, **_: applied)
    plan = Plan(action=action, reasons=())
    baked = replace(release, gate=Gate(bake=bake))
    context = context_of("apply", resolve=baked, plan=plan, export=export, push=pushed)
    ApplyOperator(task_id="apply").execute(context)
    expected = mean_ms and {"release_id": "0" * 12, "answers": 3, "mean_ms": mean_ms, "errors": 4}
    assert Run(context).result_of("apply", key="before") == expected


def test_apply_goes_on_if_what_it_replaces_cannot_be_measured(  # noqa: PLR0917
    context_of, metric_cluster, release, export, pushed, applied, leases, monkeypatch, caplog
):
    """The bake then says that nothing is compared."""
    cluster = metric_cluster(MetricPod("a", "0" * 12))
    cluster.live, cluster.denied = "0" * 12, (404, "no such page")
    monkeypatch.setattr("slipway.steps.deploy.deploy", lambda *_facts, **_: applied)
    baked, plan = replace(release, gate=Gate(bake=Bake(max_slowdown=2))), Plan(action="everything", reasons=())
    context = context_of("apply", resolve=baked, plan=plan, export=export, push=pushed)
    ApplyOperator(task_id="apply").execute(context)
    assert Run(context).result_of("apply", key="before") is None
    assert "the metrics of the release before could not be read: pod/a: " in caplog.text


ANSWERS = {
    "nobody was asked": (None, "everything", False),
    "approved": ({"outcome": "pass"}, "everything", True),
    "rejected, and a person set the state of approve": ({"outcome": "fail"}, "everything", False),
    "a proven release comes back": (None, "restore", True),
}
LOADS = {
    "not loaded, and a person set the state of preview_load": (None, "everything", False),
    "loaded": ({"outcome": "pass"}, "everything", True),
    "inconclusive, which approve has passed on": ({"outcome": "inconclusive"}, "everything", True),
    "did not bear it": ({"outcome": "fail"}, "everything", False),
    "a proven release comes back": (None, "restore", True),
}


@pytest.mark.parametrize(("load", "action", "goes_on"), LOADS.values(), ids=LOADS)
def test_apply_writes_nothing_before_a_required_load(  # noqa: PLR0917
    context_of, api_server, release, export, pushed, applied, leases, monkeypatch, load, action, goes_on
):
    """The verdict counts, not the state of `preview_load`; a rollback needs none."""
    wrote = []
    monkeypatch.setattr("slipway.steps.deploy.deploy", lambda *_facts, check: wrote.append(check) or applied)
    asked = replace(release, strategy="preview", gate=Gate(load=LoadBounds(rate_per_s=5)))
    context = context_of("apply", resolve=asked, plan=Plan(action=action, reasons=()), export=export, push=pushed)
    if load:
        context["ti"].facts["preview_load", "verdict"] = {"reason": "", **load}
    refused = pytest.raises(
        AirflowFailException, match=r"gate\.load is set, and this run has no result of it\. Next: clear preview_load"
    )
    with nullcontext() if goes_on else refused:
        ApplyOperator(task_id="apply").execute(context)
    assert bool(wrote) is goes_on


@pytest.mark.parametrize(("approval", "action", "goes_on"), ANSWERS.values(), ids=ANSWERS)
def test_apply_writes_nothing_before_a_required_approval(  # noqa: PLR0917
    context_of, api_server, release, export, pushed, applied, leases, monkeypatch, approval, action, goes_on
):
    """The answer counts, not the state of `approve`; a rollback needs none."""
    wrote = []
    monkeypatch.setattr("slipway.steps.deploy.deploy", lambda *_facts, check: wrote.append(check) or applied)
    asked = replace(release, strategy="preview", gate=Gate(approval="always"))
    context = context_of("apply", resolve=asked, plan=Plan(action=action, reasons=()), export=export, push=pushed)
    if approval:
        context["ti"].facts["approve", "verdict"] = {"reason": "", **approval}
    with (
        nullcontext()
        if goes_on
        else pytest.raises(
            AirflowFailException,
            match=r"InputRefused: model digits-vit: .* nobody has approved this release in this run\.",
        )
    ):
        ApplyOperator(task_id="apply").execute(context)
    assert bool(wrote) is goes_on
