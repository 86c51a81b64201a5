"""Retention: what a model leaves behind is pruned beyond a number; the live release, and each that can come back, never.

Only what this store's records and labels call ours is touched. A record is retired first, so that nobody goes back to what
is being taken away, and goes last: a prune that was killed is finished by the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from slipway.errors import RetentionIncomplete, SlipwayError
from slipway.facts import from_dict
from slipway.image.build import IMAGE_LABEL_STORE, IMAGE_LABEL_TITLE, remove_images
from slipway.image.engine import engine
from slipway.image.registry import repository_at
from slipway.names import digest_of, record_key, repository_of
from slipway.records.history import History, is_judged, place_of, previewed_in, read_records
from slipway.records.record import Record, has_changed_cluster, identity_of, write_record
from slipway.records.store import Store
from slipway.release import Release, Retention, Source

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What the store holds of a model, by name, and which export the exporter's inputs lead to."""

    exports: frozenset[int]
    inputs: Mapping[str, int]  # file name to version
    sources: frozenset[str]
    manifests: frozenset[str]
    quality: frozenset[str] = frozenset()  # labelled sets


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """What is going to be removed, and which images stay."""

    records: tuple[Record, ...]
    keys: tuple[str, ...]  # in the store, records apart
    digests: frozenset[str]  # of the images that stay, sha256:…


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was removed."""

    records: int
    artifacts: int  # exports, sources and manifests in the store
    images: int  # on the worker's engine
    registry: int  # images in the registry


def plan_prune(
    records: list[Record], holdings: Holdings, retention: Retention, *, model: str, run: Record | None
) -> Prune:
    """What goes beyond the retention. `records` are all of the model's, oldest first; `run` is that of the run at hand.

    At each target that the model was ever applied to, the newest proven releases stay, and what was applied last; so does
    the record of a preview that is still there. Of a release that was found bad the record alone stays: without it the
    schedule would try it again.
    """
    staying = [*_protected(records, retention), *filter(previewed_in, records)]
    if run is not None:
        staying.append(run)
    ids = {record["run_id"] for record in staying}
    releases = {record["release_id"] for record in staying if record["outcome"] == "live"}
    outdone: set[str] = set()  # with the proof that a release is good goes what blamed it before
    for runs in _judged(records):
        if not _is_harmless(runs[-1], releases):
            outdone |= {record["run_id"] for record in runs} - ids
        elif runs[-1].get("bad"):
            ids.add(runs[-1]["run_id"])
    others = [record for record in records if record["run_id"] not in ids | outdone and _is_harmless(record, releases)]
    readable = others[-retention.records :]
    ids |= {record["run_id"] for record in readable}
    versions = _versions(staying, holdings, retention)
    sources = {from_dict(Source, record["release"]["source"]).kept_key(model) for record in staying}
    manifests = {_name(record["manifests"]["uri"]) for record in (*staying, *readable) if record["manifests"]}
    gone = [f"manifests/{model}/{name}" for name in sorted(holdings.manifests - manifests)]
    sets = {uri for record in (*staying, *readable) if (uri := _set_of(record))}
    gone += [f"quality/{model}/{name}" for name in sorted(holdings.quality - {_name(uri) for uri in sets})]
    gone += [
        f"exports/{model}/inputs/{name}" for name, version in sorted(holdings.inputs.items()) if version not in versions
    ]
    gone += [f"exports/{model}/{version}" for version in sorted(holdings.exports - versions)]
    gone += sorted({f"sources/{model}/{name}" for name in holdings.sources} - sources)
    return Prune(
        records=tuple(record for record in records if record["run_id"] not in ids),
        keys=tuple(gone),
        digests=frozenset(record["digest"] for record in staying if record["digest"]),
    )


def _set_of(record: Record) -> str | None:
    """The URI of the labelled set that a record's release was asked; a record of an earlier Slipway names none."""
    quality = (record["release"].get("gate") or {}).get("quality")
    return str(quality["uri"]) if quality else None


def _protected(records: list[Record], retention: Retention) -> list[Record]:
    """At each target: the newest proven releases, by the newest record of each, and what was applied last."""
    applied = History(tuple(record for record in records if has_changed_cluster(record)))
    staying: dict[str, Record] = {}
    for place in {place_of(record) for record in applied.records}:
        history = applied.at(*place)
        for record in (*history.proven()[: retention.releases], *history.records[-1:]):
            staying[record["run_id"]] = record
    return list(staying.values())


def _judged(records: list[Record]) -> list[list[Record]]:
    """For each release, told from others as `find_bad` does, the records of the runs that judged it; the last one counts."""
    releases: dict[str, list[Record]] = {}
    for record in filter(is_judged, records):
        releases.setdefault(digest_of(identity_of(record["release"])), []).append(record)
    return list(releases.values())


def _is_harmless(record: Record, releases: Iterable[str]) -> bool:
    """Whether a record may stay for people to read: one of a proven release would offer it to come back."""
    return record["outcome"] in {"failed", "open", "proven", "gone"} or (
        record["outcome"] == "live" and record["release_id"] in releases
    )


def _versions(staying: list[Record], holdings: Holdings, retention: Retention) -> set[int]:
    """The exports that stay: those of the staying releases, and the newest, whose runs may be cleared and go on."""
    used = {record["version"] for record in staying if record["version"] is not None}
    return used | set(sorted(holdings.exports)[-retention.releases :])


def prune(release: Release, *, images: frozenset[str] = frozenset()) -> Pruned:
    """Prune what goes beyond the release's retention; `images` are those of the run at hand, by id or digest (sha256:…).

    Each part is tried, whatever became of the others. Raises StoreError, RetentionIncomplete naming what stays and why.
    """
    store = Store(release.store)
    found = read_records(store, release.model)
    if found.unread:  # what they tell of can come back again when they are mended
        raise RetentionIncomplete(
            f"{'; '.join(found.unread)}. Next: mend it or move it away, the next run prunes again"
        )
    records = list(found.records)
    run = next((record for record in records if record["run_id"] == release.run_id), None)
    plan = plan_prune(records, read_holdings(store, release.model), release.retention, model=release.model, run=run)
    for record in plan.records:
        if record["outcome"] != "retired":
            write_record(store, {**record, "outcome": "retired"})
    stays: list[str] = []
    keep = plan.digests | images
    removed = _tried(stays, lambda: _prune_engine(release, keep))
    deleted = _tried(stays, lambda: _prune_registry(release, plan.records, keep)) if release.retention.registry else 0
    for key in plan.keys:
        log.info("prune: %s", store.uri_of(key))
        store.remove(key)
    if stays:
        raise RetentionIncomplete(f"{'; '.join(stays)}. Next: mend that, the next run prunes again")
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
        quality=frozenset(store.names(f"quality/{model}")),
    )


def _prune_engine(release: Release, keep: frozenset[str]) -> int:
    with engine(release) as client:
        removed = remove_images(client, release, keep=keep)
    for image in removed:
        log.info("prune: image %s on the engine", image)
    return len(removed)


def _prune_registry(release: Release, records: tuple[Record, ...], keep: frozenset[str]) -> int:
    """Delete images from where the release goes, and from where those of the records went.

    An image whose tag another one took over is known from its record alone.
    """
    places = {release.repository: release.registry_conn_id}
    recorded: dict[str, set[str]] = {release.repository: set()}
    for record in records:
        if record["pushed"]:
            repository = repository_of(record["pushed"]["reference"])
            places.setdefault(repository, record["release"]["registry_conn_id"])
            recorded.setdefault(repository, set()).add(record["digest"])
    return sum(_prune_repository(release, place, conn, recorded[place], keep) for place, conn in places.items())


def _prune_repository(
    release: Release, repository: str, registry_conn_id: str | None, recorded: set[str], keep: frozenset[str]
) -> int:
    with repository_at(repository, registry_conn_id) as found:
        gone: dict[str, tuple[str, ...]] = dict.fromkeys(recorded - keep, ())
        for image in found.tagged(without=keep):
            ours = (
                image.labels.get(IMAGE_LABEL_TITLE) == release.model
                and image.labels.get(IMAGE_LABEL_STORE) == release.store_id
            )
            if ours or image.digest in gone:
                gone[image.digest] = (*gone.get(image.digest, ()), image.tag)
        for digest, tags in sorted(gone.items()):
            if not found.delete(digest, tags):
                log.warning("prune: the registry deletes nothing: %d old images stay in %s", len(gone), repository)
                return 0
            log.info("prune: %s@%s %s", repository, digest, " ".join(tags))
    return len(gone)


def _tried(stays: list[str], part: Callable[[], int]) -> int:
    try:
        return part()
    except SlipwayError as error:
        stays.append(str(error).split(". Next:")[0])
        return 0


def _name(uri: str) -> str:
    return uri.rstrip("/").rsplit("/", 1)[-1]
