"""The manifests: kustomize renders `include/manifests` for one release; what comes out is checked before it is used."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from slipway.errors import ManifestError
from slipway.names import PREVIEW_SUFFIX, digest_of, preview_name
from slipway.paths import PROJECT
from slipway.release import Release
from slipway.scratch import scratch_folder
from slipway.serving.batching import batches_requests, largest_batch

MANIFESTS = PROJECT / "include" / "manifests"
BASE_NAME = "tfs-server"  # what the base calls its objects; the model file may rename them
BASE_IMAGE = "tensorflow/serving"
BLANK_IMAGE = f"{BASE_IMAGE}@sha256:{'0' * 64}"  # of a release before it has one
CONTAINER = "tfs-k8s"
PROBES = ("startupProbe", "readinessProbe")
KUBECTL = "kubectl"  # on every worker: a package in requirements.in brings it
RENDER_TIMEOUT_S = 60

# Applied in this order, deleted in reverse: what others need comes first, the Deployment last of what it mounts.
KIND_ORDER = (
    "Namespace", "ServiceAccount", "Secret", "ConfigMap", "PersistentVolumeClaim", "Role", "RoleBinding", "NetworkPolicy",
    "Service", "PodDisruptionBudget", "Deployment", "HorizontalPodAutoscaler",
)  # fmt: skip

Manifest = dict[str, Any]


class QuotingDumper(yaml.SafeDumper):
    """Quotes what kubectl would read as a number and PyYAML would not: one release id in three hundred looks like 12e456789012."""


QuotingDumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def render_kustomization(
    release: Release, *, resources: str, reference: str, version: int | str, release_id: str, preview: bool = False
) -> dict[str, Any]:
    """The kustomization that turns an overlay into this release's objects, or into those of its preview.

    `resources` is the overlay's folder relative to the kustomization, `reference` the image as NAME@sha256:….
    A preview's objects have names of their own, whatever the overlay calls them, and pods that no live selector means.
    """
    name, digest = reference.split("@", 1)
    apart = {"app": preview_name(BASE_NAME)} if preview else {}
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [resources],
        "namespace": release.target.namespace,
        "nameSuffix": PREVIEW_SUFFIX if preview else "",
        "images": [{"name": BASE_IMAGE, "newName": name, "digest": digest}],
        "labels": [
            {"pairs": {**release.selector_labels, **apart}, "includeSelectors": True},
            {"pairs": release.object_labels(version, release_id), "includeTemplates": True},
        ],
        "patches": [
            _rename_patch(release.deployment),
            _probe_patch(release, int(version)),
        ],
    }


def _rename_patch(name: str) -> dict[str, Any]:
    operation = {"op": "replace", "path": "/metadata/name", "value": name}
    return {"target": {"name": BASE_NAME}, "patch": yaml.safe_dump([operation]), "options": {"allowNameChange": True}}


def _probe_patch(release: Release, version: int) -> dict[str, Any]:
    """Points the probes at the version; by the container's name, for an overlay may put others before it."""
    container = {"name": CONTAINER, **{probe: {"httpGet": {"path": release.version_path(version)}} for probe in PROBES}}
    target = {"kind": "Deployment", "name": release.deployment}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": release.deployment},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    return {"target": target, "patch": yaml.safe_dump(deployment)}


def render_manifests(release: Release, *, reference: str, version: int, release_id: str) -> list[Manifest]:
    """The objects of a release, in the order in which they are applied; the same release gives the same bytes.

    Raises ManifestError with kustomize's words, or naming object and field of what must not be applied.
    """
    objects = build_objects(release, reference=reference, version=version, release_id=release_id)
    check_manifests(objects, release, reference=reference)
    return objects


def build_objects(
    release: Release, *, reference: str, version: int, release_id: str, preview: bool = False
) -> list[Manifest]:
    """What kustomize makes of the overlay, unchecked, in the order of an apply. Raises ManifestError in its words."""
    overlay = overlay_folder(release.overlay)
    with scratch_folder("render") as scratch:
        folder = scratch.resolve()
        kustomization = render_kustomization(
            release,
            resources=os.path.relpath(overlay.resolve(), folder),  # kustomize refuses absolute paths
            reference=reference,
            version=version,
            release_id=release_id,
            preview=preview,
        )
        (folder / "kustomization.yaml").write_text(
            yaml.dump(kustomization, Dumper=QuotingDumper, sort_keys=False), encoding="utf-8"
        )
        return sorted(_kustomize(folder, overlay), key=apply_rank)


def manifests_hash(release: Release) -> str:
    """sha256:… of the manifests without what depends on content: a change here is a change of manifests."""
    return digest_of(render_manifests(release, reference=BLANK_IMAGE, version=0, release_id="none"))


def overlay_folder(overlay: str | None) -> Path:
    """The folder of an overlay, the base for none. Raises ManifestError naming the ones there are."""
    folder = MANIFESTS / "base" if overlay is None else MANIFESTS / "overlays" / overlay
    if (overlay is not None and Path(overlay).name != overlay) or not (folder / "kustomization.yaml").is_file():
        known = ", ".join(sorted(path.parent.name for path in MANIFESTS.glob("overlays/*/kustomization.yaml")))
        raise ManifestError(
            f"overlay {overlay!r}: there is no include/manifests/overlays/{overlay}/kustomization.yaml. Next: use one of {known}"
        )
    return folder


def apply_rank(manifest: Manifest) -> tuple[int, str, str]:
    """Sorts manifests into the order in which they are applied."""
    return kind_rank(manifest["kind"]), manifest["kind"], manifest["metadata"]["name"]


def kind_rank(kind: str) -> int:
    """A kind's place in KIND_ORDER; other kinds stand before the Service."""
    return KIND_ORDER.index(kind if kind in KIND_ORDER else "NetworkPolicy")


def check_manifests(objects: list[Manifest], release: Release, *, reference: str) -> None:
    """Refuse manifests that do not say what the release says. Raises ManifestError naming object and field."""
    deployments = [o for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"] == release.deployment]
    if len(deployments) != 1:
        raise ManifestError(
            f"overlay {release.overlay}: renders {len(deployments)} Deployments named {release.deployment}, one is needed. "
            f"Next: keep the base's Deployment {BASE_NAME}"
        )
    for manifest in objects:
        _check_namespace(manifest, release)
    _check_deployment(deployments[0], release, reference=reference)
    _check_batching(deployments[0], objects, release)
    if not any(o["kind"] == "Service" and o["metadata"]["name"] == release.service for o in objects):
        raise ManifestError(f"overlay {release.overlay}: renders no Service {release.service}. Next: keep the base's")


def _check_namespace(manifest: Manifest, release: Release) -> None:
    namespace = manifest["metadata"].get("namespace", release.target.namespace)
    if namespace != release.target.namespace:
        raise ManifestError(
            f"{name_of(manifest)}: metadata.namespace is {namespace}, the target is {release.target.namespace}. "
            "Next: leave the namespace to the model file"
        )


def _check_deployment(deployment: Manifest, release: Release, *, reference: str) -> None:
    where, spec = name_of(deployment), deployment["spec"]
    containers = {container["name"]: container for container in spec["template"]["spec"]["containers"]}
    image = containers.get(CONTAINER, {}).get("image")
    if image != reference:
        raise ManifestError(
            f"{where}: container {CONTAINER} has image {image}, the release is {reference}. "
            f"Next: leave the container's name and its image {BASE_IMAGE} as the base has them"
        )
    for probe in PROBES:
        if "port" not in containers[CONTAINER][probe]["httpGet"]:
            raise ManifestError(
                f"{where}: container {CONTAINER} has no {probe} by httpGet. Next: leave the probes' handlers as the base has them"
            )
    if "replicas" in spec:
        raise ManifestError(
            f"{where}: spec.replicas is set, and the HorizontalPodAutoscaler owns it. Next: set minReplicas in the HPA"
        )
    if not release.selector_labels.items() <= spec["selector"]["matchLabels"].items():
        raise ManifestError(
            f"{where}: spec.selector lacks {release.selector_labels}. Next: leave the selector to the base"
        )


def _check_batching(deployment: Manifest, objects: list[Manifest], release: Release) -> None:
    """What a server that joins requests needs of the export; of an archive's graph and warmup nothing is known."""
    if release.source.kind == "savedmodel" or not batches_requests(deployment):
        return
    if release.export.on_bad_image != "mark":
        raise ManifestError(
            f"overlay {release.overlay}: {name_of(deployment)} has --enable_batching, and one bad image would fail every "
            "request that is joined with it. Next: set export.on_bad_image to mark, or use another overlay"
        )
    limit, asked = largest_batch(deployment, objects), max(release.export.warmup_batches)
    if limit is not None and asked > limit:
        raise ManifestError(
            f"overlay {release.overlay}: {name_of(deployment)} joins at most {limit} images (max_batch_size), and the export's "
            f"warmup asks for {asked} at once: the server would not start. "
            f"Next: raise max_batch_size to {asked}, or set export.warmup_batches to numbers up to {limit}"
        )


def name_of(manifest: Manifest) -> str:
    """An object as kubectl names it: `deployment/tfs-server`."""
    return f"{manifest['kind'].lower()}/{manifest['metadata']['name']}"


def to_yaml(objects: list[Manifest]) -> str:
    """The manifests as one YAML stream, as `kubectl apply -f` takes it."""
    return str(yaml.dump_all(objects, Dumper=QuotingDumper, sort_keys=True, allow_unicode=True))


def _kustomize(folder: Path, overlay: Path) -> list[Manifest]:
    try:
        done = subprocess.run(
            [KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, timeout=RENDER_TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise ManifestError(
            "kubectl: not found on this worker. Next: pip install -r requirements.txt brings it"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ManifestError(
            f"{overlay}: kustomize took over {RENDER_TIMEOUT_S} s. Next: kubectl kustomize {overlay}"
        ) from error
    if done.returncode != 0:
        raise ManifestError(f"{overlay}: {' '.join(done.stderr.split())}. Next: kubectl kustomize {overlay}")
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]
