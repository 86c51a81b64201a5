"""The tasks that change the cluster: preview, apply, remove preview; and the one that announces a proven release."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from slipway.dag import task_ids
from slipway.dag.run import BEFORE, Run
from slipway.dag.run_lease import APPLY_S, acquire_run_lease, leases_of_run, return_own_run_lease
from slipway.dag.stage import GREEN, GREY, RED, StageOperator, reported_failures, skip_if_run_only_plans
from slipway.errors import InputRefused
from slipway.facts import JsonObject, to_dict
from slipway.steps.outcome import why_run_must_not_write
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

    from slipway.facts import Applied, ObjectRef, Previewed
    from slipway.release import Release

log = logging.getLogger(__name__)


class TargetOperator(StageOperator):
    """A stage that writes to the target. In a cluster that the run has made, it first creates the namespace that the Lease needs."""

    ui_color = RED
    writes_s = APPLY_S

    def execute(self, context: Context) -> JsonObject:
        """The fact as a dict, for XCom."""
        from slipway.kubernetes.apply import ensure_namespace

        run = Run(context)
        skip_if_run_only_plans(run)
        if run.action == "nothing":  # `create_cluster` may have found that once it could reach the cluster
            raise AirflowSkipException("the plan has nothing to do")
        with reported_failures(run):
            ensure_namespace(run.release.target)
        return super().execute(context)


class PreviewOperator(TargetOperator):
    """Runs the release next to the live one, where no user's request reaches it."""

    def make(self, run: Run) -> Previewed:
        """What is Previewed; skipped if the release needs no preview."""
        from slipway.steps.location import located
        from slipway.steps.preview import start_preview

        release = located(run.release)
        if reason := _why_no_preview(run, release):
            raise AirflowSkipException(f"no preview: {reason}")
        previewed = start_preview(release, run.export, run.pushed, check=partial(acquire_run_lease, run, APPLY_S))
        log.info("preview: release %s runs as %s", previewed.release_id, release.preview.deployment)
        return previewed


def _why_no_preview(run: Run, release: Release) -> str | None:
    from slipway.records.history import read_history
    from slipway.records.store import Store
    from slipway.steps.preview import why_no_preview

    history = read_history(Store(release.store), release.model).at(release.target, release.deployment)
    return why_no_preview(release, run.plan, history)


class ApplyOperator(TargetOperator):
    """Opens the record, and applies the manifests that `resolve` rendered, server-side: the one task that changes what is live."""

    def make(self, run: Run) -> Applied:
        """What was Applied. Raises InputRefused if a person has to approve the release, or it has to be loaded, first."""
        from slipway.steps.deploy import deploy, redeploy

        self._require_earlier_proofs(run)
        self._measure_before(run)
        facts, check = (run.release, run.export, run.pushed), partial(self._check, run)
        uri, digest = run.plan.manifests_uri, run.plan.manifests_hash
        if uri is None:
            applied = deploy(*facts, check=check)
        else:
            applied = redeploy(*facts, manifests_uri=uri, manifests_hash=digest, check=check)
        log.info("apply: release %s, generation %d", applied.release_id, applied.generation)
        return applied

    @staticmethod
    def _require_earlier_proofs(run: Run) -> None:
        from slipway.steps.approval import why_not_approved
        from slipway.steps.location import located
        from slipway.steps.outcome import why_load_not_judged

        gate = run.release.gate
        if gate.approval != "always" and gate.load is None:
            return  # the records need not be read
        if _why_no_preview(run, located(run.release)) is not None:
            return  # it was proven live before, and only comes back
        for reason in (
            why_load_not_judged(run.release, run.verdict_of(task_ids.PREVIEW_LOAD)),
            why_not_approved(run.release, run.verdict_of(task_ids.APPROVE)),
        ):
            if reason:
                raise InputRefused(reason)

    @staticmethod
    def _measure_before(run: Run) -> None:
        """Leave what the release that this one replaces has answered, if the bake compares them."""
        from slipway.steps.bake import measure_before

        bake = run.release.gate.bake
        if bake is None or not bake.compares or run.action == "restore":
            return
        if before := measure_before(run.release, run.pushed.release_id):
            run.leave(BEFORE, to_dict(before))

    @staticmethod
    def _check(run: Run) -> None:
        """Refuse to write if another run holds the Lease by now, or a person has ended this run."""
        acquire_run_lease(run, APPLY_S)
        if reason := why_run_must_not_write(run.states.get(task_ids.ANNOUNCE), run.dag_id):
            raise AirflowFailException(reason)


class AnnounceOperator(BaseOperator):
    """Updates the model's Asset. It runs only after the gate, and is the leaf that gives the run its colour.

    Without an Asset, because the cluster is temporary, it is only that leaf.
    """

    ui_color = GREEN

    def __init__(self, *, announces: Asset | None, **kwargs: Any) -> None:
        super().__init__(outlets=[announces] if announces else [], **kwargs)
        self.announces = announces

    def execute(self, context: Context) -> JsonObject:
        """What was announced."""
        run = Run(context)
        applied = run.applied
        announced: JsonObject = {
            "release": applied.release_id,
            "image": applied.reference,
            "version": applied.version,
            "address": run.address,
        }
        if self.announces is not None:
            context["outlet_events"][self.announces].extra = announced
        log.info("announce: %s", announced)
        return announced


class RemovePreviewOperator(BaseOperator):
    """Deletes the run's preview and those that killed runs left, as a teardown.

    If the run's release is proven, it also deletes the objects of earlier releases that this release no longer has.
    """

    ui_color = GREY

    def __init__(self, *, proof_task_id: str, **kwargs: Any) -> None:
        super().__init__(retries=3, retry_delay=timedelta(seconds=10), **kwargs)
        self.proof_task_id = proof_task_id

    def execute(self, context: Context) -> list[str]:
        """What was deleted; skipped if the run has no release, or only plans."""
        run = Run(context)
        skip_if_run_only_plans(run)
        if not run.has_release:
            raise AirflowSkipException("a run that has no release removes nothing")
        with reported_failures(run):
            removed = [str(ref) for ref in self._remove(run)]
        run.report(Verdict.passed(f"removed {', '.join(removed)}" if removed else "no preview is left"))
        return removed

    def _remove(self, run: Run) -> Iterable[ObjectRef]:
        """Delete under the Lease, because a preview may belong to a run that is writing. Return a Lease held only for this."""
        from slipway.records.history import preview_objects_of_record, read_records, records_with_previews
        from slipway.records.store import Store
        from slipway.steps.deploy import find_outdated, remove_outdated
        from slipway.steps.location import located
        from slipway.steps.preview import remove_previews
        from slipway.steps.waits import find_newest

        release = run.release
        store, had = Store(release.store), any(leases_of_run(run))
        records = read_records(store, release.model).records
        if any(map(preview_objects_of_record, records)):
            release = located(release)
        applied = run.applied if run.is_proven(run.states, self.proof_task_id) else None
        outdated = find_outdated(release, applied) if applied else ()
        if not outdated and not records_with_previews(records, release.target):
            return remove_previews(release, records)  # it logs those that are left at other targets
        acquire_run_lease(run, APPLY_S)
        try:
            # Read the records again: another run may have ended.
            removed = remove_previews(release, read_records(store, release.model).records)
            if not outdated or (find_newest(release) or {}).get("run_id") != release.run_id:
                return removed  # another run's release serves: what this one lacks may be its own
            return (*removed, *remove_outdated(release, outdated))
        finally:
            if not had:
                return_own_run_lease(run)
