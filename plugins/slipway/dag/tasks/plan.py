"""The tasks that resolve a release, plan what a run has to do, or choose a recorded release."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import DownstreamTasksSkipped

from slipway.dag.run import PLAN_AGAIN, RETURN_VALUE, Run
from slipway.dag.run_lease import (
    APPLY_S,
    BUILD_S,
    RunLease,
    acquire_run_lease,
    return_own_run_lease,
    return_unknown_run_lease,
)
from slipway.dag.stage import BLUE, StageOperator
from slipway.errors import ClusterUnfit, NothingServed
from slipway.facts import JsonObject, to_dict

if TYPE_CHECKING:
    from airflow.sdk import Context

    from slipway.facts import Choice, Plan
    from slipway.release import Release

log = logging.getLogger(__name__)


class ResolveOperator(StageOperator):
    """Pins the revision, the base image and every name; refuses what is invalid."""

    only_reads = True
    ui_color = BLUE

    def __init__(self, *, model_file: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_file = model_file

    def make(self, run: Run) -> Release:
        """The Release."""
        from slipway.dag.forms import read_refresh_form
        from slipway.steps.resolve import resolve
        from slipway.steps.settings import read_settings

        params = read_refresh_form(dict(run.context["params"]))
        release = resolve(Path(self.model_file), params, read_settings(), run_id=run.run_id)
        log.info("resolve: %s at %s on %s", release.model, release.source.revision, release.base_reference)
        return release


class PlanOperator(StageOperator):
    """Finds out what has changed since the live release, and skips the tasks that are not needed: all of them if nothing has."""

    only_reads = True
    ui_color = BLUE

    def __init__(self, *, builds: Sequence[str], deploys: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.builds = list(builds)
        self.deploys = list(deploys)

    def execute(self, context: Context) -> JsonObject:
        """The Plan as a dict. Skips what it does not need."""
        plan = super().execute(context)
        everything = [*self.builds, *self.deploys]
        # For `cases`, export runs, and build_image skips itself: what deploys waits for it, and so for export.
        unneeded = {"nothing": everything, "everything": [], "cases": []}.get(plan["action"], self.builds)
        if Run(context).only_plans:
            log.info("plan: this run only plans; nothing is written")
            unneeded = everything
        if unneeded:
            context["ti"].xcom_push(key=RETURN_VALUE, value=plan)  # what is raised next keeps Airflow from pushing it
            raise DownstreamTasksSkipped(tasks=unneeded)
        return plan

    def make(self, run: Run) -> Plan:
        """The Plan; it acquires the Lease if there is something to do, and plans again under it."""
        from slipway.gke.lookup import missing_cluster
        from slipway.steps.location import give_cluster_uid
        from slipway.steps.plan import describe_plan, make_plan

        release = run.release
        if not run.only_plans:
            give_cluster_uid(release)
        plan, trials = make_plan(release, by_hand=run.by_hand)
        changes = plan.action != "nothing" and not run.only_plans
        if changes and missing_cluster(release.target) is None:
            acquire_run_lease(run, BUILD_S)
            plan, trials = make_plan(release, by_hand=run.by_hand, held=True)  # another run may have ended since
            if plan.action == "nothing":
                return_own_run_lease(run)
        elif plan.action == "nothing" and run.context["ti"].try_number > 1:
            return_unknown_run_lease(
                run
            )  # an earlier try had something to do; no later task of this run returns its Lease
        for level, line in describe_plan(plan, trials):
            log.log(level, "plan: %s", line)
        if plan.unserved is not None:
            raise NothingServed(plan.unserved)
        return plan


def plan_again_under_lease(run: Run) -> None:
    """Make the plan again, now that the cluster can be reached, and leave it for the tasks after this one.

    Raises what `make_plan` does, TargetBusy, LeaseLost, NothingServed.
    """
    from slipway.kubernetes.apply import ensure_namespace
    from slipway.steps.plan import describe_plan, make_plan, plan_again

    release, first = run.resolved, run.plan
    ensure_namespace(release.target)
    acquire_run_lease(run, BUILD_S)
    second, trials = make_plan(release, by_hand=run.by_hand, held=True)
    plan = plan_again(first, second)
    for level, line in describe_plan(plan, trials):
        log.log(level, "plan, now that the cluster runs: %s", line)
    if plan.action == "nothing":
        return_own_run_lease(run)
    run.leave(PLAN_AGAIN, {"plan": to_dict(plan), "clearing": run.clearing})
    if plan.unserved is not None:
        raise NothingServed(plan.unserved)


class ChooseOperator(StageOperator):
    """Finds the recorded release to go back to, and lists the ones there are."""

    ui_color = BLUE

    def __init__(self, *, model: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model

    def make(self, run: Run) -> Choice:
        """The Choice, made again under the Lease."""
        from slipway.dag.forms import read_rollback_form
        from slipway.gke.lookup import missing_cluster
        from slipway.names import dag_id
        from slipway.records.history import describe_releases, read_current_history
        from slipway.records.store import Store
        from slipway.steps.location import target_of_model_file
        from slipway.steps.rollback import choose_rollback
        from slipway.steps.settings import ensure_installation, read_settings

        wanted, settings = read_rollback_form(dict(run.context["params"])), read_settings()
        store, named = Store(settings.store), target_of_model_file(self.model, settings)
        history = read_current_history(store, self.model)
        for line in describe_releases(history):
            log.info("choose: %s", line)
        choose = partial(
            choose_rollback,
            release_id=wanted,
            run_id=run.run_id,
            store=store.uri,
            installation=ensure_installation(),
            named=named,
        )
        release = choose(history).release
        if absent := missing_cluster(release.target):
            raise ClusterUnfit(f"{absent}. Next: trigger {dag_id(self.model)}, which creates it")
        if lease := RunLease.of(run, release):
            lease.acquire(APPLY_S)
        history = read_current_history(store, self.model)  # another run may have ended since
        choice = choose(history)
        log.info("choose: %s", "; ".join(choice.plan.reasons))
        return choice
