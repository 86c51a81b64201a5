"""A model's records read together: what was applied last, which release is known to be good, which can come back."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from slipway.errors import InputRefused
from slipway.facts import Export, ObjectRef, Pushed, from_dict
from slipway.records.record import Record, has_changed_cluster, parsed, tells_of, why_unread
from slipway.records.store import Store, read_bytes
from slipway.release import Release
from slipway.target import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class History:
    """The records of a model that applied something or tore it down, oldest first."""

    records: tuple[Record, ...]
    unread: tuple[
        str, ...
    ] = ()  # what lies among them and cannot be read, each with why: any of them may tell of the good one

    def at(self, target: Target, deployment: str) -> History:
        """Those of one target and Deployment: a model that moved leaves its old records behind."""
        here = tuple(record for record in self.records if place_of(record) == (target, deployment))
        return History(here, self.unread)

    @property
    def newest(self) -> Record | None:
        """The record that applied something last, whatever became of it; or that of the teardown after it."""
        return self.records[-1] if self.records else None

    @property
    def good(self) -> Record | None:
        """The newest record whose release was proven live."""
        return next((record for record in reversed(self.records) if record["outcome"] == "live"), None)

    @property
    def settled(self) -> bool:
        """Whether what was applied last was proven live: no run was killed half-way, none failed without being undone."""
        return self.newest is not None and self.newest["outcome"] == "live"

    @property
    def torn_down(self) -> bool:
        """Whether the last that happened was a teardown, also one that was killed half-way."""
        return self.newest is not None and self.newest["cause"] == "teardown"

    @property
    def objects(self) -> tuple[ObjectRef, ...]:
        """The objects that the newest record lists: what a next apply may prune."""
        return _refs(self.newest["objects"] if self.newest else ())

    def proven(self) -> tuple[Record, ...]:
        """One record for each release that was ever proven live, newest first."""
        releases: dict[str, Record] = {}
        for record in reversed(self.records):
            if record["outcome"] == "live":
                releases.setdefault(record["release_id"], record)
        return tuple(releases.values())


def previewed_in(record: Record) -> tuple[ObjectRef, ...]:
    """The objects of a preview that a record lists: until they are removed."""
    return _refs(record.get("preview", ()))  # a record of an earlier Slipway has none


def left_previews(records: Iterable[Record], target: Target) -> list[Record]:
    """The records whose previews are still at a target: that of a run at hand, and those of killed ones."""
    return [record for record in records if previewed_in(record) and place_of(record)[0] == target]


def _refs(listed: Sequence[Any]) -> tuple[ObjectRef, ...]:
    return tuple(from_dict(ObjectRef, ref) for ref in listed)


def place_of(record: Record) -> tuple[Target, str]:
    """Where a record's release went: target and Deployment."""
    return from_dict(Target, record["release"]["target"]), str(record["release"]["deployment"])


@dataclass(frozen=True, slots=True)
class Records:
    """All records of a model, oldest first, those of runs that applied nothing among them."""

    records: tuple[Record, ...]
    unread: tuple[str, ...]

    @property
    def history(self) -> History:
        """Those that tell of something in a cluster."""
        return History(tuple(record for record in self.records if has_changed_cluster(record)), self.unread)


def read_history(store: Store, model: str) -> History:
    """The model's history. Raises StoreError."""
    return read_records(store, model).history


def read_records(store: Store, model: str) -> Records:
    """All records of a model; one that cannot be read is named in the log and stops nobody. Raises StoreError."""
    records, unread = [], []
    for name in store.names(f"records/{model}"):
        key = f"records/{model}/{name}"
        found = parsed(read_bytes(store.uri_of(key)))
        if why := why_unread(found):
            unread.append(f"{store.uri_of(key)}: {why}")
            log.warning("%s: passed over. Next: mend it, or use the Slipway that wrote it, or move it away", unread[-1])
        else:
            records.append(found)
    return Records(tuple(sorted(records, key=lambda record: str(record["opened"]))), tuple(unread))


def recorded(record: Record, *, run_id: str, store: str) -> tuple[Release, Export, Pushed]:
    """The release that a record tells of, as the work of another run, with its export and image; its gate asks promises alone."""
    release = from_dict(Release, record["release"])
    release = replace(release, run_id=run_id, store=store, force=False, gate=release.gate.promises_only)
    return release, from_dict(Export, record["export"]), from_dict(Pushed, record["pushed"])


def find_bad(records: Iterable[Record], release: Release) -> Record | None:
    """The record of the last run that tried exactly this release here and found it bad; None where it was proven since."""
    tried = [record for record in records if tells_of(record, release)]
    judged = list(filter(is_judged, tried))
    return judged[-1] if judged and judged[-1].get("bad") else None


def is_judged(record: Record) -> bool:
    """Whether a run has found out what its release is worth."""
    return record["outcome"] in {"live", "proven"} or bool(record.get("bad"))


def read_current_history(store: Store, model: str) -> History:
    """The model's history at the target where it was applied last. Raises StoreError."""
    history = read_history(store, model)
    if history.newest is None:
        return history
    return history.at(*place_of(history.newest))


def choose_release(history: History, release_id: str | None) -> Record:
    """The record of the release to go back to: the named one, else the last proven one before what was applied last.

    Raises InputRefused naming the releases there are.
    """
    proven = history.proven()
    known = ", ".join(record["release_id"] for record in proven) or "none"
    if release_id is not None:
        found = next((record for record in proven if record["release_id"] == release_id), None)
        if found is None:
            raise InputRefused(f"Param release: {release_id!r} was never proven live. Next: use one of {known}")
        return found
    serves = history.newest["release_id"] if history.newest else None  # whether it was proven or not
    before = [record for record in proven if record["release_id"] != serves]
    if not before:
        raise InputRefused(f"Param release: there is none before the live one to go back to. Next: name one of {known}")
    return before[0]


def describe(history: History) -> list[str]:
    """The releases that can come back, one a line, the newest first, for people to choose from."""
    return [
        f"{record['release_id']}  version {record['version']}  proven {record['closed']}  {record['release']['source']['revision']}"
        for record in history.proven()
    ]
