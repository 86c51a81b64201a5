"""The tasks that resolve, plan and choose a release."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import DownstreamTasksSkipped

from slipway.dag.run import RETURN_VALUE, Run
from slipway.dag.run_lease import APPLY_S, BUILD_S, RunLease, acquire_lease, return_forgotten_lease, return_own_lease
from slipway.dag.stage import BLUE, StageOperator
from slipway.errors import ClusterUnfit
from slipway.facts import JsonObject

if TYPE_CHECKING:
    from airflow.sdk import Context
log = logging.getLogger(__name__)


class ResolveOperator(StageOperator):
    """Pins the revision, the base image and every name; refuses what cannot be meant."""

    ui_color = BLUE

    def __init__(self, *, model_file: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_file = model_file

    def make(self, run: Run) -> Any:
        """The Release."""
        from slipway.dag.forms import read_params
        from slipway.steps.resolve import resolve
        from slipway.steps.settings import read_settings

        params = read_params(dict(run.context["params"]))
        release = resolve(Path(self.model_file), params, read_settings(), run_id=run.context["run_id"])
        log.info("resolve: %s at %s on %s", release.model, release.source.revision, release.base_reference)
        return release


class PlanOperator(StageOperator):
    """Finds out what has to be done since the live release, and skips the rest: all of it where nothing changed."""

    ui_color = BLUE

    def __init__(self, *, builds: Sequence[str], deploys: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.builds = list(builds)
        self.deploys = list(deploys)

    def execute(self, context: Context) -> JsonObject:
        """The Plan as a dict; what it does not need is skipped from here."""
        plan = super().execute(context)
        everything = [*self.builds, *self.deploys]
        unneeded = {"nothing": everything, "manifests": self.builds, "restore": self.builds}.get(plan["action"], [])
        if context["params"].get("plan_only"):
            unneeded = everything
        if not unneeded:
            return plan
        context["ti"].xcom_push(key=RETURN_VALUE, value=plan)
        raise DownstreamTasksSkipped(tasks=unneeded)

    def make(self, run: Run) -> Any:
        """The Plan, its diff in the log. One that changes something is made of what is there while the run has the target."""
        from slipway.steps.plan import differences, make_plan, missing_cluster

        release = run.release
        plan, trials = make_plan(release, by_hand=run.by_hand)
        changes = plan.action != "nothing" and not run.context["params"].get("plan_only")
        if changes and missing_cluster(release.target) is None:
            acquire_lease(run, BUILD_S)
            plan, trials = make_plan(release, by_hand=run.by_hand, held=True)  # another run may have ended since
            if plan.action == "nothing":
                return_own_lease(run)
        elif plan.action == "nothing" and run.context["ti"].try_number > 1:
            return_forgotten_lease(run)  # by an earlier try that had something to do; nothing comes after this one
        for line in plan.orphans:
            log.warning("plan: %s", line)
        for trial in trials:
            for line in differences(trial):
                log.info("plan: %s", line)
        log.info("plan: %s: %s", plan.action, "; ".join(plan.reasons))
        return plan


class ChooseOperator(StageOperator):
    """Finds the recorded release to go back to, and lists those there are."""

    ui_color = BLUE

    def __init__(self, *, model: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model

    def make(self, run: Run) -> Any:
        """The Choice."""
        from slipway.dag.forms import read_release
        from slipway.facts import Choice, Plan
        from slipway.names import dag_id
        from slipway.records.history import choose_release, describe, read_current_history, recorded
        from slipway.records.store import Store
        from slipway.steps.plan import missing_cluster
        from slipway.steps.settings import read_settings

        wanted, store = read_release(dict(run.context["params"])), read_settings().store

        def choose() -> Any:
            history = read_current_history(Store(store), self.model)
            return history, choose_release(history, wanted)

        history, record = choose()
        for line in describe(history):
            log.info("choose: %s", line)
        release = recorded(record, run_id=run.context["run_id"], store=store)[0]
        if absent := missing_cluster(release.target):
            raise ClusterUnfit(f"{absent}. Next: trigger {dag_id(self.model)}, which makes it")
        if lease := RunLease.of(run, release):
            lease.acquire(APPLY_S)
        record = choose()[1]  # another run may have ended since
        release, export, pushed = recorded(record, run_id=run.context["run_id"], store=store)
        log.info("choose: going back to release %s, version %s", record["release_id"], record["version"])
        plan = Plan(
            action="restore",
            reasons=(f"release {record['release_id']} was chosen",),
            export=export,
            pushed=pushed,
            manifests_uri=record["manifests"]["uri"],
        )
        return Choice(release=release, plan=plan)
