"""How the tasks of one run hold the target's Lease: they acquire it, renew it, notice its loss, and return it.

XCom remembers that the run held the Lease, per clearing of the run: a cleared run begins again. A task that is retried has lost
its own XCom; a Lease that it acquired before is then known by its holder.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from slipway.dag import task_ids
from slipway.dag.run import ENDED, Run
from slipway.errors import SlipwayError, TargetBusy, one_line
from slipway.facts import JsonObject, from_dict, to_dict
from slipway.kubernetes.lease import Holder, Lease, Place, acquire_lease, check_lease, describe_busy_lease, return_lease

if TYPE_CHECKING:
    from slipway.facts import Teardown
    from slipway.release import Release

LEASE = "lease"  # XCom's key for what a task says of the Lease that it acquired or renewed
HOLDERS = (  # the tasks that may be the first to hold the Lease, the likeliest first
    task_ids.PLAN, task_ids.CHOOSE, task_ids.CREATE_CLUSTER, task_ids.PREVIEW, task_ids.APPLY, task_ids.REMOVE_OBJECTS,
    task_ids.DELETE_CLUSTER, task_ids.ROLLBACK, task_ids.REMOVE_PREVIEW, task_ids.GATE, task_ids.WAIT_FOR_ROLLOUT,
    task_ids.WAIT_FOR_ADDRESS, task_ids.BAKE,
    task_ids.WAIT_FOR_PREVIEW, task_ids.PREVIEW_GATE, task_ids.PREVIEW_LOAD, task_ids.APPROVE,
)  # fmt: skip
BUILD_S = 3600  # an export, a build, a smoke test or a push, each of them
APPLY_S = 600  # a dry run and an apply of a few objects, each with its own retries
UNKNOWN_TRIES = 6  # about a minute of the record's retries, for a Lease that the run may or may not hold

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunLease:
    """One run and the Lease of the target that it writes to."""

    run: Run
    place: Place
    me: Holder
    store: str
    had: bool  # whether a task of the run has held it since the run was last cleared

    @classmethod
    def of(cls, run: Run, subject: Release | Teardown) -> RunLease | None:
        """The Lease of a release's or a teardown's target; None if the run made the cluster: nobody else writes there.

        Raises InputRefused if this Airflow's name is invalid.
        """
        if subject.temporary:
            return None
        target = replace(subject.target, cluster_uid=None)  # not every task of the run knows the uid
        place = Place(target=target, deployment=subject.deployment, model=subject.model)
        before = next((kept for kept in leases_of_run(run) if from_dict(Place, kept["place"]) == place), None)
        me = Holder.of(before["holder"]) if before else None  # a run keeps the name under which it first held the Lease
        return cls(run, place, me or _holder_now(run), store=subject.store, had=before is not None)

    def acquire(self, limit_s: int) -> None:
        """Acquire or renew the Lease for `limit_s` seconds. Raises TargetBusy, LeaseLost, ApplyError, StoreError."""
        held = acquire_lease(
            self.place, self.me, limit_s=limit_s, is_over=self._is_over, may_break=self._may_break, had=self.had
        )
        log.info("%s: held until %s", self.place, held.until)
        own = {"place": to_dict(self.place), "holder": self.me.identity, "attempt": self.run.clearing}
        self.run.leave(LEASE, {**to_dict(held), **own})

    def renew(self, limit_s: int) -> None:
        """Do the same for a wait, which only reads: it goes on if the API server or Google does not answer now."""
        try:
            self.acquire(limit_s)
        except SlipwayError as error:
            if isinstance(error, TargetBusy) or not error.worth_retrying:
                raise
            log.warning("%s: not renewed: %s", self.place, error)

    def check_free(self) -> None:
        """Refuse if another run holds the Lease, unless this run may break it. Raises TargetBusy, ApplyError."""
        verdict = check_lease(self.place, self.me, is_over=self._is_over)
        if verdict.outcome == "pass":
            return
        if not self._breaks:
            raise TargetBusy(describe_busy_lease(self.place, self.me, verdict))
        log.warning("%s: %s; this run will break it", self.place, verdict.reason)

    @property
    def _breaks(self) -> bool:
        """Whether the form asks for it. A cleared run breaks no Lease: the form was about the earlier holder."""
        return bool(self.run.context["params"].get("break_lease")) and self.run.clearing == 0

    def _may_break(self, found: Lease) -> bool:
        """Whether the run may break this Lease. A run breaks only one. The store keeps which one, so that a retry knows it."""
        from slipway.names import break_key
        from slipway.records.store import Store

        if not self._breaks:
            return False
        broken = {"holder": found.holder, "acquired": found.acquired, "uid": found.uid}
        store, key = Store(self.store), break_key(self.place.model, self.me.identity)
        return store.claim(key, broken) or bool(store.read_json(key) == broken)

    def _is_over(self, holder: Holder) -> bool:
        """Whether Airflow says that a run has ended; False for a run that it does not know."""
        try:
            state = self.run.context["ti"].get_dagrun_state(holder.dag_id, holder.run_id)
        except Exception as error:  # of Airflow's own kinds, which differ between a worker and `airflow dags test`
            log.info("%s: Airflow does not know the state of %s: %s", self.place, holder, one_line(error))
            return False
        return str(getattr(state, "value", state)) in ENDED


def _holder_now(run: Run) -> Holder:
    from slipway.steps.settings import ensure_installation

    return Holder(installation=ensure_installation(), dag_id=run.dag_id, run_id=run.run_id)


def acquire_run_lease(run: Run, limit_s: int) -> None:
    """Acquire or renew the Lease of the release's target for `limit_s` seconds. Raises TargetBusy, LeaseLost, ApplyError."""
    if lease := RunLease.of(run, run.release):
        lease.acquire(limit_s)


def renew_run_lease(run: Run, limit_s: int) -> None:
    """Do the same for a wait. Raises TargetBusy, LeaseLost, ApplyRefused."""
    if lease := RunLease.of(run, run.release):
        lease.renew(limit_s)


def renew_held_run_lease(run: Run, limit_s: int) -> None:
    """Do the same only if the run holds it: it does not before its cluster exists. Raises TargetBusy, LeaseLost, ApplyRefused."""
    lease = RunLease.of(run, run.release)
    if lease and lease.had:
        lease.renew(limit_s)


def return_run_leases(run: Run) -> None:
    """Return every Lease that this run holds. Raises what can be retried while the task has retries left, the others returned.

    A Lease that cannot be returned makes no task red: its run has ended, and for other installations it expires.
    """
    ti = run.context["ti"]
    held = {str(kept["place"]): kept for kept in leases_of_run(run)}
    errors = [_return(from_dict(Place, kept["place"]), kept["holder"]) for kept in held.values()]
    tries = [(error, ti.max_tries) for error in errors]
    tries.append((return_unknown_run_lease(run), min(ti.max_tries, UNKNOWN_TRIES)))
    for error, most in tries:
        if error and error.worth_retrying and ti.try_number <= most:
            raise error


def return_unknown_run_lease(run: Run) -> SlipwayError | None:
    """Return the target's Lease if an earlier try of the task acquired it and its XCom is lost; the error if that failed."""
    try:
        subject = _subject(run)
        lease = RunLease.of(run, subject) if subject else None
    except SlipwayError as error:
        log.warning("lease: it is unknown whether the run holds one: %s", error)
        return None
    return _return(lease.place, lease.me.identity, known=False) if lease and not lease.had else None


def _subject(run: Run) -> Release | Teardown | None:
    """What the run writes to, as far as it knows."""
    if run.result_of(task_ids.LOOK):
        return run.teardown
    return run.release if run.has_release else None


def _return(place: Place, identity: str, *, known: bool = True) -> SlipwayError | None:
    """Return a Lease, `known` to have been this run's; the error if that failed."""
    try:
        returned = return_lease(place, identity)
    except SlipwayError as error:
        log.warning("%s: not returned%s: %s", place, "" if known else ", if this run holds it", error)
        return error
    if returned or known:
        log.info("%s: %s", place, "returned" if returned else "this run no longer held it")
    return None


def return_own_run_lease(run: Run) -> None:
    """Return what this task alone has held, as if the run had never held it."""
    return_run_leases(run)
    run.leave(LEASE, {})


def lease_broken_by(run: Run) -> str | None:
    """The holder whose Lease this run has broken."""
    return next((str(kept["broke"]) for kept in leases_of_run(run) if kept["broke"]), None)


def leases_of_run(run: Run) -> Iterator[JsonObject]:
    """What the tasks of a run say of Leases that they have held since it was last cleared."""
    found: Iterator[Any] = (run.result_of(task, key=LEASE) for task in HOLDERS)
    return (kept for kept in found if kept and kept["attempt"] == run.clearing)
