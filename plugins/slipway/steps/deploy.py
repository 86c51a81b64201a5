"""Deploys a release, or a recorded one again. Every apply of a live release goes through here."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

import yaml

from slipway.errors import StoreError
from slipway.facts import Applied, Export, Pushed
from slipway.kubernetes.apply import Check, apply_plan, object_exists, object_ref_of, plan_apply
from slipway.kubernetes.kustomize import render_manifests
from slipway.kubernetes.manifests import Manifest, manifests_to_yaml
from slipway.records.history import read_records
from slipway.records.record import Cause, begin_record, keep_live, next_order, opened_record, utc_now, write_record
from slipway.records.store import Store, read_bytes
from slipway.release import Release
from slipway.scratch import scratch_folder
from slipway.steps.preview import remove_previews

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A release's objects, and their URI in the store."""

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
    rendered = Rendered(
        objects=tuple(yaml.safe_load_all(data)), uri=manifests_uri, hash=f"sha256:{hashlib.sha256(data).hexdigest()}"
    )
    return _record_and_apply(release, export, pushed, rendered, cause="rollback", check=check)


def store_manifests(release: Release, pushed: Pushed, objects: list[Manifest]) -> Rendered:
    """Store rendered manifests. Raises StoreError."""
    text = manifests_to_yaml(objects)
    with scratch_folder("manifests") as scratch:
        draft = scratch / "manifests.yaml"
        draft.write_text(text, encoding="utf-8")
        uri = Store(release.store).put_file(draft, f"manifests/{release.model}/{pushed.release_id}.yaml")
    return Rendered(objects=tuple(objects), uri=uri, hash=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}")


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
        order=next_order(store, release.model),
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
