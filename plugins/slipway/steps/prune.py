"""Retention: deletes what old releases of a model left, never the live release or one that can be rolled back to.

Only what this store's records and labels name as ours is deleted. A record is marked retired first, so that nobody rolls
back to a release that is being deleted; the record itself is deleted last, so that the next prune finishes a killed one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from slipway.errors import RetentionIncomplete, SlipwayError
from slipway.facts import from_dict
from slipway.image.build import owner_of_images, remove_images
from slipway.image.engine import engine
from slipway.image.registry import repository_at
from slipway.kubernetes.lease import Holder
from slipway.names import (
    break_key,
    breaks_folder,
    dag_id,
    digest_of,
    load_folder,
    loads_folder,
    order_key,
    record_key,
    rendered_key,
    repository_of,
    rollback_dag_id,
    sweep_dag_id,
    sweep_folder,
    sweeps_folder,
    teardown_dag_id,
)
from slipway.records.history import History, is_judged_record, place_of_record, preview_objects_of_record, read_records
from slipway.records.record import Record, has_changed_cluster, read_orders, release_identity, write_record
from slipway.records.store import Store
from slipway.release import Release, Retention, Source

# The newest numbers of the order are kept, whatever has them: a run that read the numbers some time ago still finds the next one
# taken, and the largest one stays.
KEPT_NUMBERS = 100

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What the store holds of a model, by name, and the version that each key of exporter inputs leads to."""

    exports: frozenset[int]
    inputs: Mapping[str, int]  # file name to version
    sources: frozenset[str]
    manifests: frozenset[str]
    rendered: frozenset[str] = frozenset()  # manifests as `resolve` rendered them
    quality: frozenset[str] = frozenset()  # labelled sets
    loads: frozenset[str] = frozenset()  # ids of releases with load tests
    sweeps: frozenset[str] = frozenset()  # ids of releases with sweeps
    orders: frozenset[int] = frozenset()  # numbers that were given to records
    breaks: frozenset[str] = frozenset()  # notes of runs that broke a Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """What is to be deleted, and which images are kept."""

    records: tuple[Record, ...]
    keys: tuple[str, ...]  # in the store, without the records
    digests: frozenset[str]  # of the images that are kept, sha256:…


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """How many things were deleted."""

    records: int
    artifacts: int  # exports, sources, manifests and the like in the store
    images: int  # on the worker's engine
    registry: int  # images in the registry


def plan_prune(
    records: list[Record],
    holdings: Holdings,
    retention: Retention,
    *,
    model: str,
    run: Record | None,
    rendered: frozenset[str] = frozenset(),
) -> PrunePlan:
    """What exceeds the retention. `records` are all of the model's, oldest first; `run` is the record of this run.

    `rendered` are the hashes of this run's rendered manifests: it may be cleared before it has a record.

    At each target that the model was ever applied to, the newest proven releases and what was applied last are kept. The
    record of a preview that still exists is kept too. Of a bad release the record is kept, because without it the schedule
    would try the release again, and its load test, to which the record points.
    """
    kept = [*_protected(records, retention), *filter(preview_objects_of_record, records)]
    if run is not None:
        kept.append(run)
    ids = {record["run_id"] for record in kept}
    releases = {record["release_id"] for record in kept if record["outcome"] == "live"}
    superseded: set[str] = set()  # deleted with the last proof that the release is good: what blamed it earlier
    for runs in _judgements(records):
        if not _may_be_kept(runs[-1], releases):
            superseded |= {record["run_id"] for record in runs} - ids
        elif runs[-1].get("bad"):
            ids.add(runs[-1]["run_id"])
    others = [
        record for record in records if record["run_id"] not in ids | superseded and _may_be_kept(record, releases)
    ]
    readable = others[-retention.records :]
    ids |= {record["run_id"] for record in readable}
    versions = _versions(kept, holdings, retention)
    sources = {from_dict(Source, record["release"]["source"]).kept_key(model) for record in kept}
    manifests = {_name(record["manifests"]["uri"]) for record in (*kept, *readable) if record["manifests"]}
    keys = [f"manifests/{model}/{name}" for name in sorted(holdings.manifests - manifests)]
    hashes = {record["release"].get("rendered_hash") for record in (*kept, *readable)}
    rendered_keys = {rendered_key(model, digest) for digest in (*hashes, *rendered) if digest}
    keys += sorted({f"rendered/{model}/{name}" for name in holdings.rendered} - rendered_keys)
    sets = {uri for record in (*kept, *readable) if (uri := _set_of(record))}
    keys += [f"quality/{model}/{name}" for name in sorted(holdings.quality - {_name(uri) for uri in sets})]
    keys += [
        f"exports/{model}/inputs/{name}" for name, version in sorted(holdings.inputs.items()) if version not in versions
    ]
    keys += [f"exports/{model}/{version}" for version in sorted(holdings.exports - versions)]
    keys += sorted({f"sources/{model}/{name}" for name in holdings.sources} - sources)
    keys += [sweep_folder(model, name) for name in sorted(holdings.sweeps - releases)]
    old = [record for record in records if record["run_id"] not in ids]
    left = [record for record in records if record["run_id"] in ids]
    recorded = {record["release_id"] for record in (*kept, *left)}
    keys += [load_folder(model, name) for name in sorted(holdings.loads - recorded)]
    return PrunePlan(
        records=tuple(old),
        keys=(*keys, *_order_keys(left, holdings, model), *_break_keys(old, holdings, model)),
        digests=frozenset(record["digest"] for record in kept if record["digest"]),
    )


def _set_of(record: Record) -> str | None:
    """The URI of the labelled set that a record's release was sent; a record of an earlier Slipway names none."""
    quality = (record["release"].get("gate") or {}).get("quality")
    return str(quality["uri"]) if quality else None


def _protected(records: list[Record], retention: Retention) -> list[Record]:
    """At each target: the newest proven releases, by the newest record of each, and what was applied last."""
    applied = History(tuple(record for record in records if has_changed_cluster(record)))
    kept: dict[str, Record] = {}
    for place in {place_of_record(record) for record in applied.records}:
        history = applied.at(*place)
        for record in (*history.proven()[: retention.releases], *history.records[-1:]):
            kept[record["run_id"]] = record
    return list(kept.values())


def _judgements(records: list[Record]) -> list[list[Record]]:
    """For each release, identified as `find_bad_record` does, the records of the runs that judged it; the last one counts."""
    releases: dict[str, list[Record]] = {}
    for record in filter(is_judged_record, records):
        releases.setdefault(digest_of(release_identity(record["release"])), []).append(record)
    return list(releases.values())


def _may_be_kept(record: Record, releases: Iterable[str]) -> bool:
    """Whether a record may be kept for people to read. One that would offer a deleted release for a rollback may not."""
    return record["outcome"] in {"failed", "open", "proven", "gone"} or (
        record["outcome"] == "live" and record["release_id"] in releases
    )


def _versions(kept: list[Record], holdings: Holdings, retention: Retention) -> set[int]:
    """The versions of exports to keep: those of the kept releases, and the newest, whose runs may be cleared and resumed."""
    used = {record["version"] for record in kept if record["version"] is not None}
    return used | set(sorted(holdings.exports)[-retention.releases :])


def _order_keys(left: list[Record], holdings: Holdings, model: str) -> list[str]:
    """The numbers to delete: those that none of the records that are left has, without the newest."""
    used = {record.get("order") for record in left}  # a record of an earlier Slipway has none
    return [order_key(model, number) for number in sorted(holdings.orders)[:-KEPT_NUMBERS] if number not in used]


def _break_keys(old: list[Record], holdings: Holdings, model: str) -> list[str]:
    """The notes of the runs whose records are deleted. A note without a record may be of a run that has none yet."""
    dags = (dag_id(model), rollback_dag_id(model), teardown_dag_id(model), sweep_dag_id(model))
    holders = [
        Holder(installation=installation, dag_id=dag, run_id=record["run_id"]).identity
        for record in old
        if (installation := record["release"].get("installation"))  # a record of an earlier Slipway may not say
        for dag in dags
    ]
    return sorted(key for holder in holders if _name(key := break_key(model, holder)) in holdings.breaks)


def prune(release: Release, *, resolved: Release | None = None, images: frozenset[str] = frozenset()) -> Pruned:
    """Delete what exceeds the release's retention. `images` are this run's, by id or digest (sha256:…): they are kept.

    So are the rendered manifests of the release, and of the one that this run `resolved` if it restores another.

    Each part is tried, whether the others succeed or fail. Raises StoreError, RetentionIncomplete naming what failed and why.
    """
    store = Store(release.store)
    found = read_records(store, release.model)
    if found.unread:  # once they are fixed, their releases can be rolled back to
        raise RetentionIncomplete(f"{'; '.join(found.unread)}. Next: fix it or move it away, the next run prunes again")
    records = list(found.records)
    run = next((record for record in records if record["run_id"] == release.run_id), None)
    plan = plan_prune(
        records,
        read_holdings(store, release.model),
        release.retention,
        model=release.model,
        run=run,
        rendered=frozenset(one.rendered_hash for one in (release, resolved) if one and one.rendered_hash),
    )
    for record in plan.records:
        if record["outcome"] != "retired":
            write_record(store, {**record, "outcome": "retired"})
    failed: list[str] = []
    keep = plan.digests | images
    by_engine = release.builder == "engine"  # else this worker may have none
    removed = _count_or_note(failed, lambda: _prune_engine(release, records, keep)) if by_engine else 0
    deleted = (
        _count_or_note(failed, lambda: _prune_registry(release, plan.records, keep))
        if release.retention.registry
        else 0
    )
    for key in plan.keys:
        log.info("prune: %s", store.uri_of(key))
        store.remove(key)
    if failed:
        raise RetentionIncomplete(f"{'; '.join(failed)}. Next: fix that, the next run prunes again")
    for record in plan.records:
        store.remove(record_key(record["model"], record["run_id"]))
    return Pruned(records=len(plan.records), artifacts=len(plan.keys), images=removed, registry=deleted)


def read_holdings(store: Store, model: str) -> Holdings:
    """What the store holds of a model. Raises StoreError."""
    exports = store.names(f"exports/{model}")
    inputs = store.names(f"exports/{model}/inputs")
    return Holdings(
        exports=frozenset(int(name) for name in exports if name.isdigit()),
        inputs={name: int(store.read_json(f"exports/{model}/inputs/{name}")["version"]) for name in inputs},
        sources=frozenset(store.names(f"sources/{model}")),
        manifests=frozenset(store.names(f"manifests/{model}")),
        rendered=frozenset(store.names(f"rendered/{model}")),
        quality=frozenset(store.names(f"quality/{model}")),
        loads=frozenset(store.names(loads_folder(model))),
        sweeps=frozenset(store.names(sweeps_folder(model))),
        orders=read_orders(store, model),
        breaks=frozenset(store.names(breaks_folder(model))),
    )


def _prune_engine(release: Release, records: list[Record], keep: frozenset[str]) -> int:
    recorded = frozenset(record["digest"] for record in records if record["digest"])
    with engine(release) as client:
        removed = remove_images(client, owner_of_images(release), keep=keep, recorded=recorded)
    for image in removed:
        log.info("prune: image %s on the engine", image)
    return len(removed)


def _prune_registry(release: Release, records: tuple[Record, ...], keep: frozenset[str]) -> int:
    """Delete images from the release's repository and from those of the records.

    If an earlier Slipway moved an image's tag to another image, only the record names the old image.
    """
    repositories = {release.repository: release.registry_conn_id}
    recorded: dict[str, set[str]] = {release.repository: set()}
    for record in records:
        if record["pushed"]:
            repository = repository_of(record["pushed"]["reference"])
            repositories.setdefault(repository, record["release"]["registry_conn_id"])
            recorded.setdefault(repository, set()).add(record["digest"])
    return sum(
        _prune_repository(release, repository, conn, recorded[repository], keep)
        for repository, conn in repositories.items()
    )


def _prune_repository(
    release: Release, repository: str, registry_conn_id: str | None, recorded: set[str], keep: frozenset[str]
) -> int:
    owner = owner_of_images(release)
    with repository_at(repository, registry_conn_id) as found:
        old: dict[str, tuple[str, ...]] = dict.fromkeys(recorded - keep, ())
        for image in found.tagged(without=keep):
            if owner.owns(image.labels, recorded=image.digest in recorded):
                old[image.digest] = (*old.get(image.digest, ()), image.tag)
            else:
                old.pop(image.digest, None)  # its labels name another store
        for digest, tags in sorted(old.items()):
            if not found.delete(digest, tags):
                log.warning(
                    "prune: the registry does not allow deletion: %d old images stay in %s", len(old), repository
                )
                return 0
            log.info("prune: %s@%s %s", repository, digest, " ".join(tags))
    return len(old)


def _count_or_note(failed: list[str], part: Callable[[], int]) -> int:
    """What a part of the prune returns; 0 if it fails, with its error added to `failed`."""
    try:
        return part()
    except SlipwayError as error:
        failed.append(str(error).split(". Next:")[0])
        return 0


def _name(uri: str) -> str:
    return uri.rstrip("/").rsplit("/", 1)[-1]
