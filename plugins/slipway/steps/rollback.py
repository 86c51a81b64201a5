"""What a failed run has to roll back, and which recorded releases a person can roll back to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from slipway.facts import Choice, Plan
from slipway.kubernetes.apply import remove_objects
from slipway.records.history import History, choose_release, release_of_record
from slipway.records.record import Record, write_record
from slipway.records.store import Store
from slipway.steps.location import target_now
from slipway.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackPlan:
    """What to do after a run, and why."""

    action: Literal["nothing", "restore", "remove", "keep"]
    reason: str
    good: Record | None = None


def plan_rollback(history: History, *, run_id: str, proven: bool, applied: bool) -> RollbackPlan:
    """What to roll back after this run. `applied`: it applied something; `proven`: its gate passed.

    A run whose release was live and whose cleared gate now fails is rolled back if there is a release to roll back to.
    """
    newest = history.newest
    if history.torn_down:
        return RollbackPlan(action="nothing", reason="what was applied last was torn down")
    own = newest is not None and newest["run_id"] == run_id
    disproven = history.settled and own and applied and not proven
    if newest is None or (history.settled and not disproven) or (proven and own):
        return RollbackPlan(action="nothing", reason="what was applied last was proven live")
    # A disproven record says live until its run ends: a rollback that is tried again must not choose it.
    others = [record for record in history.records[:-1] if record["run_id"] != run_id or proven or not applied]
    good = History(tuple(others), history.unread).good
    if good is None:
        return _plan_without_good(history, newest, disproven=disproven)
    return RollbackPlan(
        action="restore",
        reason=f"release {newest['release_id']} of run {newest['run_id']} was not proven live",
        good=good,
    )


def _plan_without_good(history: History, newest: Record, *, disproven: bool) -> RollbackPlan:
    """What to do if no other release is known to be good."""
    if history.unread:
        return RollbackPlan(
            action="keep", reason=f"the last good release may be in a record that cannot be read: {history.unread[0]}"
        )
    if disproven:
        return RollbackPlan(
            action="keep", reason="it was live until now, and there is no other release to roll back to"
        )
    if any(record.get("found") for record in history.records):
        return RollbackPlan(action="keep", reason="it replaced a release that this store has no record of, and is kept")
    if newest["release"]["keep_first"]:
        return RollbackPlan(
            action="keep", reason="the first release failed and is kept for inspection, as the model file says"
        )
    return RollbackPlan(action="remove", reason="the first release failed, and there is no other to roll back to")


def remove_release(store: Store, history: History, target: Target) -> None:
    """Delete what was applied last, if no release was proven; its record then lists no objects. `target`: as it is reached now.

    An object whose release label is in no record belongs to another installation and is kept. Raises ApplyError, StoreError.
    """
    record, refs = history.records[-1], history.objects
    known = frozenset(found["release_id"] for found in history.records)
    left = remove_objects(target, record["model"], refs, releases=known)
    write_record(store, {**record, "objects": [], "removed": [str(ref) for ref in refs if ref not in left]})


def choose_rollback(
    history: History, release_id: str | None, *, run_id: str, store: str, installation: str, named: Target | None
) -> Choice:
    """The recorded release that this run rolls back to: the named one, else the one before the live one.

    `store` is the URI of the artifact store, `installation` the name of the run's Airflow, `named` the target that the model
    file names. Raises InputRefused.
    """
    record = choose_release(history, release_id)
    target = target_now(history.records[-1], named)
    release, export, pushed = release_of_record(
        record, run_id=run_id, store=store, installation=installation, target=target
    )
    plan = Plan(
        action="restore",
        reasons=(f"release {record['release_id']}, version {record['version']}, was chosen",),
        export=export,
        pushed=pushed,
        manifests_uri=record["manifests"]["uri"],
        manifests_hash=record["manifests"]["hash"],
    )
    return Choice(release=release, plan=plan)
