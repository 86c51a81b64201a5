"""The manifests of a release as `resolve` rendered them: stored in the artifact store, and checked at each read.

The store has hashes in place of the values of Secrets; the worker's overlay has the values. The manifests are blank: image,
version and release id are filled in when they are known. So every task, on any worker, previews and applies the same
manifests, even if that worker has another overlay or kubectl.

Another Airflow that shares the store may prune them while the run goes on. Then they are rendered again, and must be the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from slipway.errors import ManifestError, StoreError
from slipway.kubernetes.kustomize import render_manifests
from slipway.kubernetes.manifests import Manifest, check_manifests, fill_manifests, manifest_name
from slipway.kubernetes.secrets import fill_secrets, has_hashes, hash_secrets
from slipway.names import digest_of, rendered_key
from slipway.records.store import Store
from slipway.release import Release


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The blank objects of a release, in the order in which they are applied; and of its preview, if it has one."""

    live: list[Manifest]
    preview: list[Manifest] | None


def keep_rendered(release: Release, rendered: Rendered) -> Release:
    """The release with the hashes of its rendered manifests, which are now in the store. Raises StoreError."""
    value = _stored(rendered)
    digest = digest_of(value)
    store, key = Store(release.store), rendered_key(release.model, digest)
    if not _holds(store, key, digest):  # a run with nothing to do writes nothing
        store.put_json(value, key)
    return replace(release, manifests_hash=digest_of(value["live"]), rendered_hash=digest)


def _stored(rendered: Rendered) -> dict[str, list[Manifest] | None]:
    """The value that the store keeps: without the values of Secrets."""
    return {"live": hash_secrets(rendered.live), "preview": rendered.preview and hash_secrets(rendered.preview)}


def _holds(store: Store, key: str, digest: str) -> bool:
    """Whether the store has a value with this digest there."""
    try:
        return store.exists(key) and digest_of(store.read_json(key)) == digest
    except StoreError:
        return False


def find_rendered(release: Release) -> Rendered | None:
    """What `resolve` rendered; None if the store does not have it. Raises StoreError, also if it has changed."""
    if release.rendered_hash is None:
        return None
    store, key = Store(release.store), rendered_key(release.model, release.rendered_hash)
    try:
        value = store.read_json(key)
    except StoreError:
        if store.exists(key):
            raise
        return None
    if digest_of(value) != release.rendered_hash:
        raise StoreError(
            f"{store.uri_of(key)}: is not what resolve rendered: its hash is {digest_of(value)}. "
            "Next: clear the run from its first task"
        )
    return Rendered(live=value["live"], preview=value["preview"])


def read_live(release: Release) -> list[Manifest]:
    """The blank objects of the release alone, rendered again if the store does not have them: a run that only plans stores none.

    Raises StoreError, and ManifestError if they have changed.
    """
    if kept := find_rendered(release):
        return with_secrets(kept.live, lambda: render_manifests(release))
    live = render_manifests(release)
    if digest_of(hash_secrets(live)) != release.manifests_hash:
        raise _changed(release)
    return live


def read_preview(release: Release, render: Callable[[], list[Manifest]]) -> list[Manifest]:
    """The blank objects of the release's preview; `render` renders them again if the store does not have them.

    Raises StoreError, and ManifestError if they have changed or `resolve` rendered no preview.
    """
    if kept := find_rendered(release):
        if kept.preview is None:
            raise ManifestError(
                f"model {release.model}: resolve rendered no preview. Next: clear the run from its first task"
            )
        return with_secrets(kept.preview, render)
    preview = render()
    again = Rendered(live=render_manifests(release), preview=preview)
    if digest_of(_stored(again)) != release.rendered_hash:
        raise _changed(release)
    return preview


def _changed(release: Release) -> ManifestError:
    return ManifestError(
        f"model {release.model}: the overlay here is not the one that resolve rendered in run {release.run_id}. "
        "Next: clear the run from its first task"
    )


def with_secrets(objects: list[Manifest], render: Callable[[], list[Manifest]]) -> list[Manifest]:
    """The objects with the values of Secrets as this worker renders them; the store has only their hashes.

    Raises ManifestError if they are not those that `resolve` rendered.
    """
    if not any(map(has_hashes, objects)):
        return objects
    filled = fill_secrets(objects, render())
    for manifest in filter(has_hashes, filled):
        raise ManifestError(
            f"{manifest_name(manifest)}: this worker's overlay has other values than resolve rendered. "
            "Next: bring the overlay to all workers, then clear the run from its first task"
        )
    return filled


def live_manifests(release: Release, *, reference: str, version: int, release_id: str) -> list[Manifest]:
    """The checked objects of a release with this image, as `resolve` rendered them. Raises ManifestError, StoreError."""
    blank = read_live(release)
    objects = fill_manifests(blank, release, reference=reference, version=version, release_id=release_id)
    check_manifests(objects, release, reference=reference)
    return objects
