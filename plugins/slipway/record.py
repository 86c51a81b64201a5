"""The record: one JSON per run in the artifact store, opened before the first write to the cluster, closed by `record`.

It says what the run was about, what it applied, every verdict and when, and how it ended. Its schema has a number.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from slipway.apply import ObjectRef
from slipway.facts import from_dict, to_dict
from slipway.release import Release, file_name
from slipway.store import Store

SCHEMA = 1

Outcome = Literal["open", "live", "failed"]
Record = dict[str, Any]


def new_record(release: Release, *, now: datetime) -> Record:
    """A record of a run that has not ended."""
    return {
        "schema": SCHEMA,
        "model": release.model,
        "run_id": release.run_id,
        "outcome": "open",
        "fingerprint": release.fingerprint,
        "opened": now.isoformat(),
        "closed": None,
        "release": to_dict(release),
        "release_id": None,
        "version": None,
        "content_hash": None,
        "digest": None,
        "manifests": None,
        "objects": [],
        "verdicts": {},
        "tasks": {},
    }


def opened(
    record: Record,
    *,
    release_id: str,
    version: int,
    content_hash: str,
    digest: str,
    manifests: dict[str, str],
    objects: list[ObjectRef],
    now: datetime,
) -> Record:
    """The record as it stands before the first write: what is about to be applied, and when.

    A run that is cleared opens its record anew: what it applies is then the newest.
    """
    return {
        **record,
        "outcome": "open",
        "opened": now.isoformat(),
        "closed": None,
        "release_id": release_id,
        "version": version,
        "content_hash": content_hash,
        "digest": digest,
        "manifests": manifests,
        "objects": [to_dict(ref) for ref in objects],
    }


def closed(record: Record, *, proven: bool, verdicts: dict[str, Any], tasks: dict[str, str], now: datetime) -> Record:
    """The record of a run that has ended; `live` only where the gate passed."""
    outcome: Outcome = "live" if proven else "failed"
    return {**record, "outcome": outcome, "verdicts": verdicts, "tasks": tasks, "closed": now.isoformat()}


def close_run(release: Release, verdicts: Record, tasks: dict[str, str], *, proven: bool) -> str:
    """Close this run's record with its tasks' verdicts and states; the record's URI comes back. Raises StoreError."""
    store = Store(release.store)
    record = read_record(store, release.model, release.run_id) or new_record(release, now=utc_now())
    return write_record(store, closed(record, proven=proven, verdicts=verdicts, tasks=tasks, now=utc_now()))


def read_record(store: Store, model: str, run_id: str) -> Record | None:
    """A run's record, None where it has none. Raises StoreError."""
    key = record_key(model, run_id)
    return store.read_json(key) if store.exists(key) else None


def write_record(store: Store, record: Record) -> str:
    """Write a record; its URI comes back. Raises StoreError."""
    return store.put_json(record, record_key(record["model"], record["run_id"]))


def record_key(model: str, run_id: str) -> str:
    """Where the store keeps a run's record."""
    return f"records/{model}/{file_name(run_id)}.json"


def last_applied(store: Store, model: str) -> tuple[ObjectRef, ...]:
    """The objects that the newest record with any lists: what a next apply may prune. Raises StoreError."""
    records = [store.read_json(f"records/{model}/{name}") for name in store.names(f"records/{model}")]
    listing = [record for record in records if record["objects"]]
    if not listing:
        return ()
    newest = max(listing, key=lambda record: record["opened"])
    return tuple(from_dict(ObjectRef, ref) for ref in newest["objects"])


def utc_now() -> datetime:
    """The time that records bear."""
    return datetime.now(UTC)
