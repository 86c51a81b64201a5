"""Fetches a source for the exporter: from the store, or from upstream if the store has no copy of this revision.

Revisions can vanish upstream. An export therefore keeps a copy of its source in the store, and every later export of that
revision reads the copy. A checkpoint folder next to its model file is in the checkout already: no copy is kept.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from slipway.errors import ExportError
from slipway.model.bucket import fetch_from_bucket
from slipway.model.content import content_hash, pack_folder, unpack_folder
from slipway.model.full_urls import full_url
from slipway.names import short
from slipway.paths import served_folder, shown
from slipway.records.store import Store, fetch_from_store
from slipway.release import Release, Source

log = logging.getLogger(__name__)


def fetch_source(release: Release, store: Store, scratch: Path) -> dict[str, Any]:
    """The `source` part of the exporter's request. Fetches the store's copy, or a folder in a bucket, to this worker.

    Hub models and archives without a copy are fetched by the exporter's fetch.py. Raises ExportError, StoreError.
    """
    source, place = release.source, local_copy(release.source, scratch)
    if source.kind == "folder":
        folder = served_folder() / source.location
        return _folder_request(source, folder, shown(folder))
    key = source.kept_key(release.model)
    if store.exists(key):
        log.info("export: using the store's copy of the source: %s", store.uri_of(key))
        _fetch_copy(source, store.uri_of(key), place)
    elif source.kind == "objects":
        fetch_from_bucket(source.location, place)
    if source.kind == "objects":
        return _folder_request(source, place, source.location)
    if source.kind == "hub":
        allow = list(source.allow)
        return {
            "kind": "hub", "repo": source.location, "revision": source.revision, "kept": str(place), "allow": allow,
        }  # fmt: skip
    sha256 = source.revision.removeprefix("sha256:")
    url = full_url(release.model, source.location, sha256)
    return {"kind": "savedmodel", "url": url, "sha256": sha256, "kept": str(place)}


def keep_source(release: Release, store: Store, scratch: Path) -> None:
    """Put a copy of a source from upstream into the store, unless the store has one. Raises StoreError."""
    source, place = release.source, local_copy(release.source, scratch)
    key = source.kept_key(release.model)
    if source.kind == "folder" or store.exists(key):
        return
    packed = place if source.kind == "savedmodel" else pack_folder(place, scratch / "source.tar")
    log.info("export: kept a copy of the source: %s", store.put_file(packed, key))


def local_copy(source: Source, scratch: Path) -> Path:
    """The path of a source on this worker: a folder, or the file of an archive."""
    return scratch / ("source.tar.gz" if source.kind == "savedmodel" else "source")


def _fetch_copy(source: Source, uri: str, place: Path) -> None:
    if source.kind == "savedmodel":
        fetch_from_store(uri, place)
        return
    packed = fetch_from_store(uri, place.with_name("kept.tar"))
    unpack_folder(packed, place)
    packed.unlink()


def _folder_request(source: Source, folder: Path, shown: str) -> dict[str, Any]:
    found = content_hash(folder)
    if found != source.revision:
        raise ExportError(
            f"{shown}: its content is {short(found)} on this worker, but {short(source.revision)} when the run was resolved. "
            "Next: give every worker the same files, then clear the run from resolve"
        )
    return {"kind": "folder", "path": str(folder), "allow": list(source.allow)}
