"""The record: one JSON per run in the artifact store, opened before the first write to the cluster, closed by `record`.

It says what the run was about, what it applied, every verdict and when, and how it ended. Its schema has a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from slipway.apply import ObjectRef
from slipway.export import Export
from slipway.facts import to_dict
from slipway.push import Pushed
from slipway.release import Release, file_name
from slipway.store import Store

SCHEMA = 1

# proven: the gate passed on a temporary cluster; gone: torn down; retired: what it made is being pruned
Outcome = Literal["open", "live", "proven", "failed", "gone", "retired"]
Cause = Literal["refresh", "rollback", "teardown"]
Record = dict[str, Any]


def new_record(release: Release, *, cause: Cause = "refresh", now: datetime) -> Record:
    """A record of a run that has not ended."""
    return {
        "schema": SCHEMA,
        "model": release.model,
        "cause": cause,
        "run_id": release.run_id,
        "outcome": "open",
        "fingerprint": release.fingerprint,
        "opened": now.isoformat(),
        "closed": None,
        "release": to_dict(release),
        "export": None,
        "pushed": None,
        "release_id": None,
        "version": None,
        "content_hash": None,
        "digest": None,
        "manifests": None,
        "objects": [],
        "preview": [],
        "verdicts": {},
        "tasks": {},
    }


def opened(
    record: Record,
    *,
    export: Export,
    pushed: Pushed,
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
        **_about(export, pushed),
        "manifests": manifests,
        "objects": [to_dict(ref) for ref in objects],
    }


def previewed(
    record: Record, *, objects: Sequence[ObjectRef], export: Export | None = None, pushed: Pushed | None = None
) -> Record:
    """The record with these objects of a preview, which is of this export and image; without any where it is gone.

    A record that lists live objects goes on telling of those: a run that was cleared may preview something newer.
    """
    about: Record = _about(export, pushed) if export and pushed and not record["objects"] else {}
    return {**record, **about, "preview": [to_dict(ref) for ref in objects]}


def _about(export: Export, pushed: Pushed) -> Record:
    """What a record says of the release that its run brings."""
    return {
        "export": to_dict(export),
        "pushed": to_dict(pushed),
        "release_id": pushed.release_id,
        "version": pushed.version,
        "content_hash": export.content_hash,
        "digest": pushed.digest,
    }


def closed(record: Record, *, proven: bool, verdicts: dict[str, Any], tasks: dict[str, str], now: datetime) -> Record:
    """The record of a run that has ended; `live` only where the gate passed, and what answered it stays."""
    passed: Outcome = "proven" if (record["release"].get("cluster") or {}).get("temporary") else "live"
    outcome: Outcome = passed if proven else "failed"
    return {**record, "outcome": outcome, "verdicts": verdicts, "tasks": tasks, "closed": now.isoformat()}


def close_run(
    release: Release, verdicts: Record, tasks: dict[str, str], *, proven: bool, undo: Record | None = None
) -> str:
    """Close this run's record with its tasks' verdicts and states, and what was undone; its URI comes back.

    Raises StoreError.
    """
    store = Store(release.store)
    record = read_record(store, release.model, release.run_id) or new_record(release, now=utc_now())
    ended = closed(record, proven=proven, verdicts=verdicts, tasks=tasks, now=utc_now())
    return write_record(store, {**ended, "undo": undo})


def has_changed_cluster(record: Record) -> bool:
    """Whether a record tells of something in a cluster: what was applied, or that it was torn down."""
    return bool(record["objects"]) or record["outcome"] == "gone"


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


def utc_now() -> datetime:
    """The time that records bear."""
    return datetime.now(UTC)
