"""The record: one JSON per run in the artifact store, opened before the first write to the cluster, closed by `record`.

It says what the run was about, what it applied, every verdict and when, and how it ended. Its schema has a number.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from slipway.facts import Export, ObjectRef, Pushed, to_dict
from slipway.names import file_name
from slipway.records.store import Store, read_bytes
from slipway.release import Release

SCHEMA = 1
SHAPE = {
    "model": str,
    "run_id": str,
    "outcome": str,
    "opened": str,
    "cause": str,
    "release": dict,
    "objects": list,
}  # of all

# proven: the gate passed on a temporary cluster; gone: torn down; retired: what it made is being pruned
Outcome = Literal["open", "live", "proven", "failed", "gone", "retired"]
Cause = Literal["refresh", "rollback", "teardown"]
Record = dict[str, Any]
# Fields of a Release that say nothing of what is going to serve.
OF_THE_RUN = frozenset({"run_id", "store", "force", "retention", "installation"})

log = logging.getLogger(__name__)


def new_record(release: Release, *, cause: Cause = "refresh", now: datetime) -> Record:
    """A record of a run that has not ended."""
    return {
        "schema": SCHEMA,
        "model": release.model,
        "cause": cause,
        "run_id": release.run_id,
        "outcome": "open",
        "opened": now.isoformat(),
        "closed": None,
        **_asked(release),
        "export": None,
        "pushed": None,
        "release_id": None,
        "version": None,
        "content_hash": None,
        "digest": None,
        "manifests": None,
        "found": False,
        "objects": [],
        "preview": [],
        "verdicts": {},
        "tasks": {},
        "bad": None,
        "lease": None,
    }


def opened(
    record: Record,
    *,
    release: Release,
    export: Export,
    pushed: Pushed,
    manifests: dict[str, str],
    objects: list[ObjectRef],
    now: datetime,
    found: bool = False,
) -> Record:
    """The record as it stands before the first write: what is about to be applied, when, and whether something was `found` there.

    A run that is cleared opens its record anew: what it applies is then the newest.
    """
    return {
        **record,
        "outcome": "open",
        "opened": now.isoformat(),
        "closed": None,
        "bad": None,
        **_asked(release),
        **_about(export, pushed),
        "manifests": manifests,
        "found": found or record.get("found", False),  # a try after the first finds what that has applied
        "objects": [to_dict(ref) for ref in objects],
    }


def keep_live(store: Store, record: Record) -> None:
    """Keep what a record says of a release that is live, under a name of its own, before its run, cleared, opens it anew.

    Without it a run that is cleared, and then fails, would have nothing to bring back. Raises StoreError.
    """
    if record["outcome"] == "live":
        write_record(store, {**record, "run_id": f"{record['run_id']}.{record['opened']}"})


def previewed(
    record: Record, *, objects: Sequence[ObjectRef], export: Export | None = None, pushed: Pushed | None = None
) -> Record:
    """The record with these objects of a preview, which is of this export and image; without any where it is gone.

    A record that lists live objects goes on telling of those: a run that was cleared may preview something newer.
    """
    about: Record = _about(export, pushed) if export and pushed and not record["objects"] else {}
    return {**record, **about, "preview": [to_dict(ref) for ref in objects]}


def _asked(release: Release) -> Record:
    """What a record says of the release that its run was resolved to."""
    return {"fingerprint": release.fingerprint, "release": to_dict(release)}


def _about(export: Export, pushed: Pushed) -> Record:
    """What a record says of what was made of it."""
    return {
        "export": to_dict(export),
        "pushed": to_dict(pushed),
        "release_id": pushed.release_id,
        "version": pushed.version,
        "content_hash": export.content_hash,
        "digest": pushed.digest,
    }


def closed(record: Record, *, proven: bool, verdicts: dict[str, Any], tasks: dict[str, str], now: datetime) -> Record:
    """The record of a run that has ended; `live` only where the gate passed, and what answered it stays.

    `bad` is the first verdict that found the release itself at fault: what the schedule does not try again.
    """
    passed: Outcome = "proven" if (record["release"].get("cluster") or {}).get("temporary") else "live"
    outcome: Outcome = passed if proven else "failed"
    ended: Record = {"outcome": outcome, "verdicts": verdicts, "tasks": tasks, "closed": now.isoformat()}
    return {**record, **ended, "bad": None if proven else find_fault(verdicts)}


def find_fault(verdicts: dict[str, Any]) -> dict[str, str] | None:
    """The task that has found the release itself at fault, and its words; None where none has."""
    faults = [(said["at"], task, said["reason"]) for task, said in verdicts.items() if said.get("bad")]
    return {"task": min(faults)[1], "reason": min(faults)[2]} if faults else None


def mark_bad(release: Release, *, task: str, reason: str) -> None:
    """Say in the run's record who found its release bad, before the run ends: it may be killed until then. Raises StoreError.

    A record of what an earlier try of the run has applied may tell of another release, and stays as it is.
    """
    store = Store(release.store)
    record = _own_record(store, release)
    if record["outcome"] != "live" and tells_of(record, release):
        write_record(store, {**record, "bad": {"task": task, "reason": reason}})


def close_run(
    release: Release,
    verdicts: Record,
    tasks: dict[str, str],
    *,
    proven: bool,
    undo: Record | None = None,
    broke: str | None = None,
) -> str:
    """Close this run's record with its tasks' verdicts and states, what was undone, and whose Lease was broken.

    A run that was live, was cleared, and failed before it applied anything leaves its record as it was: what that tells of
    is live still. The record's URI comes back. Raises StoreError.
    """
    store = Store(release.store)
    record = _own_record(store, release)
    if record["outcome"] == "live" and not proven and tasks.get("apply") != "success":
        log.warning(
            "record: cleared, and failed before it applied anything: release %s is live as before", record["release_id"]
        )
        return store.uri_of(record_key(release.model, release.run_id))
    ended = closed(record, proven=proven, verdicts=verdicts, tasks=tasks, now=utc_now())
    if not tells_of(record, release):
        ended["bad"] = record["bad"]
    return write_record(store, {**ended, "undo": undo, "lease": {"broke": broke} if broke else None})


def why_unread(found: Any) -> str | None:
    """Why what was found where a record should be is none that can be read; None where it can."""
    if not isinstance(found, dict):
        return "no JSON object"
    if found.get("schema") != SCHEMA:
        return f"of schema {found.get('schema')}, this Slipway reads {SCHEMA}"
    absent = [name for name, kind in SHAPE.items() if not isinstance(found.get(name), kind)]
    if absent:
        return f"its {absent[0]} is missing, or is none"
    release = found["release"]
    if not isinstance(release.get("target"), dict) or not isinstance(release.get("deployment"), str):
        return "its release does not say where it went"
    return None


def has_changed_cluster(record: Record) -> bool:
    """Whether a record tells of something in a cluster: what was applied, or that it was torn down."""
    return bool(record["objects"]) or record["outcome"] == "gone"


def read_record(store: Store, model: str, run_id: str) -> Record | None:
    """A run's record, None where it has none. Raises StoreError."""
    key = record_key(model, run_id)
    return store.read_json(key) if store.exists(key) else None


def begin_record(store: Store, release: Release, *, cause: Cause) -> Record:
    """The run's record before it is opened: its own of an earlier try, or a new one, also where that cannot be read.

    Raises StoreError.
    """
    key = record_key(release.model, release.run_id)
    if store.exists(key):
        found = parsed(read_bytes(store.uri_of(key)))
        why = why_unread(found)
        if why is None:
            return _told_of(found, release)
        log.warning("%s: %s: begun anew", store.uri_of(key), why)
    return new_record(release, cause=cause, now=utc_now())


def _own_record(store: Store, release: Release) -> Record:
    """The run's record, or a new one where it has none. Raises StoreError, also where it cannot be read."""
    record = read_record(store, release.model, release.run_id)
    return _told_of(record, release) if record else new_record(release, now=utc_now())


def _told_of(record: Record, release: Release) -> Record:
    """A record of the release as it is resolved now, of which nothing is known; one that lists what was applied tells of that."""
    return dict(record) if record["objects"] else {**record, **_asked(release), "bad": None}


def tells_of(record: Record, release: Release) -> bool:
    """Whether a record is of just this release; one of an earlier try of a run that was cleared may be of another."""
    return bool(asked_for(record["release"]) == asked_for(to_dict(release)))


def asked_for(release: Mapping[str, Any]) -> Any:
    """All of a release that a person can mean by another one; as JSON gives it back, so that a record's compares."""
    return plain({name: value for name, value in release.items() if name not in OF_THE_RUN})


def plain(value: Any) -> Any:
    """A value as JSON gives it back: a record has lists where a fact has tuples. Whose token reads a source is no change."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key != "token_conn_id"}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def parsed(data: bytes) -> Any:
    """A JSON value, None where it is none."""
    try:
        return json.loads(data)
    except ValueError:  # not JSON, or not UTF-8
        return None


def write_record(store: Store, record: Record) -> str:
    """Write a record; its URI comes back. Raises StoreError."""
    return store.put_json(record, record_key(record["model"], record["run_id"]))


def record_key(model: str, run_id: str) -> str:
    """Where the store keeps a run's record."""
    return f"records/{model}/{file_name(run_id)}.json"


def utc_now() -> datetime:
    """The time that records bear."""
    return datetime.now(UTC)
