"""The tasks of a sweep: choose the live release, measure each variant of it, recommend one, leave nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from slipway.dag import task_ids
from slipway.dag.run import Run
from slipway.dag.run_lease import APPLY_S, RunLease, acquire_run_lease, return_run_leases
from slipway.dag.stage import BLUE, GREEN, GREY, ProgramOperator, StageOperator, reported_failures
from slipway.dag.tasks.load import PROGRAM_S
from slipway.dag.tasks.waits import RolloutWait
from slipway.errors import ApplyRefused, FieldOwnedElsewhere, ManifestError, SlipwayError
from slipway.facts import SweepTarget, Turn, from_dict

if TYPE_CHECKING:
    from airflow.sdk import Context

    from slipway.facts import Previewed, Recommendation

POLL_S = 2.0

log = logging.getLogger(__name__)


def sweep_target(run: Run) -> SweepTarget:
    """The result of `choose`."""
    return from_dict(SweepTarget, run.needed(task_ids.CHOOSE))


class ChooseSweepOperator(StageOperator):
    """Finds the live release and what the model file compares; acquires the target's Lease, so that no release comes in between."""

    ui_color = BLUE

    def __init__(self, *, model: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model

    def make(self, run: Run) -> SweepTarget:
        """The SweepTarget, found again under the Lease."""
        from slipway.dag.forms import read_sweep_form
        from slipway.steps.settings import read_settings
        from slipway.steps.sweep import choose_sweep

        read_sweep_form(dict(run.context["params"]))
        choose = partial(choose_sweep, self.model, read_settings(), run_id=run.run_id)
        if lease := RunLease.of(run, choose().release):
            lease.acquire(APPLY_S)
        target = choose()  # another run may have ended since
        plan = target.plan
        log.info("choose: release %s; %d variants, %d turns of %d s", target.pushed.release_id, len(plan.variants), len(plan.turns), plan.turn_s)  # fmt: skip
        return target


class MeasureVariantOperator(ProgramOperator):
    """Runs one variant next to the live release, loads it, and deletes it. A variant that cannot run is a result, too."""

    template_fields: Sequence[str] = ("load_python",)
    ui_color = GREEN

    def __init__(self, *, variant: str, load_python: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.variant = variant
        self.load_python = load_python

    def make(self, run: Run) -> Turn:
        """The Turn. Raises LoadTestUnfinished, LeaseLost, ClusterUnreachable, StoreError."""
        from slipway.steps.settings import read_settings
        from slipway.steps.sweep import load_variant, remove_variant, start_variant, variant_of_turn

        target, number = sweep_target(run), run.map_index
        variant = variant_of_turn(target.plan, number, self.variant)
        limit_s = target.release.rollout_timeout_s + target.plan.turn_s + PROGRAM_S + APPLY_S
        acquire_run_lease(run, limit_s)
        try:
            check = partial(acquire_run_lease, run, limit_s)
            previewed = start_variant(target, variant, number, read_settings(), check=check)
            if why_not := self._wait(target, number, previewed):
                return self._not_measured(number, why_not)
            return load_variant(target, variant, number, python=self.load_python, started=self._started)
        except (ManifestError, ApplyRefused, FieldOwnedElsewhere) as error:
            return self._not_measured(number, _reason(error))
        finally:
            remove_variant(target, number)
            acquire_run_lease(run, APPLY_S)

    @staticmethod
    def _wait(target: SweepTarget, number: int, previewed: Previewed) -> str | None:
        """Wait for the rollout as a preview's; why it failed: a variant whose pods fit no node, say."""
        from slipway.names import sweep_suffix

        wait = RolloutWait(release=target.release.beside(sweep_suffix(number)), applied=previewed)
        trigger = wait.trigger({"deadline": time.time() + wait.limit_s, "poll_s": POLL_S})
        event = asyncio.run(trigger.poll_until_decided())
        return None if event is None or event["outcome"] == "pass" else _reason(wait.failure(event))

    def _not_measured(self, number: int, why_not: str) -> Turn:
        log.warning("sweep: %s is not measured: %s", self.variant, why_not)
        return Turn(variant=self.variant, number=number, why_not=why_not)


def _reason(error: SlipwayError) -> str:
    return str(error).partition(". Next:")[0]


class RecommendOperator(ProgramOperator):
    """Compares what the turns measured; keeps the table, a picture and the recommended overlay."""

    template_fields: Sequence[str] = ("load_python",)
    ui_color = BLUE

    def __init__(self, *, load_python: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.load_python = load_python

    def make(self, run: Run) -> Recommendation:
        """The Recommendation. Raises LoadTestUnfinished if nothing was measured, StoreError."""
        from slipway.steps.sweep import recommend

        turns = [from_dict(Turn, one) for one in run.results_of(task_ids.MEASURE)]
        return recommend(sweep_target(run), turns, python=self.load_python, started=self._started)


class EndSweepOperator(BaseOperator):
    """Deletes what killed turns left, and returns the Lease, as a teardown."""

    ui_color = GREY

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(retries=30, retry_delay=timedelta(seconds=10), **kwargs)

    def execute(self, context: Context) -> None:
        """Nothing is left; skipped if the run had chosen no release."""
        from slipway.steps.sweep import forget_sweep, remove_left_variants

        run = Run(context)
        try:
            if not run.has_release:
                raise AirflowSkipException("a sweep that has chosen no release leaves nothing")
            with reported_failures(run):
                acquire_run_lease(run, APPLY_S)
                remove_left_variants(run.release)
                forget_sweep(run.release)
        finally:
            return_run_leases(run)
