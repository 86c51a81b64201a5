"""The record: one JSON file per run in the artifact store, written before the first write to the cluster and closed at the end.

It holds the release, what was applied, every verdict with its time, and the outcome. Its schema has a number.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import UnionType
from typing import Any, Literal

from slipway.errors import plain_line
from slipway.facts import Export, ObjectRef, Pushed, to_dict
from slipway.names import order_folder, order_key, record_key, records_folder
from slipway.records.store import Store, read_bytes
from slipway.release import FIRST_RUNTIME, Release
from slipway.strict_json import load_json

SCHEMA = 1
REQUIRED_FIELDS = {
    "model": str,
    "run_id": str,
    "outcome": str,
    "opened": str,
    "cause": str,
    "release": dict,
    "objects": list,
}
OPTIONAL_FIELDS: dict[str, type | UnionType] = {  # a record of an earlier Slipway has not all of them
    "order": int | None,
    "closed": str | None,
    "release_id": str | None,
    "version": int | None,
    "digest": str | None,
    "export": dict | None,
    "pushed": dict | None,
    "manifests": dict | None,
    "preview": list,
    "verdicts": dict,
    "tasks": dict,
    "bad": dict | None,
}

# proven: the gate passed on a temporary cluster; gone: torn down; retired: its artifacts are being pruned
RunOutcome = Literal["open", "live", "proven", "failed", "gone", "retired"]
Cause = Literal["refresh", "rollback", "teardown", "sweep"]
Record = dict[str, Any]
RUN_FIELDS = frozenset(
    {"run_id", "store", "force", "retention", "installation", "rendered_hash", "store_uid", "builder"}
)  # of a Release: do not change what serves; the hash of what is applied is another field
# A new token or endpoint of a cluster is not a change. An earlier Slipway did not know a cluster's uid.
UNCOMPARED = frozenset({"token_conn_id", "endpoint", "cluster_uid"})

log = logging.getLogger(__name__)


def next_order(store: Store, model: str, *, recorded: int | None = None) -> int:
    """A new number, larger than every number that the store has given to the model's records.

    It orders the records: the clocks of workers differ. A store may be restored without the files of the numbers, so the
    records' own numbers count too: `recorded` is the largest, if the caller has just read them all. Raises StoreError.
    """
    if recorded is None:
        recorded = last_order(found for _, found in read_record_files(store, model))
    while True:
        number = max([recorded, *read_orders(store, model)]) + 1
        if store.claim(order_key(model, number), {}):
            return number


def last_order(records: Iterable[Any]) -> int:
    """The largest number that a record has, even one that is otherwise unreadable. A record of an earlier Slipway has none."""
    orders = (found.get("order") for found in records if isinstance(found, dict))
    return max((order for order in orders if isinstance(order, int)), default=0)


def read_record_files(store: Store, model: str) -> Iterator[tuple[str, Any]]:
    """The URI of each file of the model's records, and its JSON value; None if it is not JSON. Raises StoreError."""
    for name in store.names(records_folder(model)):
        uri = store.uri_of(f"{records_folder(model)}/{name}")
        yield uri, parse_record(read_bytes(uri))


def read_orders(store: Store, model: str) -> frozenset[int]:
    """The numbers whose files the store has. Raises StoreError."""
    given = [name.removesuffix(".json") for name in store.names(order_folder(model))]
    return frozenset(map(int, filter(str.isdecimal, given)))


def new_record(release: Release, *, cause: Cause = "refresh", now: datetime, order: int | None = None) -> Record:
    """The record of a run that has not ended; `order` is its number from `next_order`."""
    return {
        "schema": SCHEMA,
        "model": release.model,
        "cause": cause,
        "run_id": release.run_id,
        "outcome": "open",
        "order": order,
        "opened": now.isoformat(),
        "closed": None,
        **_release_fields(release),
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


def opened_record(
    record: Record,
    *,
    release: Release,
    export: Export,
    pushed: Pushed,
    manifests: dict[str, str],
    objects: list[ObjectRef],
    now: datetime,
    order: int | None = None,
    found: bool = False,
) -> Record:
    """The record before the first write: what will be applied, when, and whether the objects were `found` there already.

    A cleared run opens its record again, with another number from `next_order`: what it applies is then the newest.
    """
    return {
        **record,
        "outcome": "open",
        "order": order,
        "opened": now.isoformat(),
        "closed": None,
        "bad": None,
        **_release_fields(release),
        **_build_fields(export, pushed),
        "manifests": manifests,
        "found": found or record.get("found", False),  # a later try finds what the first one applied
        "objects": [to_dict(ref) for ref in objects],
    }


def keep_live(store: Store, record: Record) -> None:
    """Copy the record of a live release under its own name before its cleared run opens the record again.

    Without the copy, a cleared run that then fails would have nothing to roll back to. Raises StoreError.
    """
    if record["outcome"] == "live":
        write_record(store, {**record, "run_id": f"{record['run_id']}.{record['opened']}"})


def record_with_preview(
    record: Record, *, objects: Sequence[ObjectRef], export: Export | None = None, pushed: Pushed | None = None
) -> Record:
    """The record with these objects of a preview of this export and image; without objects, the preview is deleted.

    A record that lists live objects keeps describing those: a cleared run may preview something newer.
    """
    build: Record = _build_fields(export, pushed) if export and pushed and not record["objects"] else {}
    return {**record, **build, "preview": [to_dict(ref) for ref in objects]}


def _release_fields(release: Release) -> Record:
    """The fields about the release of the run."""
    return {"fingerprint": release.fingerprint, "release": to_dict(release)}


def _build_fields(export: Export, pushed: Pushed) -> Record:
    """The fields about what was built for the release."""
    return {
        "export": to_dict(export),
        "pushed": to_dict(pushed),
        "release_id": pushed.release_id,
        "version": pushed.version,
        "content_hash": export.content_hash,
        "digest": pushed.digest,
    }


def closed_record(
    record: Record, *, proven: bool, verdicts: dict[str, Any], tasks: dict[str, str], now: datetime
) -> Record:
    """The record of a run that has ended: `live` only if the gate passed, and what answered it is kept.

    `bad` is the first verdict that blames the release: the schedule does not try that release again.
    """
    passed: RunOutcome = "proven" if (record["release"].get("cluster") or {}).get("temporary") else "live"
    outcome: RunOutcome = passed if proven else "failed"
    ended: Record = {"outcome": outcome, "verdicts": verdicts, "tasks": tasks, "closed": now.isoformat()}
    return {**record, **ended, "bad": None if proven else find_fault_in_verdicts(verdicts)}


def find_fault_in_verdicts(verdicts: dict[str, Any]) -> dict[str, str] | None:
    """The first task that blamed the release, and its reason; None if none did."""
    faults = [(said["at"], task, said["reason"]) for task, said in verdicts.items() if said.get("bad")]
    return {"task": min(faults)[1], "reason": min(faults)[2]} if faults else None


def mark_record_bad(release: Release, *, task: str, reason: str) -> None:
    """Record at once which task blamed the release: the run may be killed before it ends. Raises StoreError.

    If an earlier try of the run applied another release, its record is left as it is.
    """
    store = Store(release.store)
    record = _own_record(store, release)
    if record["outcome"] != "live" and record_is_about(record, release):
        write_record(store, {**record, "bad": {"task": task, "reason": reason}})


def close_run(
    release: Release,
    verdicts: Record,
    tasks: dict[str, str],
    *,
    proven: bool,
    applied: bool,
    undo: Record | None = None,
    broke: str | None = None,
) -> str:
    """Close the run's record with its tasks' verdicts and states, its rollback, and whose Lease it broke. Returns the URI.

    If a live run was cleared and failed before it `applied` anything, its record is left as it is: that release is still
    live. Raises StoreError.
    """
    store = Store(release.store)
    record = _own_record(store, release)
    if record["outcome"] == "live" and not proven and not applied:
        log.warning(
            "record: the cleared run failed before it applied anything: release %s is still live", record["release_id"]
        )
        return store.uri_of(record_key(release.model, release.run_id))
    ended = closed_record(record, proven=proven, verdicts=verdicts, tasks=tasks, now=utc_now())
    if not record_is_about(record, release):
        ended["bad"] = record["bad"]
    return write_record(store, {**ended, "undo": undo, "lease": {"broke": broke} if broke else None})


def why_unreadable(found: Any) -> str | None:
    """Why a file of the records folder cannot be read as a record; None if it can."""
    if not isinstance(found, dict):
        return "not a JSON object"
    if found.get("schema") != SCHEMA:
        return f"has schema {found.get('schema')}, this Slipway reads schema {SCHEMA}"
    return next(_faults(found), None)


def _faults(found: Record) -> Iterator[str]:
    """What is missing or invalid in a record."""
    absent = (name for name, kind in REQUIRED_FIELDS.items() if not isinstance(found.get(name), kind))
    yield from (f"its field {name} is missing or invalid" for name in absent)
    wrong = (name for name, kind in OPTIONAL_FIELDS.items() if name in found and not isinstance(found[name], kind))
    yield from (f"its field {name} is invalid" for name in wrong)
    release = found["release"]
    if not isinstance(release.get("target"), dict) or not isinstance(release.get("deployment"), str):
        yield "its release has no target or no deployment"
    if not isinstance(release.get("installation"), str | None):
        yield "its release's installation is invalid"
    source = release.get("source")
    if not isinstance(source, dict) or not isinstance(source.get("revision"), str):
        yield "its release has no source"


def has_changed_cluster(record: Record) -> bool:
    """Whether the run applied objects to a cluster, or tore it down."""
    return bool(record["objects"]) or record["outcome"] == "gone"


def read_record(store: Store, model: str, run_id: str) -> Record | None:
    """A run's record, None if it has none. Raises StoreError."""
    key = record_key(model, run_id)
    return store.read_json(key) if store.exists(key) else None


def begin_record(store: Store, release: Release, *, cause: Cause, recorded: int | None = None) -> Record:
    """The run's record before it is opened: from an earlier try, or a new one if there is none or it cannot be read.

    `recorded` is as for `next_order`. Raises StoreError.
    """
    key = record_key(release.model, release.run_id)
    if store.exists(key):
        found = parse_record(read_bytes(store.uri_of(key)))
        why = why_unreadable(found)
        if why is None:
            return _for_release(found, release)
        log.warning("%s: %s: starting a new record", store.uri_of(key), plain_line(why))
    order = next_order(store, release.model, recorded=recorded)
    return new_record(release, cause=cause, now=utc_now(), order=order)


def _own_record(store: Store, release: Release) -> Record:
    """The run's record, or a new one if it has none. Raises StoreError, also if it cannot be read."""
    record = read_record(store, release.model, release.run_id)
    if record:
        return _for_release(record, release)
    return new_record(release, now=utc_now(), order=next_order(store, release.model))


def _for_release(record: Record, release: Release) -> Record:
    """The record with the release as resolved now; a record that lists applied objects keeps describing those."""
    return dict(record) if record["objects"] else {**record, **_release_fields(release), "bad": None}


def record_is_about(record: Record, release: Release) -> bool:
    """Whether a record is about exactly this release; a cleared run's earlier try may have had another one."""
    return bool(release_identity(record["release"]) == release_identity(to_dict(release)))


def release_identity(release: Mapping[str, Any]) -> Any:
    """The fields that make a release another one, in JSON's types, to compare with a record."""
    known = {**FIRST_RUNTIME, **release}
    return plain_json({name: value for name, value in known.items() if name not in RUN_FIELDS})


def plain_json(value: Any) -> Any:
    """A value in JSON's types: a record has lists, a fact has tuples. Without the fields UNCOMPARED, which change nothing."""
    if isinstance(value, dict):
        return {key: plain_json(item) for key, item in value.items() if key not in UNCOMPARED}
    return [plain_json(item) for item in value] if isinstance(value, list | tuple) else value


def parse_record(data: bytes) -> Any:
    """The JSON value, None if it is not JSON."""
    try:
        return load_json(data)
    except ValueError:  # not JSON, or not UTF-8
        return None


def write_record(store: Store, record: Record) -> str:
    """Write a record and return its URI. Raises StoreError."""
    return store.put_json(record, record_key(record["model"], record["run_id"]))


def utc_now() -> datetime:
    """The time for records, in UTC."""
    return datetime.now(UTC)
