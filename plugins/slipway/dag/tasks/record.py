"""The tasks that close a run's record and prune what is old."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from slipway.dag.run import Run
from slipway.dag.run_lease import broken_by, return_leases
from slipway.dag.stage import GREY, is_proven, reported_failures, task_states, verdicts_of
from slipway.facts import JsonObject, to_dict

if TYPE_CHECKING:
    from airflow.sdk import Context
log = logging.getLogger(__name__)


class PruneOperator(BaseOperator):
    """Prunes what goes beyond the model file's retention, as a teardown that cannot change the run's colour."""

    ui_color = GREY

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(retries=0, **kwargs)  # what stays is pruned by the next run

    def execute(self, context: Context) -> JsonObject:
        """What was Pruned; skipped where the run has no release."""
        from slipway.steps.prune import prune

        run = Run(context)
        if run.left("resolve") is None:
            raise AirflowSkipException("there is no release, so there is nothing to prune for")
        built, pushed = run.left("build_image"), run.left("push")
        images = [built["image_id"] if built else None, pushed["digest"] if pushed else None]
        with reported_failures(run):
            pruned = prune(run.release, images=frozenset(filter(None, images)))
        log.info(
            "prune: %d records, %d artifacts in the store, %d images on the engine, %d in the registry",
            pruned.records, pruned.artifacts, pruned.images, pruned.registry,
        )  # fmt: skip
        return to_dict(pruned)


class RecordOperator(BaseOperator):
    """Closes the run's record, pass or fail, and gives the target's Lease back.

    It is a leaf that counts beside `announce`: of a run that a person ends, Airflow runs the teardowns, skips the rest and
    takes its colour from that, so that one that proved nothing would be green. It never turns a red run green.
    """

    ui_color = GREY

    def __init__(self, *, proof_task_id: str, **kwargs: Any) -> None:
        super().__init__(retries=30, retry_delay=timedelta(seconds=10), **kwargs)
        self.proof_task_id = proof_task_id

    def execute(self, context: Context) -> str | None:
        """The record's URI; none where the run failed before there was a Release to record, or had nothing to do."""
        run, states = Run(context), task_states(context)
        planned = run.left("plan") or {}
        if planned.get("action") == "nothing" or context["params"].get("plan_only"):
            log.info("record: nothing was to be done")  # a person has cleared what the plan skipped
            return None
        proven = is_proven(run, states, self.proof_task_id)
        try:
            uri = self._close(run, states, proven=proven) if run.left("resolve") or run.left("choose") else None
        finally:
            return_leases(run)
        log.info("record: %s", uri or "there is no release to record; the first task's log says why")
        if not proven and states.get("announce") in {"skipped", "success"}:
            where = f"record {uri}" if uri else context["run_id"]
            raise AirflowFailException(
                f"{where}: somebody ended the run, or a task of it, before its release was proven; {_left_live(run, states)}"
            )
        return uri

    @staticmethod
    def _close(run: Run, states: dict[str, str], *, proven: bool) -> str:
        from slipway.records.record import close_run

        undo, broke = run.left("rollback"), broken_by(run)
        applied = states.get("apply") == "success"
        return close_run(
            run.release, verdicts_of(run, states), states, proven=proven, applied=applied, undo=undo, broke=broke
        )


def _left_live(run: Run, states: dict[str, str]) -> str:
    """What a run that was ended by hand leaves, and what to do next."""
    undone = (run.left("rollback") or {}).get("action") if states.get("rollback") == "success" else None
    again = f"Next: trigger {run.context['ti'].dag_id} again"
    if undone == "restore":
        return f"the release before it serves again. {again}"
    if undone == "remove":
        return f"it was taken away again. {again}"
    if states.get("apply") not in {"success", "failed"}:
        return f"what serves was not touched. {again}"
    look = run.release.target.kubectl(f"describe deployment {run.release.deployment}")
    return f"what it applied was not undone. Next: {look}; then trigger {run.context['ti'].dag_id} again"
