"""Deploys a release, or a recorded one again. Every apply of a live release goes through here."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from shlex import quote

import yaml

from slipway.errors import ManifestError, StoreError
from slipway.facts import Applied, Export, ObjectRef, Pushed, to_dict
from slipway.kubernetes.apply import (
    Check,
    apply_plan,
    object_exists,
    object_ref_of,
    plan_apply,
    plan_outdated,
    read_objects,
    remove_objects,
)
from slipway.kubernetes.identity import identify_cluster
from slipway.kubernetes.kustomize import render_manifests
from slipway.kubernetes.manifests import Manifest, manifest_name, manifests_to_yaml
from slipway.kubernetes.rendered import live_manifests
from slipway.kubernetes.secrets import fill_secrets, has_hashes, hash_secrets
from slipway.names import manifests_key
from slipway.records.history import History, read_records
from slipway.records.record import (
    Cause,
    begin_record,
    keep_live,
    next_order,
    opened_record,
    read_record,
    utc_now,
    write_record,
)
from slipway.records.store import Store, read_bytes
from slipway.release import Release
from slipway.scratch import scratch_folder
from slipway.steps.preview import remove_previews

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A release's objects as they are applied, and where the store keeps them."""

    objects: tuple[Manifest, ...]
    uri: str
    hash: str  # sha256:… of the YAML


def deploy(release: Release, export: Export, pushed: Pushed, *, check: Check) -> Applied:
    """Apply the manifests that `resolve` rendered, with this image; `check` is called before the first write.

    Raises ManifestError, ApplyError, StoreError.
    """
    objects = live_manifests(release, reference=pushed.reference, version=pushed.version, release_id=pushed.release_id)
    return _record_and_apply(
        release, export, pushed, store_manifests(release, pushed, objects), cause="refresh", check=check
    )


def redeploy(
    release: Release,
    export: Export,
    pushed: Pushed,
    *,
    manifests_uri: str,
    manifests_hash: str | None,
    check: Check,
) -> Applied:
    """Apply a recorded release again, with its stored manifests. Raises ApplyError, StoreError.

    `manifests_hash` is that of the stored text, sha256:…; None if a plan of an earlier Slipway does not say it.
    """
    stored = read_manifests(manifests_uri, manifests_hash)
    stored = replace(stored, objects=tuple(find_secrets(release, pushed, list(stored.objects))))
    return _record_and_apply(release, export, pushed, stored, cause="rollback", check=check)


def store_manifests(release: Release, pushed: Pushed, objects: list[Manifest]) -> Stored:
    """Store the manifests that are about to be applied, with hashes in place of the values of Secrets. Raises StoreError."""
    text = manifests_to_yaml(hash_secrets(objects))
    digest = _hash_of(text.encode())
    with scratch_folder("manifests") as scratch:
        draft = scratch / "manifests.yaml"
        draft.write_text(text, encoding="utf-8")
        uri = Store(release.store).put_file(draft, manifests_key(release.model, pushed.release_id, digest))
    return Stored(objects=tuple(objects), uri=uri, hash=digest)


def read_manifests(uri: str, digest: str | None) -> Stored:
    """Manifests as they were applied. Raises StoreError, also if their text has changed."""
    data = read_bytes(uri)
    found = _hash_of(data)
    if digest is not None and found != digest:
        raise StoreError(
            f"{uri}: is not what was applied: its hash is {found}, the record says {digest}. "
            "Next: restore the file from a backup, or roll back to another release"
        )
    return Stored(objects=tuple(yaml.safe_load_all(data)), uri=uri, hash=found)


def _hash_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def find_secrets(release: Release, pushed: Pushed, stored: list[Manifest]) -> list[Manifest]:
    """The stored objects of a release with the values of its Secrets: those in the cluster, else those of this worker's overlay.

    A Secret with other hashes stays hashed, and apply does not change it: the gate says whether the release works with it.
    Raises ApplyError.
    """
    hashed = tuple(object_ref_of(manifest) for manifest in stored if has_hashes(manifest))
    if not hashed:
        return stored
    objects = fill_secrets(stored, read_objects(release.target, hashed))
    if any(map(has_hashes, objects)):
        objects = fill_secrets(objects, _render_again(release, pushed))
    for manifest in filter(has_hashes, objects):
        name = manifest_name(manifest)
        log.warning(
            "apply: %s: release %s had other values, which neither the cluster nor this worker's overlay has: it is left as it is. "
            "Next: if the release needs them, %s",
            name,
            pushed.release_id,
            release.target.kubectl(f"edit {quote(name)}"),
        )
    return objects


def _render_again(release: Release, pushed: Pushed) -> list[Manifest]:
    """What this worker's overlay renders for a recorded release; nothing if the overlay can no longer be rendered for it."""
    try:
        return render_manifests(release)
    except ManifestError as error:
        log.warning("apply: the overlay cannot be rendered for release %s: %s", pushed.release_id, error)
        return []


def _record_and_apply(
    release: Release, export: Export, pushed: Pushed, stored: Stored, *, cause: Cause, check: Check
) -> Applied:
    """Remove the preview, open the record, then write to the cluster.

    The record also lists outdated objects until they are deleted, so a later run knows everything that a killed run left.
    """
    release = replace(release, target=identify_cluster(release.target))
    store = Store(release.store)
    records = read_records(store, release.model)
    check()
    remove_previews(release, records.records)
    history = records.history.at(release.target, release.deployment)
    plan = plan_apply(list(stored.objects), history.objects)
    refs = tuple(object_ref_of(manifest) for manifest in stored.objects)
    deployments = [ref for ref in refs if ref.kind == "Deployment"]
    begun = begin_record(store, release, cause=cause, recorded=records.last_order)
    keep_live(store, begun)
    record = opened_record(
        begun,
        release=release,
        export=export,
        pushed=pushed,
        manifests={"uri": stored.uri, "hash": stored.hash},
        objects=[*refs, *plan.prune],
        now=utc_now(),
        order=next_order(store, release.model, recorded=records.last_order),
        found=history.newest is None and any(object_exists(release.target, ref) for ref in deployments),
    )
    write_record(store, record)
    uid, generation = apply_plan(release, plan, check=check)
    if not generation:
        raise StoreError(
            f"{stored.uri}: contains no Deployment {release.deployment}. Next: roll back to another release"
        )
    return Applied(
        release_id=pushed.release_id,
        reference=pushed.reference,
        version=pushed.version,
        manifests_uri=stored.uri,
        manifests_hash=stored.hash,
        objects=refs,
        uid=uid,
        generation=generation,
    )


def find_outdated(release: Release, applied: Applied) -> tuple[ObjectRef, ...]:
    """What the run's record lists besides the objects that it applied. Raises StoreError."""
    record = read_record(Store(release.store), release.model, release.run_id)
    return plan_outdated(History((record,)).objects, applied.objects) if record else ()


def remove_outdated(release: Release, outdated: tuple[ObjectRef, ...]) -> tuple[ObjectRef, ...]:
    """Delete these of the objects that `find_outdated` found; the run's record no longer lists them. The caller holds the Lease.

    Only objects that have the model's label are deleted. Returns them. Raises ApplyError, StoreError.
    """
    if not outdated:
        return ()
    kept, store = remove_objects(release.target, release.model, outdated), Store(release.store)
    if record := read_record(store, release.model, release.run_id):
        gone = [to_dict(ref) for ref in outdated]
        write_record(store, {**record, "objects": [one for one in record["objects"] if one not in gone]})
    return tuple(ref for ref in outdated if ref not in kept)
