"""A model's records read together: what was applied last, which release is known to be good, which can come back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from slipway.apply import ObjectRef
from slipway.errors import InputRefused, StoreError
from slipway.facts import from_dict
from slipway.record import SCHEMA, Record, has_changed_cluster
from slipway.store import Store
from slipway.target import Target


@dataclass(frozen=True, slots=True)
class History:
    """The records of a model that applied something or tore it down, oldest first."""

    records: tuple[Record, ...]

    def at(self, target: Target, deployment: str) -> History:
        """Those of one target and Deployment: a model that moved leaves its old records behind."""
        return History(tuple(record for record in self.records if place_of(record) == (target, deployment)))

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


def read_history(store: Store, model: str) -> History:
    """The model's history. Raises StoreError."""
    return history_of(read_records(store, model))


def history_of(records: Iterable[Record]) -> History:
    """The history that all of a model's records tell."""
    return History(tuple(filter(has_changed_cluster, records)))


def read_records(store: Store, model: str) -> list[Record]:
    """All records of a model, oldest first, those of runs that applied nothing among them. Raises StoreError."""
    records = [_read(store, f"records/{model}/{name}") for name in store.names(f"records/{model}")]
    return sorted(records, key=lambda record: str(record["opened"]))


def _read(store: Store, key: str) -> Record:
    record: Record = store.read_json(key)
    if record.get("schema") != SCHEMA:
        raise StoreError(
            f"{store.uri_of(key)}: a record of schema {record.get('schema')}, this Slipway reads {SCHEMA}. "
            "Next: use the Slipway that wrote it, or move the record away"
        )
    return record


def read_current_history(store: Store, model: str) -> History:
    """The model's history at the target where it was applied last. Raises StoreError."""
    history = read_history(store, model)
    if history.newest is None:
        return history
    return history.at(*place_of(history.newest))


def choose_release(history: History, release_id: str | None) -> Record:
    """The record of the release to go back to: the named one, else the one before the live one.

    Raises InputRefused naming the releases there are.
    """
    proven = history.proven()
    known = ", ".join(record["release_id"] for record in proven) or "none"
    if release_id is not None:
        found = next((record for record in proven if record["release_id"] == release_id), None)
        if found is None:
            raise InputRefused(f"Param release: {release_id!r} was never proven live. Next: use one of {known}")
        return found
    before = [record for record in proven if not history.good or record["release_id"] != history.good["release_id"]]
    if not before:
        raise InputRefused(f"Param release: there is none before the live one to go back to. Next: name one of {known}")
    return before[0]


def describe(history: History) -> list[str]:
    """The releases that can come back, one a line, the newest first, for people to choose from."""
    return [
        f"{record['release_id']}  version {record['version']}  proven {record['closed']}  {record['release']['source']['revision']}"
        for record in history.proven()
    ]
