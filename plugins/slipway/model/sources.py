"""A source on its way to the exporter: from the store where this revision is kept, else from upstream.

Revisions vanish upstream. What an export took from there stays in the store under its revision, and every later export
of that revision reads the copy. A checkpoint beside its model file is in the checkout already, and is not kept.
"""

from __future__ import annotations

import logging
from pathlib import Path

from slipway.errors import ExportError
from slipway.model.bucket import fetch_objects
from slipway.model.content import content_hash, pack, unpack
from slipway.names import short
from slipway.paths import SERVED
from slipway.records.store import Store, fetch
from slipway.release import Release, Source

log = logging.getLogger(__name__)


def bring_source(release: Release, store: Store, scratch: Path) -> dict[str, str]:
    """The exporter's request for the source, with what the store keeps of it brought to this worker.

    Raises ExportError, StoreError.
    """
    source, place = release.source, kept_place(release.source, scratch)
    if source.kind == "folder":
        return _folder_request(source, SERVED / source.location, f"include/served/{source.location}")
    key = source.kept_key(release.model)
    if store.exists(key):
        log.info("export: the source is kept in the store: %s", store.uri_of(key))
        _unkeep(source, store.uri_of(key), place)
    elif source.kind == "objects":
        fetch_objects(source.location, place)
    if source.kind == "objects":
        return _folder_request(source, place, source.location)
    if source.kind == "hub":
        return {"kind": "hub", "repo": source.location, "revision": source.revision, "kept": str(place)}
    sha256 = source.revision.removeprefix("sha256:")
    return {"kind": "savedmodel", "url": source.location, "sha256": sha256, "kept": str(place)}


def keep_source(release: Release, store: Store, scratch: Path) -> None:
    """Put what came from upstream into the store, unless it is there. Raises StoreError."""
    source, place = release.source, kept_place(release.source, scratch)
    key = source.kept_key(release.model)
    if source.kind == "folder" or store.exists(key):
        return
    packed = place if source.kind == "savedmodel" else pack(place, scratch / "source.tar")
    log.info("export: the source is kept as %s", store.put_file(packed, key))


def kept_place(source: Source, scratch: Path) -> Path:
    """Where a worker has a source in its hands: a folder, or an archive as a file."""
    return scratch / ("source.tar.gz" if source.kind == "savedmodel" else "source")


def _unkeep(source: Source, uri: str, place: Path) -> None:
    if source.kind == "savedmodel":
        fetch(uri, place)
        return
    packed = fetch(uri, place.with_name("kept.tar"))
    unpack(packed, place)
    packed.unlink()


def _folder_request(source: Source, folder: Path, shown: str) -> dict[str, str]:
    found = content_hash(folder)
    if found != source.revision:
        raise ExportError(
            f"{shown}: its content is {short(found)} on this worker, the run resolved {short(source.revision)}. "
            "Next: give every worker the same files, then clear the run from resolve"
        )
    return {"kind": "folder", "path": str(folder)}
