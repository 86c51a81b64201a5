import pytest
from airflow.sdk.exceptions import DownstreamTasksSkipped

from slipway.dag.run import Run
from slipway.dag.tasks import plan as plan_tasks
from slipway.dag.tasks.plan import PlanOperator
from slipway.facts import Plan

PLANNED = {
    "something to change": ("everything", {}, [3600]),
    "only manifests": ("manifests", {}, [3600]),
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
    operator = PlanOperator(task_id="plan", builds=["export"], deploys=["apply"])
    skipped = []
    try:
        operator.execute(context)
    except DownstreamTasksSkipped as skip:
        skipped = list(skip.tasks)
    assert asked == held
    unneeded = {"everything": [], "nothing": ["export", "apply"]}.get(action, ["export"])
    assert skipped == (["export", "apply"] if params else unneeded)


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
