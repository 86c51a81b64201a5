"""Deploys a release, or a recorded one again. Every apply of a live release goes through here."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

import yaml

from slipway.errors import ManifestError, StoreError
from slipway.facts import Applied, Export, Pushed
from slipway.kubernetes.apply import Check, apply_plan, object_exists, object_ref_of, plan_apply, read_objects
from slipway.kubernetes.kustomize import render_manifests
from slipway.kubernetes.manifests import Manifest, manifest_name, manifests_to_yaml
from slipway.kubernetes.secrets import fill_secrets, has_hashes, hash_secrets
from slipway.records.history import read_records
from slipway.records.record import Cause, begin_record, keep_live, opened_record, utc_now, write_record
from slipway.records.store import Store, read_bytes
from slipway.release import Release
from slipway.scratch import scratch_folder
from slipway.steps.preview import remove_previews

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A release's objects, and the URI of what the store has of them."""

    objects: tuple[Manifest, ...]
    uri: str
    hash: str  # sha256:… of the YAML


def deploy(release: Release, export: Export, pushed: Pushed, *, check: Check) -> Applied:
    """Apply the release's manifests with this image; `check` is called before the first write.

    Raises ManifestError, ApplyError, StoreError.
    """
    objects = render_manifests(
        release, reference=pushed.reference, version=pushed.version, release_id=pushed.release_id
    )
    return _record_and_apply(
        release, export, pushed, store_manifests(release, pushed, objects), cause="refresh", check=check
    )


def redeploy(release: Release, export: Export, pushed: Pushed, manifests_uri: str, *, check: Check) -> Applied:
    """Apply a recorded release again, with its stored manifests. Raises ApplyError, StoreError."""
    data = read_bytes(manifests_uri)
    objects = find_secrets(release, pushed, list(yaml.safe_load_all(data)))
    rendered = Rendered(objects=tuple(objects), uri=manifests_uri, hash=f"sha256:{hashlib.sha256(data).hexdigest()}")
    return _record_and_apply(release, export, pushed, rendered, cause="rollback", check=check)


def store_manifests(release: Release, pushed: Pushed, objects: list[Manifest]) -> Rendered:
    """Store rendered manifests, with hashes in place of the values of Secrets. Raises StoreError."""
    text = manifests_to_yaml(hash_secrets(objects))
    with scratch_folder("manifests") as scratch:
        draft = scratch / "manifests.yaml"
        draft.write_text(text, encoding="utf-8")
        uri = Store(release.store).put_file(draft, f"manifests/{release.model}/{pushed.release_id}.yaml")
    return Rendered(objects=tuple(objects), uri=uri, hash=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}")


def find_secrets(release: Release, pushed: Pushed, stored: list[Manifest]) -> list[Manifest]:
    """The stored objects of a release with the values of its Secrets: those in the cluster, else those of this worker's overlay.

    What has other hashes there stays hashed, and an apply leaves that Secret as it is: the gate says whether the release works
    with it. Raises ApplyError.
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
            release.target.kubectl(f"edit {name}"),
        )
    return objects


def _render_again(release: Release, pushed: Pushed) -> list[Manifest]:
    """What this worker's overlay renders for a recorded release; nothing if that release's overlay has changed too much."""
    try:
        return render_manifests(
            release, reference=pushed.reference, version=pushed.version, release_id=pushed.release_id
        )
    except ManifestError as error:
        log.warning("apply: the overlay cannot be rendered for release %s: %s", pushed.release_id, error)
        return []


def _record_and_apply(
    release: Release, export: Export, pushed: Pushed, rendered: Rendered, *, cause: Cause, check: Check
) -> Applied:
    """Remove the preview, open the record, then write to the cluster.

    The record lists the objects to prune until they are deleted: so a later run knows everything that a killed run left.
    """
    store = Store(release.store)
    records = read_records(store, release.model)
    check()
    remove_previews(release, records.records)
    history = records.history.at(release.target, release.deployment)
    plan = plan_apply(list(rendered.objects), history.objects)
    refs = tuple(object_ref_of(manifest) for manifest in rendered.objects)
    deployments = [ref for ref in refs if ref.kind == "Deployment"]
    begun = begin_record(store, release, cause=cause)
    keep_live(store, begun)
    record = opened_record(
        begun,
        release=release,
        export=export,
        pushed=pushed,
        manifests={"uri": rendered.uri, "hash": rendered.hash},
        objects=[*refs, *plan.prune],
        now=utc_now(),
        found=history.newest is None and any(object_exists(release.target, ref) for ref in deployments),
    )
    write_record(store, record)
    uid, generation = apply_plan(release, plan, check=check)
    if plan.prune:
        write_record(store, {**record, "objects": record["objects"][: len(refs)]})
    if not generation:
        raise StoreError(
            f"{rendered.uri}: contains no Deployment {release.deployment}. Next: roll back to another release"
        )
    return Applied(
        release_id=pushed.release_id,
        reference=pushed.reference,
        version=pushed.version,
        manifests_uri=rendered.uri,
        manifests_hash=rendered.hash,
        objects=refs,
        pruned=plan.prune,
        uid=uid,
        generation=generation,
    )
