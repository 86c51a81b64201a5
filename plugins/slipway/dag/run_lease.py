"""A run's hold on its target: the Lease as the tasks of a run take it, renew it, find it lost, and give it back.

That a task of this run has had it is left in XCom, with the number of times that the run was cleared until then: a run that
a person clears begins anew. A task that is tried again has lost what it left: what is still held then is known by its holder.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slipway.dag.run import Run
from slipway.errors import SlipwayError, TargetBusy
from slipway.facts import from_dict, to_dict
from slipway.kubernetes.lease import Holder, Place, acquire, busy, check, return_lease

if TYPE_CHECKING:
    from slipway.facts import Teardown
    from slipway.release import Release

LEASE = "lease"  # XCom's key for what a task says of the Lease that it took or renewed
HOLDERS = (  # the tasks that may be the first to hold it, the likeliest first
    "plan", "choose", "preview", "apply", "remove_objects", "rollback", "remove_preview",
    "gate", "wait_for_rollout", "wait_for_address", "wait_for_preview", "preview_gate", "approve",
)  # fmt: skip
BUILD_S = 3600  # an export, a build, a smoke test or a push, each of them
APPLY_S = 600  # a dry run and an apply of a few objects, each with tries of its own
FORGOTTEN_TRIES = 6  # about a minute of the record's tries, for a Lease of which nobody knows that there is one
ENDED = frozenset({"success", "failed"})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunLease:
    """What one run has to do with the Lease of what it writes to."""

    run: Run
    place: Place
    me: Holder
    had: bool  # whether a task has held it since the run was cleared last

    @classmethod
    def of(cls, run: Run, subject: Release | Teardown) -> RunLease | None:
        """The hold on a release's or a teardown's target; None where the cluster is the run's own, and nobody else's.

        Raises InputRefused where this Airflow's name cannot be meant.
        """
        if subject.temporary:
            return None
        place = Place(target=subject.target, deployment=subject.deployment, model=subject.model)
        before = next((said for said in held_by(run) if said["place"] == to_dict(place)), None)
        me = Holder.of(before["holder"]) if before else None  # a run keeps the name by which it held it first
        return cls(run, place, me or _named_now(run), had=before is not None)

    def acquire(self, limit_s: int) -> None:
        """Take the Lease, or renew it, for as long as this. Raises TargetBusy, LeaseLost, ApplyError."""
        breaks = self._breaks and not self.had
        held = acquire(self.place, self.me, limit_s=limit_s, is_over=self._is_over, breaks=breaks, had=self.had)
        log.info("%s: held until %s", self.place, held.until)
        own = {"place": to_dict(self.place), "holder": self.me.identity, "attempt": attempt(self.run)}
        self.run.leave(LEASE, {**to_dict(held), **own})

    def renew(self, limit_s: int) -> None:
        """The same for a wait, which only reads: an API server, or a Google, that does not answer now is no reason to end it."""
        try:
            self.acquire(limit_s)
        except SlipwayError as error:
            if isinstance(error, TargetBusy) or not error.worth_retrying:
                raise
            log.warning("%s: not renewed: %s", self.place, error)

    def check_free(self) -> None:
        """Refuse where another run has the Lease, unless this one is there to break it. Raises TargetBusy, ApplyError."""
        verdict = check(self.place, self.me, is_over=self._is_over)
        if verdict.outcome == "pass":
            return
        if not self._breaks:
            raise TargetBusy(busy(self.place, self.me, verdict))
        log.warning("%s: %s; it is going to be broken", self.place, verdict.reason)

    @property
    def _breaks(self) -> bool:
        return bool(self.run.context["params"].get("break_lease"))

    def _is_over(self, holder: Holder) -> bool:
        """Whether Airflow says that a run has ended; of one that it does not know it cannot."""
        try:
            state = self.run.context["ti"].get_dagrun_state(holder.dag_id, holder.run_id)
        except Exception as error:  # of Airflow's own kinds, which differ between a worker and `airflow dags test`
            log.info("%s: what became of %s cannot be told: %s", self.place, holder, " ".join(str(error).split()))
            return False
        return str(getattr(state, "value", state)) in ENDED


def _named_now(run: Run) -> Holder:
    from slipway.steps.settings import ensure_installation

    return Holder(installation=ensure_installation(), dag_id=run.context["ti"].dag_id, run_id=run.context["run_id"])


def acquire_lease(run: Run, limit_s: int) -> None:
    """Take the Lease of the release's target, or renew it, for as long as this. Raises TargetBusy, LeaseLost, ApplyError."""
    if own := RunLease.of(run, run.release):
        own.acquire(limit_s)


def renew_lease(run: Run, limit_s: int) -> None:
    """The same for a wait. Raises TargetBusy, LeaseLost, ApplyRefused."""
    if own := RunLease.of(run, run.release):
        own.renew(limit_s)


def renew_held_lease(run: Run, limit_s: int) -> None:
    """The same where the run has it: before its cluster is there, it does not. Raises TargetBusy, LeaseLost, ApplyRefused."""
    own = RunLease.of(run, run.release)
    if own and own.had:
        own.renew(limit_s)


def return_leases(run: Run) -> None:
    """Let others have what this run holds. Raises what is worth another try, while the task has one, once the others are given back.

    What is never given back is no reason for a red task: it is over with the run, and for other installations when it runs out.
    """
    ti = run.context["ti"]
    held = {str(said["place"]): said for said in held_by(run)}
    errors = [_return(from_dict(Place, said["place"]), said["holder"]) for said in held.values()]
    tries = [(error, ti.max_tries) for error in errors]
    tries.append((return_forgotten_lease(run), min(ti.max_tries, FORGOTTEN_TRIES)))
    for error, most in tries:
        if error and error.worth_retrying and ti.try_number <= most:
            raise error


def return_forgotten_lease(run: Run) -> SlipwayError | None:
    """Let others have the run's target where an earlier try took it, and its word of that is gone; what kept it from that."""
    try:
        subject = _subject(run)
        own = RunLease.of(run, subject) if subject else None
    except SlipwayError as error:
        log.warning("lease: whether the run has one cannot be told: %s", error)
        return None
    return _return(own.place, own.me.identity, known=False) if own and not own.had else None


def _subject(run: Run) -> Release | Teardown | None:
    """What the run is about, as far as it knows."""
    if run.left("look"):
        return run.teardown
    return run.release if run.left("resolve") or run.left("choose") else None


def _return(place: Place, identity: str, *, known: bool = True) -> SlipwayError | None:
    """Give a Lease back, `known` to have been this run's; what kept it from that."""
    try:
        given = return_lease(place, identity)
    except SlipwayError as error:
        log.warning("%s: not given back%s: %s", place, "" if known else ", if it is this run's", error)
        return error
    if given or known:
        log.info("%s: %s", place, "given back" if given else "was not this run's any more")
    return None


def return_own_lease(run: Run) -> None:
    """Give back what this task alone has held, as if the run never had."""
    return_leases(run)
    run.leave(LEASE, {})


def broken_by(run: Run) -> str | None:
    """Whose Lease this run has broken."""
    return next((str(said["broke"]) for said in held_by(run) if said["broke"]), None)


def held_by(run: Run) -> Iterator[dict[str, Any]]:
    """What the tasks of a run say of Leases that they have held since it was cleared last."""
    left = (run.left(task, key=LEASE) for task in HOLDERS)
    return (said for said in left if said and said["attempt"] == attempt(run))


def attempt(run: Run) -> int:
    """How often a run was cleared."""
    return run.context["dag_run"].clear_number or 0
