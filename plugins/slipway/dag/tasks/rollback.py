"""The teardown that rolls back what was applied and not proven, with the same waits as a release."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from slipway.dag import task_ids
from slipway.dag.deferral import GRACE_S, Wait, verdict_of_event, wait_or_defer
from slipway.dag.run import Run
from slipway.dag.run_lease import APPLY_S, RunLease
from slipway.dag.stage import GREY, reported_failures, skip_if_run_only_plans
from slipway.dag.tasks.gate import GateWait
from slipway.dag.tasks.waits import AddressWait, RolloutWait
from slipway.dag.tries import count_lost_try
from slipway.errors import LeaseLost, RollbackFailed, TargetBusy
from slipway.facts import Applied, Export, JsonObject, from_dict, to_dict
from slipway.names import record_key
from slipway.release import Release
from slipway.steps.waits import fixed_address, public_gate, why_no_grpc
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Context

    from slipway.records.history import History
    from slipway.records.store import Store
    from slipway.steps.rollback import RollbackPlan

UNDOING = "undoing"  # XCom's key for the release that is being brought back

log = logging.getLogger(__name__)


class RollbackOperator(BaseOperator):
    """Rolls back what was applied last and not proven: by this run, or by an earlier one that was killed.

    It applies the last good release again, waits for it, deletes what the failed release added, sends the good one the golden
    requests, and records it. It is a teardown: it runs whatever happened, and cannot turn a red run green. If another run
    holds the target's Lease, it rolls back nothing: that run proves what is live.

    It retries every error, because users may have no other release: an unreadable store or a failing credential plugin may
    work a moment later. A release that did not pass its waits is retried only once, because each try takes as long as the waits.
    """

    ui_color = GREY

    def __init__(self, *, model: str, proof_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.proof_task_id = proof_task_id

    def execute(self, context: Context) -> Any:
        """Start the rollback and wait for it; skipped if there is nothing to roll back."""
        run = Run(context)
        skip_if_run_only_plans(run)
        count_lost_try(self, context)
        with reported_failures(run, again=True):
            undoing = self._start(run)
        if "applied" not in undoing:
            return undoing
        return self._wait(run, self._rollout(undoing), self.rolled_out)

    def rolled_out(self, context: Context, event: JsonObject) -> Any:
        """Delete what the failed release added, then wait for the address; go on at once if the model file fixes one."""
        run, undoing = self._passed(context, event, self._rollout)
        with reported_failures(run, again=True):
            self._remove_added(run, undoing)
        wait = self._address(undoing)
        if found := fixed_address(wait.release):
            return self.addressed(context, {**event, "found": found})
        return self._wait(run, wait, self.addressed)

    def addressed(self, context: Context, event: JsonObject) -> Any:
        """Wait for the gate."""
        run, undoing = self._passed(context, event, self._address)
        undoing["address"] = event["found"]
        run.leave(UNDOING, undoing)
        return self._wait(run, self._gate(undoing), self.gated)

    def gated(self, context: Context, event: JsonObject) -> JsonObject:
        """Record that the release is live again, if this run still holds the Lease."""
        run, undoing = self._passed(context, event, self._gate)
        with reported_failures(run, again=True):
            self._acquire(run, from_dict(Release, undoing["release"]), APPLY_S, waits=True)
            uri, release_id = _close(undoing, event), undoing["applied"]["release_id"]
        log.info("rollback: release %s serves again: %s", release_id, event["reason"])
        return {"action": "restore", "reason": undoing["reason"], "release": release_id, "record": uri}

    def _remove_added(self, run: Run, undoing: JsonObject) -> None:
        """Delete, under the Lease, what the failed release added: it may block the gate, and no pod needs it any more."""
        from slipway.steps.deploy import find_outdated, remove_outdated

        release = from_dict(Release, undoing["release"])
        if added := find_outdated(release, from_dict(Applied, undoing["applied"])):
            self._acquire(run, release, APPLY_S)
            remove_outdated(release, added)

    def _start(self, run: Run) -> JsonObject:
        """Carry out the plan; the release that was applied again, or only action and reason if none was."""
        from slipway.records.history import release_of_record
        from slipway.records.store import Store
        from slipway.steps.deploy import redeploy
        from slipway.steps.location import locate, target_now
        from slipway.steps.rollback import remove_release
        from slipway.steps.settings import ensure_installation, read_settings

        store = Store(read_settings().store)
        plan, history = self._plan(run, store)
        if plan.action == "nothing":
            return _completed(run, plan, history, store)
        target = target_now(history.records[-1], locate(run.release.target) if run.has_release else None)
        last = replace(from_dict(Release, history.records[-1]["release"]), target=target)
        acquire = partial(self._acquire, run, last, APPLY_S)
        if plan.action != "keep":
            acquire()
            plan, history = self._plan(run, store)
            if plan.action == "nothing":  # another run has ended since
                return _completed(run, plan, history, store)
        if plan.action == "remove":
            remove_release(store, history, target)
        if plan.good is None:
            return {"action": plan.action, "reason": plan.reason}
        undo_id = _undo_id(run)
        release, export, pushed = release_of_record(
            plan.good, run_id=undo_id, store=store.uri, installation=ensure_installation(), target=target
        )
        uri, digest = plan.good["manifests"]["uri"], plan.good["manifests"]["hash"]
        applied = redeploy(release, export, pushed, manifests_uri=uri, manifests_hash=digest, check=acquire)
        undoing = {
            "release": to_dict(release),
            "export": to_dict(export),
            "applied": to_dict(applied),
            "reason": plan.reason,
            "again": (history.records[-1]["run_id"], history.records[-1]["outcome"]) == (undo_id, "failed"),
        }
        run.leave(UNDOING, undoing)
        return undoing

    def _plan(self, run: Run, store: Store) -> tuple[RollbackPlan, History]:
        """What to roll back, and the records that say so."""
        from slipway.records.history import read_current_history
        from slipway.steps.rollback import plan_rollback

        states = run.states
        proven = run.is_proven(states, self.proof_task_id)
        history = read_current_history(store, self.model)
        applied = states.get(task_ids.APPLY) == "success"
        plan = plan_rollback(history, run_id=run.run_id, proven=proven, applied=applied)
        log.info("rollback: %s: %s", plan.action, plan.reason)
        return plan, history

    def _wait(
        self, run: Run, wait: RolloutWait | AddressWait | GateWait, then: Callable[[Context, JsonObject], Any]
    ) -> Any:
        with reported_failures(run, again=True):
            self._acquire(run, wait.release, wait.limit_s + GRACE_S, waits=True)
        return wait_or_defer(self, run.context, wait, then)

    def _passed(self, context: Context, event: JsonObject, wait_of: Any) -> tuple[Run, JsonObject]:
        """The release that is being brought back, if the wait passed. If not, close its record and fail; the first time, Airflow retries."""
        run = Run(context)
        undoing: JsonObject = run.result_of(self.task_id, key=UNDOING)
        if verdict_of_event(context, event).outcome == "pass":
            return run, undoing
        with reported_failures(run, again=True):
            wait: Wait = wait_of(undoing)
            _close(undoing, event)
        with reported_failures(run, again=not undoing.get("again")):
            raise RollbackFailed(f"release {undoing['applied']['release_id']}: {wait.failure(event)}")
        raise AssertionError("a failure is raised above")

    @staticmethod
    def _rollout(undoing: JsonObject) -> RolloutWait:
        return RolloutWait(
            release=from_dict(Release, undoing["release"]), applied=from_dict(Applied, undoing["applied"])
        )

    @staticmethod
    def _address(undoing: JsonObject) -> AddressWait:
        return AddressWait(release=from_dict(Release, undoing["release"]))

    @staticmethod
    def _gate(undoing: JsonObject) -> GateWait:
        release, address = from_dict(Release, undoing["release"]), undoing["address"]
        return GateWait(
            release=public_gate(release, previewed=False, restored=True),
            export=from_dict(Export, undoing["export"]),
            url=address["url"],
            grpc=address["grpc"],
            no_grpc=why_no_grpc(release),
        )

    @staticmethod
    def _acquire(run: Run, release: Release, limit_s: int, *, waits: bool = False) -> None:
        """Acquire the Lease of what is rolled back, or renew it for a wait. Skipped, and reported, if another run holds it."""
        lease = RunLease.of(run, release)
        if lease is None:
            return
        try:
            (lease.renew if waits else lease.acquire)(limit_s)
        except (TargetBusy, LeaseLost) as error:
            reason = f"nothing is rolled back: {type(error).__name__}: {error}"
            run.report(Verdict.failed(reason))
            log.warning("rollback: %s", reason)
            raise AirflowSkipException(reason) from error


def _undo_id(run: Run) -> str:
    """The id under which what this run rolled back to is recorded."""
    return f"{run.run_id}.undo"


def _completed(run: Run, plan: RollbackPlan, history: History, store: Store) -> JsonObject:
    """The result of a rollback whose earlier try was lost after it had recorded that the release serves. Skipped if there was none."""
    last = history.newest
    if last is None or last["run_id"] != _undo_id(run) or last["outcome"] != "live":
        raise AirflowSkipException(plan.reason)
    log.info("rollback: an earlier try has brought release %s back", last["release_id"])
    uri = store.uri_of(record_key(last["model"], last["run_id"]))
    return {"action": "restore", "reason": plan.reason, "release": last["release_id"], "record": uri}


def _close(undoing: JsonObject, event: JsonObject) -> str:
    """Close the record of the release that was brought back; its URI."""
    from slipway.records.record import close_run

    release, proven = from_dict(Release, undoing["release"]), event["outcome"] == "pass"
    verdicts = {task_ids.ROLLBACK: {name: event[name] for name in ("outcome", "reason")}}
    return close_run(release, verdicts, {}, proven=proven, applied=True)
