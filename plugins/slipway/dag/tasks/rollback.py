"""The teardown that undoes what was applied and not proven, by the same road that brings a release."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from slipway.dag.run import Run
from slipway.dag.run_lease import APPLY_S, RunLease
from slipway.dag.stage import GRACE_S, GREY, is_proven, reported_failures, task_states
from slipway.dag.tasks.gate import why_no_grpc
from slipway.errors import LeaseLost, TargetBusy
from slipway.facts import JsonObject, from_dict, to_dict
from slipway.release import Release
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Context

    from slipway.records.history import History
    from slipway.steps.rollback import RollbackPlan

UNDOING = "undoing"  # XCom's key for what a rollback is bringing back
LOOK_S = 4.0

log = logging.getLogger(__name__)


class RollbackOperator(BaseOperator):
    """Undoes what was applied last and not proven: by this run, or by an earlier one that was killed half-way.

    The last known good release is applied again, waited for, asked its golden questions, and recorded. It runs as a
    teardown, so that it runs whatever happened and cannot turn a red run green. Where another run has the target's Lease
    there is nothing to undo: what is live is for that one to prove.
    """

    ui_color = GREY

    def __init__(self, *, model: str, proof_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.proof_task_id = proof_task_id

    def execute(self, context: Context) -> Any:
        """What was undone, once it has been; skipped where there is nothing to undo."""
        with reported_failures(Run(context)):
            return self._undo(context)

    def _undo(self, context: Context) -> Any:
        from slipway.records.history import read_current_history, recorded
        from slipway.records.store import Store
        from slipway.steps.deploy import redeploy
        from slipway.steps.rollback import plan_rollback, remove_release
        from slipway.steps.settings import read_settings

        store = Store(read_settings().store)
        states = task_states(context)
        proven = is_proven(Run(context), states, self.proof_task_id)
        brought = states.get("apply") == "success"

        def judge() -> tuple[RollbackPlan, History]:
            history = read_current_history(store, self.model)
            undo = plan_rollback(history, run_id=context["run_id"], proven=proven, applied=brought)
            log.info("rollback: %s: %s", undo.action, undo.reason)
            if undo.action == "nothing" or history.newest is None:
                raise AirflowSkipException(undo.reason)
            return undo, history

        undo, history = judge()
        check = partial(self._hold, context, from_dict(Release, history.records[-1]["release"]), APPLY_S)
        if undo.action != "keep":
            check()
            undo, history = judge()  # another run may have ended since
        if undo.action == "remove":
            remove_release(store, history)
        if undo.good is None:
            return {"action": undo.action, "reason": undo.reason}
        release, export, pushed = recorded(undo.good, run_id=f"{context['run_id']}.undo", store=store.uri)
        applied = redeploy(release, export, pushed, undo.good["manifests"]["uri"], check=check)
        undoing: JsonObject = {
            "release": to_dict(release),
            "export": to_dict(export),
            "applied": to_dict(applied),
            "reason": undo.reason,
        }
        context["ti"].xcom_push(key=UNDOING, value=undoing)
        own = {name: undoing["applied"][name] for name in ("release_id", "uid", "generation")}
        return self._defer(context, "RolloutTrigger", "rolled_out", undoing, release.rollout_timeout_s, **own)

    def rolled_out(self, context: Context, event: JsonObject) -> Any:
        """Go on to the address, which the release's fixed URL makes short."""
        undoing = self._undoing(context, event)
        release = undoing["release"]
        if release["address"]:
            found = {"url": release["address"].rstrip("/"), "grpc": release["grpc_address"]}
            return self.addressed(context, {**event, "found": found})
        return self._defer(context, "AddressTrigger", "addressed", undoing, release["address_timeout_s"])

    def addressed(self, context: Context, event: JsonObject) -> None:
        """Go on to the gate."""
        undoing = self._undoing(context, event)
        export, found = undoing["export"], event["found"]
        own = {name: export[name] for name in ("version", "golden_uri", "descriptors_uri")}
        own |= {**found, "no_grpc": why_no_grpc(from_dict(Release, undoing["release"]))}
        self._defer(context, "PredictionTrigger", "gated", undoing, undoing["release"]["gate_timeout_s"], **own)

    def gated(self, context: Context, event: JsonObject) -> JsonObject:
        """Record that the release is live again, where the target is still this run's."""
        undoing = self._undoing(context, event)
        with reported_failures(Run(context)):
            self._hold(context, from_dict(Release, undoing["release"]), APPLY_S, waits=True)
        uri, release_id = self._close(undoing, event), undoing["applied"]["release_id"]
        log.info("rollback: release %s serves again: %s", release_id, event["reason"])
        return {"action": "restore", "reason": undoing["reason"], "release": release_id, "record": uri}

    @staticmethod
    def _hold(context: Context, release: Release, limit_s: int, *, waits: bool = False) -> None:
        """Take the Lease of what is undone, or renew it for a wait; skipped, and said, where it is another run's."""
        run = Run(context)
        lease = RunLease.of(run, release)
        if lease is None:
            return
        try:
            (lease.renew if waits else lease.acquire)(limit_s)
        except (TargetBusy, LeaseLost) as error:
            said = f"nothing is undone: {type(error).__name__}: {error}"
            run.report(Verdict.failed(said))
            log.warning("rollback: %s", said)
            raise AirflowSkipException(said) from error

    def _defer(
        self, context: Context, trigger: str, method_name: str, undoing: JsonObject, limit_s: int, **own: Any
    ) -> None:
        from slipway.dag.triggers.gate import PredictionTrigger
        from slipway.dag.triggers.rollout import AddressTrigger, RolloutTrigger

        kinds = {kind.__name__: kind for kind in (RolloutTrigger, AddressTrigger, PredictionTrigger)}
        with reported_failures(Run(context)):
            self._hold(context, from_dict(Release, undoing["release"]), limit_s + GRACE_S, waits=True)
        self.defer(
            trigger=kinds[trigger](release=undoing["release"], deadline=time.time() + limit_s, poll_s=LOOK_S, **own),
            method_name=method_name,
            timeout=timedelta(seconds=limit_s + GRACE_S),
        )

    def _undoing(self, context: Context, event: JsonObject) -> JsonObject:
        """What is being undone, where the wait that ended has passed; else the record is closed and the task fails."""
        from slipway.kubernetes.diagnosis import next_command

        undoing: JsonObject = context["ti"].xcom_pull(task_ids=self.task_id, key=UNDOING)
        verdict = Verdict(outcome=event["outcome"], reason=event["reason"])
        log.info("rollback: %s", verdict)
        if verdict.outcome == "pass":
            return undoing
        self._close(undoing, event)
        release, release_id = from_dict(Release, undoing["release"]), undoing["applied"]["release_id"]
        said = (
            f"RollbackFailed: release {release_id}: {verdict.reason}. "
            f"Next: {next_command(release, release_id, verdict.reason)}"
        )
        Run(context).report(Verdict.failed(said))
        raise AirflowFailException(said)

    @staticmethod
    def _close(undoing: JsonObject, event: JsonObject) -> str:
        from slipway.records.record import close_run

        release, proven = from_dict(Release, undoing["release"]), event["outcome"] == "pass"
        verdicts = {"rollback": {name: event[name] for name in ("outcome", "reason")}}
        return close_run(release, verdicts, {}, proven=proven, applied=True)
