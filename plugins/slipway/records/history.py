"""A model's records together: what was applied last, which release is known good, which can be rolled back to."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from slipway.errors import InputRefused, plain_line
from slipway.facts import Export, ObjectRef, Pushed, from_dict
from slipway.records.record import (
    Record,
    has_changed_cluster,
    last_order,
    read_record_files,
    record_is_about,
    why_unreadable,
)
from slipway.records.store import Store
from slipway.release import Release
from slipway.target import Target, is_same_target
from slipway.urls import plain_url

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class History:
    """A model's records that applied something or tore it down, oldest first."""

    records: tuple[Record, ...]
    unread: tuple[str, ...] = ()  # unreadable records, each with why; any of them may be the good one

    def at(self, target: Target, deployment: str) -> History:
        """The records of one target and Deployment; a model that moved has older records elsewhere."""
        here = tuple(record for record in self.records if is_record_at(record, target, deployment))
        return History(here, self.unread)

    @property
    def newest(self) -> Record | None:
        """The record that applied something last, whether it succeeded or failed; or that of a later teardown."""
        return self.records[-1] if self.records else None

    @property
    def good(self) -> Record | None:
        """The newest record whose release was proven live."""
        return next((record for record in reversed(self.records) if record["outcome"] == "live"), None)

    @property
    def settled(self) -> bool:
        """Whether what was applied last was proven live: no run was killed, none failed without a rollback."""
        return self.newest is not None and self.newest["outcome"] == "live"

    @property
    def torn_down(self) -> bool:
        """Whether the newest record is a teardown's, even one that was killed."""
        return self.newest is not None and self.newest["cause"] == "teardown"

    @property
    def objects(self) -> tuple[ObjectRef, ...]:
        """The objects that the newest record lists: the next apply may prune them."""
        return _refs(self.newest["objects"] if self.newest else ())

    def proven(self) -> tuple[Record, ...]:
        """The latest record of each release that was ever proven live, newest first."""
        releases: dict[str, Record] = {}
        for record in reversed(self.records):
            if record["outcome"] == "live" and record.get("release_id"):
                releases.setdefault(record["release_id"], record)
        return tuple(releases.values())


def preview_objects_of_record(record: Record) -> tuple[ObjectRef, ...]:
    """The preview's objects that a record lists; empty once they are deleted."""
    return _refs(record.get("preview", ()))  # an earlier Slipway's record has no such field


def records_with_previews(records: Iterable[Record], target: Target) -> list[Record]:
    """The records whose previews are still at a target: of the running run, and of killed runs."""
    return [
        record
        for record in records
        if preview_objects_of_record(record) and is_same_target(place_of_record(record)[0], target)
    ]


def _refs(listed: Sequence[Any]) -> tuple[ObjectRef, ...]:
    return tuple(from_dict(ObjectRef, ref) for ref in listed)


def place_of_record(record: Record) -> tuple[Target, str]:
    """The target and Deployment of a record's release."""
    return from_dict(Target, record["release"]["target"]), str(record["release"]["deployment"])


def is_record_at(record: Record, target: Target, deployment: str) -> bool:
    """Whether a record is of this target and Deployment, however the cluster was reached."""
    recorded, name = place_of_record(record)
    return name == deployment and is_same_target(recorded, target)


def is_of_another_airflow(record: Record, release: Release) -> bool:
    """Whether the record is of another Airflow that shares the release's store; False if one of the two does not say."""
    whose = record["release"].get("installation")  # a record of an earlier Slipway may not say
    return None not in {whose, release.installation} and whose != release.installation


@dataclass(frozen=True, slots=True)
class Records:
    """All records of a model, oldest first, including runs that applied nothing."""

    records: tuple[Record, ...]
    unread: tuple[str, ...]
    last_order: int  # the largest number that any of them has, for `next_order`

    @property
    def history(self) -> History:
        """The records that changed a cluster."""
        return History(tuple(record for record in self.records if has_changed_cluster(record)), self.unread)


def read_history(store: Store, model: str) -> History:
    """The model's history. Raises StoreError."""
    return read_records(store, model).history


def read_records(store: Store, model: str) -> Records:
    """All records of a model; an unreadable record is skipped with a warning. Raises StoreError."""
    records, unread = [], []
    files = dict(read_record_files(store, model))
    for uri, found in files.items():
        if why := why_unreadable(found):
            unread.append(plain_line(f"{uri}: {why}"))
            log.warning("%s: skipped. Next: fix it, use the Slipway version that wrote it, or move it away", unread[-1])
        else:
            records.append(_with_plain_urls(found))
    return Records(tuple(sorted(records, key=_order_of_record)), tuple(unread), last_order(files.values()))


def _with_plain_urls(record: Record) -> Record:
    """The record without the queries of URLs, which an earlier Slipway kept; a rollback would write them down again."""

    def plain(part: Any, field: str) -> Any:
        url = part.get(field) if isinstance(part, dict) else None
        return {**part, field: plain_url(url)} if isinstance(url, str) else part

    release = dict(record["release"])
    if isinstance(source := release.get("source"), dict) and source.get("kind") == "savedmodel":
        release["source"] = plain(source, "location")
    if isinstance(golden := release.get("golden"), list):
        release["golden"] = [plain(case, "image") for case in golden]
    return {**record, "release": release}


def _order_of_record(record: Record) -> tuple[int, str]:
    """The store's number; 0 for a record of an earlier Slipway, which only has a time and comes before all others."""
    order = record.get("order")
    return (order if isinstance(order, int) else 0, str(record["opened"]))


def release_of_record(
    record: Record, *, run_id: str, store: str, installation: str | None, target: Target
) -> tuple[Release, Export, Pushed]:
    """A record's release for another run to apply, with its export and image.

    `target` is the record's target as it is reached now. The gate is the one that the release passed when it was new;
    `public_gate` says which parts are judged again.
    """
    release = replace(from_dict(Release, record["release"]), run_id=run_id, store=store, installation=installation)
    release = replace(release, target=target, force=False)
    return release, from_dict(Export, record["export"]), from_dict(Pushed, record["pushed"])


def find_bad_record(records: Iterable[Record], release: Release) -> Record | None:
    """The last record that judged exactly this release, if it found the release bad; None if it was proven since."""
    tried = [record for record in records if record_is_about(record, release)]
    judged = list(filter(is_judged_record, tried))
    return judged[-1] if judged and judged[-1].get("bad") else None


def is_judged_record(record: Record) -> bool:
    """Whether the run found its release good or bad."""
    return record["outcome"] in {"live", "proven"} or bool(record.get("bad"))


def read_current_history(store: Store, model: str) -> History:
    """The model's history at the target where it was applied last. Raises StoreError."""
    history = read_history(store, model)
    if history.newest is None:
        return history
    return history.at(*place_of_record(history.newest))


def choose_release(history: History, release_id: str | None) -> Record:
    """The record of the release to roll back to: the named one, else the last proven one before what serves.

    Raises InputRefused, which names the releases to choose from.
    """
    proven = history.proven()
    known = ", ".join(record["release_id"] for record in proven) or "none"
    if release_id is not None:
        found = next((record for record in proven if record["release_id"] == release_id), None)
        if found is None:
            raise InputRefused(f"Param release: {release_id!r} was never proven live. Next: use one of {known}")
        return found
    serves = history.newest.get("release_id") if history.newest else None  # proven or not
    before = [record for record in proven if record["release_id"] != serves]
    if not before:
        raise InputRefused(f"Param release: no release before the live one was proven. Next: name one of {known}")
    return before[0]


def describe_releases(history: History) -> list[str]:
    """The releases that can be rolled back to, one per line, newest first."""
    return [
        f"{record['release_id']}  version {record.get('version')}  proven {record.get('closed')}  {record['release']['source']['revision']}"
        for record in history.proven()
    ]
