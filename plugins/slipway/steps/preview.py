"""The preview: a release runs next to the live one first, where no user's request reaches it; then it is deleted.

The same code renders it, and its pods differ from the live ones only in names and labels: `apply` deploys what passed the
gate. It exists while it is tested. Its pods are deleted before the live ones are replaced, so that a release needs no more
capacity than a rolling update.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from shlex import quote

from slipway.errors import ManifestError
from slipway.facts import Export, ObjectRef, Plan, Previewed, Pushed
from slipway.kubernetes.apply import Check, apply_plan, object_ref_of, plan_apply, remove_objects
from slipway.kubernetes.identity import identify_cluster
from slipway.kubernetes.kustomize import build_manifests
from slipway.kubernetes.manifests import (
    BLANK_IMAGE,
    BLANK_RELEASE_ID,
    BLANK_VERSION,
    Manifest,
    check_manifests,
    fill_manifests,
    manifest_name,
)
from slipway.kubernetes.rendered import live_manifests, read_preview
from slipway.names import PREVIEW_SUFFIX, preview_name
from slipway.records.history import History, place_of_record, preview_objects_of_record, records_with_previews
from slipway.records.record import Cause, Record, begin_record, record_with_preview, write_record
from slipway.records.store import Store
from slipway.release import Release

# What pods may need. Other kinds of an overlay scale, protect or expose the live pods: a preview has none of them.
NEEDED = frozenset({"ServiceAccount", "Secret", "ConfigMap", "PersistentVolumeClaim", "Role", "RoleBinding"})
PORT_FIELDS = ("name", "port", "targetPort", "protocol", "appProtocol")

log = logging.getLogger(__name__)


def render_preview(release: Release, live: list[Manifest]) -> list[Manifest]:
    """The blank objects of a release's preview, in the order in which they are applied; `live` are those of the release.

    Raises ManifestError as `render_manifests` does, and if a selector of the live release matches the preview's pods.
    """
    objects = plan_preview(
        build_manifests(
            release,
            reference=BLANK_IMAGE,
            version=BLANK_VERSION,
            release_id=preview_name(BLANK_RELEASE_ID),
            suffix=PREVIEW_SUFFIX,
        ),
        release.preview,
    )
    check_manifests(objects, release.preview, reference=BLANK_IMAGE)
    check_preview_apart(objects, live, release)
    return objects


def preview_manifests(release: Release, pushed: Pushed) -> list[Manifest]:
    """The checked objects of a release's preview with this image, as `resolve` rendered them.

    Raises StoreError, and ManifestError as `render_preview` does.
    """
    reference, version, release_id = pushed.reference, pushed.version, pushed.release_id
    live = live_manifests(release, reference=reference, version=version, release_id=release_id)
    blank = read_preview(release, lambda: render_preview(release, live))
    objects = fill_manifests(blank, release, reference=reference, version=version, release_id=release_id, preview=True)
    check_manifests(objects, release.preview, reference=reference)
    check_preview_apart(objects, live, release)
    return objects


def plan_preview(objects: list[Manifest], preview: Release) -> list[Manifest]:
    """The objects of an overlay that its pods need, and a Service that can be reached only inside the cluster."""
    kept = []
    for manifest in objects:
        is_named = manifest["metadata"]["name"] == preview.deployment
        if manifest["kind"] in NEEDED or (manifest["kind"] == "Deployment" and is_named):
            kept.append(manifest)
        elif manifest["kind"] == "Service" and is_named:
            kept.append(_cluster_ip(manifest))
    return kept


def _cluster_ip(service: Manifest) -> Manifest:
    """The Service with its ports, as type ClusterIP: without anything that requests a load balancer."""
    ports = [{field: port[field] for field in PORT_FIELDS if field in port} for port in service["spec"]["ports"]]
    metadata = {name: value for name, value in service["metadata"].items() if name != "annotations"}
    spec = {"type": "ClusterIP", "selector": service["spec"]["selector"], "ports": ports}
    return {"apiVersion": service["apiVersion"], "kind": service["kind"], "metadata": metadata, "spec": spec}


def check_preview_apart(objects: list[Manifest], live: list[Manifest], release: Release) -> None:
    """Refuse a preview if a live object selects its pods. Raises ManifestError naming the object."""
    (labels,) = [
        one["spec"]["template"]["metadata"]["labels"].items() for one in objects if one["kind"] == "Deployment"
    ]
    for manifest, selector in _selectors(live):
        if selector.items() <= labels:
            raise ManifestError(
                f"overlay {release.overlay}: {manifest_name(manifest)} selects pods by {selector or 'nothing'}, which matches the preview's pods. "
                "Next: select by the label app too, as the base does, or set target.strategy to rolling"
            )


def _selectors(live: list[Manifest]) -> Iterator[tuple[Manifest, dict[str, str]]]:
    """The objects that select pods (Services, Deployments, budgets, …), with the labels that they select by."""
    for manifest in live:
        selector = (manifest.get("spec") or {}).get("selector")
        if manifest["kind"] == "Service" and selector:
            yield manifest, selector
        elif manifest["kind"] != "Service" and isinstance(selector, dict):
            yield manifest, selector.get("matchLabels") or {}


def why_no_preview(release: Release, plan: Plan, history: History) -> str | None:
    """Why a release is applied without a preview; None if it gets one.

    A release that was proven live is known to be good; if somebody deleted it, users wait for it to be applied again.
    """
    if release.strategy == "rolling":
        return "the model file's target.strategy is rolling"
    if plan.action == "restore":
        return "a release that was proven live is restored unchanged"
    proven = {record["release_id"] for record in history.proven()}
    if plan.action == "manifests" and plan.pushed is not None and plan.pushed.release_id in proven:
        return f"release {plan.pushed.release_id} was proven live before, and is only applied again"
    return None


def start_preview(release: Release, export: Export, pushed: Pushed, *, check: Check) -> Previewed:
    """Run the release next to the live one; `check` is called before the first write.

    The run's record lists the objects before the first one is written, so that a later run removes what a killed run left.
    Raises ManifestError, ApplyError, StoreError.
    """
    release = replace(release, target=identify_cluster(release.target))
    objects = preview_manifests(release, pushed)
    return apply_beside(release, PREVIEW_SUFFIX, objects, export=export, pushed=pushed, cause="refresh", check=check)


def apply_beside(
    release: Release,
    suffix: str,
    objects: list[Manifest],
    *,
    export: Export,
    pushed: Pushed,
    cause: Cause,
    check: Check,
) -> Previewed:
    """Apply the objects of a preview whose names end in `suffix`, after the run's record lists them.

    Raises ApplyError, StoreError.
    """
    store, refs = Store(release.store), tuple(map(object_ref_of, objects))
    record = begin_record(store, release, cause=cause)
    write_record(store, record_with_preview(record, export=export, pushed=pushed, objects=refs))
    uid, generation = apply_plan(release.beside(suffix), plan_apply(objects, ()), check=check)
    return Previewed(
        release_id=f"{pushed.release_id}{suffix}",
        reference=pushed.reference,
        version=pushed.version,
        objects=refs,
        uid=uid,
        generation=generation,
    )


def remove_previews(release: Release, records: Sequence[Record]) -> tuple[ObjectRef, ...]:
    """Delete every preview that the model's records list at the release's target: this run's, and those of killed runs.

    Returns what was deleted. A preview at a target that the model no longer uses is only named in the log.
    Raises ApplyError, StoreError.
    """
    removed: list[ObjectRef] = []
    here = records_with_previews(records, release.target)
    for record in filter(preview_objects_of_record, records):
        if record not in here:
            log.warning(
                "preview: run %s left objects at an earlier target. Next: %s",
                record["run_id"],
                _deletion(record),
            )
    for record in here:
        refs = preview_objects_of_record(record)
        remove_objects(release.target, release.model, refs)
        write_record(Store(release.store), record_with_preview(record, objects=()))
        removed += refs
        log.info("preview: removed %s of run %s", ", ".join(map(str, refs)), record["run_id"])
    return tuple(removed)


def _deletion(record: Record) -> str:
    return place_of_record(record)[0].kubectl(
        f"delete {' '.join(quote(str(ref)) for ref in reversed(preview_objects_of_record(record)))}"
    )
