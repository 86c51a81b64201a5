import re

import pytest
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from slipway.dag.run import Run
from slipway.dag.tasks import plan as plan_tasks
from slipway.dag.tasks.plan import ChooseOperator, PlanOperator
from slipway.facts import Baseline, Plan, to_dict
from slipway.records.record import write_record

PLANNED = {
    "something to change": ("everything", {}, [3600]),
    "only manifests": ("manifests", {}, [3600]),
    "only the gate": ("gate", {}, [3600]),
    "only golden cases": ("cases", {}, [3600]),
    "the last good release is restored": ("restore", {}, [3600]),
    "nothing to do": ("nothing", {}, []),
    "plan only": ("everything", {"plan_only": True}, []),
}


@pytest.mark.parametrize(("action", "params", "held"), PLANNED.values(), ids=PLANNED)
def test_lease_is_acquired_only_to_write(context_of, release, monkeypatch, action, params, held):  # noqa: PLR0917
    """A plan acquires the Lease if there is something to do; a run that writes nothing acquires none."""
    asked = []
    plan = Plan(action=action, reasons=("so",))
    monkeypatch.setattr("slipway.steps.plan.make_plan", lambda _release, **_: (plan, []))
    monkeypatch.setattr(plan_tasks, "acquire_run_lease", lambda _run, limit_s: asked.append(limit_s))
    context = context_of("plan", resolve=release)
    context["params"] = params
    operator = PlanOperator(task_id="plan", builds=["export", "push"], deploys=["apply"])
    skipped = []
    try:
        operator.execute(context)
    except DownstreamTasksSkipped as skip:
        skipped = list(skip.tasks)
    assert asked == held
    every = ["export", "push", "apply"]
    unneeded = {"everything": [], "nothing": every, "cases": []}.get(action, ["export", "push"])
    assert skipped == (every if params else unneeded)


def test_run_is_red_if_nothing_serves(context_of, release, monkeypatch):
    """A scheduled run that leaves a bad release alone fails if no proven release serves; it is not retried."""
    why = "deployment/tfs-server in shop: no release that was proven live serves there. Next: fix it"
    plan = Plan(action="nothing", reasons=("it is bad",), unserved=why)
    monkeypatch.setattr("slipway.steps.plan.make_plan", lambda _release, **_: (plan, []))
    context = context_of("plan", resolve=release)
    with pytest.raises(AirflowFailException, match=rf"^NothingServed: {re.escape(why)}$"):
        PlanOperator(task_id="plan", builds=["export"], deploys=["apply"]).execute(context)
    assert Run(context).verdict_of("plan")["outcome"] == "fail"


UNDER_LEASE = {
    "nothing is left to do": ("nothing", ["export", "apply"]),
    "something else has to be done": ("manifests", ["export"]),
}


@pytest.mark.parametrize(("then", "unneeded"), UNDER_LEASE.values(), ids=UNDER_LEASE)
def test_plan_is_made_again_under_the_lease(context_of, release, monkeypatch, then, unneeded):
    """The second plan sees a run that ended before the Lease was acquired; a Lease that is no longer needed is returned."""
    done = []
    plans = [Plan(action=action, reasons=(action,)) for action in ("everything", then)]

    def make_plan(_release, *, by_hand, held=False):
        done.append("planned under the Lease" if held else "planned")
        return plans.pop(0), []

    monkeypatch.setattr("slipway.steps.plan.make_plan", make_plan)
    monkeypatch.setattr(plan_tasks, "acquire_run_lease", lambda _run, _limit_s: done.append("acquired"))
    monkeypatch.setattr(plan_tasks, "return_own_run_lease", lambda _run: done.append("returned"))
    context = context_of("plan", resolve=release)
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        PlanOperator(task_id="plan", builds=["export"], deploys=["apply"]).execute(context)
    assert done == ["planned", "acquired", "planned under the Lease", *(["returned"] if then == "nothing" else [])]
    assert (list(skipped.value.tasks), Run(context).plan.action) == (unneeded, then)


@pytest.mark.parametrize("then", ["everything", "nothing"])
def test_plan_is_replaced_once_the_cluster_runs(context_of, release, monkeypatch, then):
    """The second plan is made under the Lease, in a namespace that exists; if nothing is left to do, the Lease is returned."""
    done = []
    baseline = Baseline(measured=None, source="busy")

    def make_plan(asked, *, by_hand, held):
        done.append(("planned", asked == release, by_hand, held))
        return Plan(action=then, reasons=("now",), baseline=baseline), []

    monkeypatch.setattr("slipway.steps.plan.make_plan", make_plan)
    monkeypatch.setattr("slipway.kubernetes.apply.ensure_namespace", lambda _target: done.append("namespace"))
    monkeypatch.setattr(plan_tasks, "acquire_run_lease", lambda _run, _limit_s: done.append("acquired"))
    monkeypatch.setattr(plan_tasks, "return_own_run_lease", lambda _run: done.append("returned"))
    context = context_of("create_cluster", resolve=release, plan=Plan(action="everything", reasons=("first",)))
    plan_tasks.plan_again_under_lease(Run(context))
    returned = ["returned"] if then == "nothing" else []
    assert done == ["namespace", "acquired", ("planned", True, True, True), *returned]
    assert (Run(context).plan.action, Run(context).baseline) == (then, to_dict(baseline))
    context["dag_run"].clear_number = 1
    context["ti"].facts["plan", "clearing"] = 1
    assert Run(context).plan.reasons == ("first",)  # cleared from `plan`: the second plan of the first try is older


def test_choose_takes_the_release_before_the_live_one(context_of, record_of, store, leases, monkeypatch, caplog):  # noqa: PLR0917
    """It logs every release that was proven live, acquires the Lease, and leaves the release with its recorded manifests."""
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_STORE", store.uri)
    for minutes, release_id in enumerate(("a" * 12, "b" * 12)):
        write_record(store, record_of(f"r{minutes}", "live", minutes, release_id=release_id))
    caplog.set_level("INFO")
    choice = ChooseOperator(task_id="choose", model="digits-vit").make(Run(context_of("choose")))
    assert (choice.plan.action, choice.plan.pushed.release_id) == ("restore", "a" * 12)
    assert choice.plan.manifests_uri == "file:///store/m.yaml"
    assert choice.release.run_id == "manual__2026-11-22T21:00:00+00:00"
    assert leases.asked == [("slipway-tfs-server", "refresh_digits_vit", 600)]
    assert all(f"choose: {release_id}" in caplog.text for release_id in ("a" * 12, "b" * 12))
