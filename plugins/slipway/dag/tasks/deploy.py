"""The tasks that change the cluster."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from slipway.dag.run import Run
from slipway.dag.run_lease import APPLY_S, acquire_lease, held_by, return_own_lease
from slipway.dag.stage import GREEN, GREY, RED, StageOperator, reported_failures, task_states
from slipway.facts import JsonObject
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context
log = logging.getLogger(__name__)


class TargetOperator(StageOperator):
    """A stage that writes to the target. A cluster that the run has made has a namespace first, for the Lease to be in."""

    ui_color = RED
    writes_s = APPLY_S

    def execute(self, context: Context) -> JsonObject:
        """The fact as a dict, for XCom."""
        from slipway.kubernetes.apply import ensure_namespace

        run = Run(context)
        with reported_failures(run):
            ensure_namespace(run.release.target)
        return super().execute(context)


class PreviewOperator(TargetOperator):
    """Runs the release beside the live one, where no user's request reaches it."""

    def make(self, run: Run) -> Any:
        """What is Previewed; skipped where the release needs none."""
        from slipway.records.history import read_history
        from slipway.records.store import Store
        from slipway.steps.preview import start_preview, why_no_preview

        release = run.release
        history = read_history(Store(release.store), release.model).at(release.target, release.deployment)
        if reason := why_no_preview(release, run.plan, history):
            raise AirflowSkipException(f"no preview: {reason}")
        previewed = start_preview(release, run.export, run.pushed, check=partial(acquire_lease, run, APPLY_S))
        log.info("preview: release %s runs as %s", previewed.release_id, release.preview.deployment)
        return previewed


class RemovePreviewOperator(BaseOperator):
    """Deletes the preview whatever became of it, and what a killed run left of one, as a teardown."""

    ui_color = GREY

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(retries=3, retry_delay=timedelta(seconds=10), **kwargs)

    def execute(self, context: Context) -> list[str]:
        """What was deleted; skipped where the run has no release, or only plans."""
        run = Run(context)
        if not (run.left("resolve") or run.left("choose")) or context["params"].get("plan_only"):
            raise AirflowSkipException("a run that has no release, or only plans, removes nothing")
        with reported_failures(run):
            removed = [str(ref) for ref in self._remove(run)]
        run.report(Verdict.passed(f"removed {', '.join(removed)}" if removed else "no preview is left"))
        return removed

    @staticmethod
    def _remove(run: Run) -> Iterable[Any]:
        """What was deleted. What is left may be the preview of a run that writes now; one that has nothing else to write keeps no Lease."""
        from slipway.records.history import left_previews, read_records
        from slipway.records.store import Store
        from slipway.steps.preview import remove_previews

        release = run.release
        store, had = Store(release.store), any(held_by(run))
        records = read_records(store, release.model).records
        if not left_previews(records, release.target):
            return remove_previews(release, records)  # which names what is left elsewhere
        acquire_lease(run, APPLY_S)
        try:
            return remove_previews(release, read_records(store, release.model).records)  # as that run has ended since
        finally:
            if not had:
                return_own_lease(run)


class ApplyOperator(TargetOperator):
    """Renders the manifests, opens the record, and applies them server-side: the one task that changes what is live."""

    def make(self, run: Run) -> Any:
        """What was Applied."""
        from slipway.steps.deploy import deploy, redeploy

        def check() -> None:
            acquire_lease(run, APPLY_S)
            if task_states(run.context).get("announce") == "skipped":  # and the rollback may have looked already
                raise AirflowFailException(
                    f"apply: somebody ended the run; nothing was written. Next: trigger {run.context['ti'].dag_id} again"
                )

        manifests_uri = run.plan.manifests_uri
        facts = (run.release, run.export, run.pushed)
        applied = deploy(*facts, check=check) if manifests_uri is None else redeploy(*facts, manifests_uri, check=check)
        log.info("apply: release %s, generation %d", applied.release_id, applied.generation)
        return applied


class AnnounceOperator(BaseOperator):
    """Updates the model's Asset. Runs only after the gate, and is the leaf that gives the run its colour.

    Without an Asset, where nothing stays that could be asked, it is only that leaf.
    """

    ui_color = GREEN

    def __init__(self, *, announces: Asset | None, **kwargs: Any) -> None:
        super().__init__(outlets=[announces] if announces else [], **kwargs)
        self.announces = announces

    def execute(self, context: Context) -> JsonObject:
        """What was announced."""
        run = Run(context)
        applied = run.applied
        said: JsonObject = {
            "release": applied.release_id,
            "image": applied.reference,
            "version": applied.version,
            "address": run.address,
        }
        if self.announces is not None:
            context["outlet_events"][self.announces].extra = said
        log.info("announce: %s", said)
        return said
