"""The tasks that close a run's record and prune what is old."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from slipway.dag import task_ids
from slipway.dag.run import Run
from slipway.dag.run_lease import lease_broken_by, return_run_leases
from slipway.dag.stage import GREY, reported_failures, skip_if_run_only_plans
from slipway.facts import JsonObject, to_dict
from slipway.steps.outcome import describe_ended_run, was_run_ended_by_hand

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class RecordOperator(BaseOperator):
    """Closes the run's record, whether the run passed or failed, and returns the target's Lease.

    It is a leaf that counts next to `announce`. If a person ends a run, Airflow runs the teardowns, skips the rest and takes
    the run's colour from the teardowns: without this task, a run that proved nothing would be green. It never turns a red
    run green.
    """

    ui_color = GREY

    def __init__(self, *, proof_task_id: str, **kwargs: Any) -> None:
        super().__init__(retries=30, retry_delay=timedelta(seconds=10), **kwargs)
        self.proof_task_id = proof_task_id

    def execute(self, context: Context) -> str | None:
        """The record's URI; None if the run had nothing to do, or failed before it had a release to record."""
        run = Run(context)
        if run.action == "nothing" or run.only_plans:
            log.info("record: there was nothing to do")  # a person has cleared tasks that the plan skipped
            return None
        states = run.states
        announced = states.get(task_ids.ANNOUNCE)
        proven = run.is_proven(states, self.proof_task_id)
        try:
            uri = _close(run, states, proven=proven) if run.has_release else None
        finally:
            return_run_leases(run)
        log.info("record: %s", uri or "there is no release to record; the first task's log says why")
        if was_run_ended_by_hand(proven=proven, announce_state=announced):
            where = f"record {uri}" if uri else run.run_id
            raise AirflowFailException(
                f"{where}: somebody ended the run, or a task of it, before its release was proven; {_left(run, states)}"
            )
        return uri


def _close(run: Run, states: dict[str, str], *, proven: bool) -> str:
    from slipway.records.record import close_run

    undo, broke = run.result_of(task_ids.ROLLBACK), lease_broken_by(run)
    applied = states.get(task_ids.APPLY) == "success"
    return close_run(run.release, run.verdicts(states), states, proven=proven, applied=applied, undo=undo, broke=broke)


def _left(run: Run, states: dict[str, str]) -> str:
    return describe_ended_run(
        rollback=run.result_of(task_ids.ROLLBACK),
        rollback_state=states.get(task_ids.ROLLBACK),
        apply_state=states.get(task_ids.APPLY),
        release=run.release,
        dag_id=run.dag_id,
    )


class PruneOperator(BaseOperator):
    """Prunes what the model file's retention no longer covers, as a teardown that cannot change the run's colour."""

    ui_color = GREY

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(retries=0, **kwargs)  # the next run prunes what is left

    def execute(self, context: Context) -> JsonObject:
        """What was Pruned; skipped if the run has no release."""
        from slipway.steps.prune import prune

        run = Run(context)
        skip_if_run_only_plans(run)
        if run.result_of(task_ids.RESOLVE) is None or run.action == "nothing":
            raise AirflowSkipException("there is no release, or nothing to do: there is nothing to prune for")
        built, pushed = run.result_of(task_ids.BUILD_IMAGE), run.result_of(task_ids.PUSH)
        images = [built["image_id"] if built else None, pushed["digest"] if pushed else None]
        with reported_failures(run):
            pruned = prune(run.release, resolved=run.resolved, images=frozenset(filter(None, images)))
        log.info(
            "prune: %d records, %d artifacts in the store, %d images on the engine, %d in the registry",
            pruned.records, pruned.artifacts, pruned.images, pruned.registry,
        )  # fmt: skip
        return to_dict(pruned)
