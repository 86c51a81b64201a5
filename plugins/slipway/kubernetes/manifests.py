"""The kustomization of a release, and the order and the checks of the manifests that kustomize renders from it."""

from __future__ import annotations

import re
from typing import Any

import yaml

from slipway.errors import ManifestError
from slipway.facts import JsonObject
from slipway.names import preview_name
from slipway.release import Release
from slipway.serving.batching import batches_requests, largest_batch

BASE_NAME = "tfs-server"  # the name of the base's objects; the model file may rename them
MONITORING_FLAG = "--monitoring_config_file"
MONITORING_FILE = "/etc/tf-monitoring/monitoring.txt"  # where the base mounts it
MONITORING_SUFFIX = "-monitoring"  # of the base's ConfigMap with the monitoring file
BASE_IMAGE = "tensorflow/serving"
# What a release is rendered with before it has an image; `fill_manifests` puts the real values in their place.
BLANK_IMAGE = f"{BASE_IMAGE}@sha256:{'0' * 64}"
BLANK_VERSION = 0
BLANK_RELEASE_ID = "none"
CONTAINER = "tfs-k8s"
PROBES = ("startupProbe", "readinessProbe")

# Applied in this order, deleted in reverse: an object comes after what it needs.
KIND_ORDER = (
    "Namespace", "ServiceAccount", "Secret", "ConfigMap", "PersistentVolumeClaim", "Role", "RoleBinding", "NetworkPolicy",
    "Service", "PodDisruptionBudget", "Deployment", "HorizontalPodAutoscaler",
)  # fmt: skip

Manifest = JsonObject  # an object as kustomize renders it, and as an apply sends it


class QuotingDumper(yaml.SafeDumper):
    """Quotes texts that kubectl reads as numbers and PyYAML does not: one release id in 300 looks like 12e456789012."""


QuotingDumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def render_kustomization(
    release: Release, *, resources: str, reference: str, version: int | str, release_id: str, suffix: str = ""
) -> JsonObject:
    """The kustomization that makes this release's objects, or with a suffix those next to the live ones, from an overlay.

    `resources` is the overlay's folder relative to the kustomization, `reference` the image as NAME@sha256:….
    The names of objects next to the live ones have the suffix, and their pods have labels that no live selector matches.
    """
    name, digest = reference.split("@", 1)
    own_labels = {"app": f"{BASE_NAME}{suffix}"} if suffix else {}
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [resources],
        "namespace": release.target.namespace,
        "nameSuffix": suffix,
        "images": [{"name": BASE_IMAGE, "newName": name, "digest": digest}],
        "labels": [
            {"pairs": {**release.selector_labels, **own_labels}, "includeSelectors": True},
            {"pairs": release.object_labels(version, release_id), "includeTemplates": True},
        ],
        "patches": [
            _rename_patch(BASE_NAME, release.deployment),
            _rename_patch(f"{BASE_NAME}{MONITORING_SUFFIX}", f"{release.deployment}{MONITORING_SUFFIX}"),
            _probe_patch(release, int(version)),
        ],
    }


def _rename_patch(base_name: str, name: str) -> JsonObject:
    operation = {"op": "replace", "path": "/metadata/name", "value": name}
    return {"target": {"name": base_name}, "patch": yaml.safe_dump([operation]), "options": {"allowNameChange": True}}


def _probe_patch(release: Release, version: int) -> JsonObject:
    """Points the probes at the version. It names the container, because an overlay may add others before it."""
    container = {"name": CONTAINER, **{probe: {"httpGet": {"path": release.version_path(version)}} for probe in PROBES}}
    target = {"kind": "Deployment", "name": release.deployment}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": release.deployment},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    return {"target": target, "patch": yaml.safe_dump(deployment)}


def fill_manifests(
    objects: list[Manifest], release: Release, *, reference: str, version: int, release_id: str, preview: bool = False
) -> list[Manifest]:
    """Blank manifests with a release's image, version and id, as if they had been rendered with these."""
    blank_id = preview_name(BLANK_RELEASE_ID) if preview else BLANK_RELEASE_ID
    filled_id = preview_name(release_id) if preview else release_id
    labels = release.object_labels(version, filled_id)
    blanks = release.object_labels(BLANK_VERSION, blank_id)
    texts = {BLANK_IMAGE: reference, release.version_path(BLANK_VERSION): release.version_path(version)}

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: labels[key] if key in blanks and item == blanks[key] else fill(item) for key, item in value.items()
            }
        if isinstance(value, list):
            return [fill(item) for item in value]
        return texts.get(value, value) if isinstance(value, str) else value

    return [fill(manifest) for manifest in objects]


def apply_rank(manifest: Manifest) -> tuple[int, str, str]:
    """The sort key for the order in which manifests are applied."""
    return kind_rank(manifest["kind"]), manifest["kind"], manifest["metadata"]["name"]


def kind_rank(kind: str) -> int:
    """A kind's place in KIND_ORDER; unknown kinds come before the Service."""
    return KIND_ORDER.index(kind if kind in KIND_ORDER else "NetworkPolicy")


def check_manifests(objects: list[Manifest], release: Release, *, reference: str) -> None:
    """Refuse manifests that do not match the release. Raises ManifestError with object and field."""
    deployments = [o for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"] == release.deployment]
    if len(deployments) != 1:
        raise ManifestError(
            f"overlay {release.overlay}: renders {len(deployments)} Deployments named {release.deployment}, one is required. "
            f"Next: keep the base's Deployment {BASE_NAME}"
        )
    for manifest in objects:
        _check_namespace(manifest, release)
    _check_deployment(deployments[0], release, reference=reference)
    _check_batching(deployments[0], objects, release)
    _check_metrics(deployments[0], release)
    if not any(o["kind"] == "Service" and o["metadata"]["name"] == release.service for o in objects):
        raise ManifestError(f"overlay {release.overlay}: renders no Service {release.service}. Next: keep the base's")


def _check_namespace(manifest: Manifest, release: Release) -> None:
    namespace = manifest["metadata"].get("namespace", release.target.namespace)
    if namespace != release.target.namespace:
        raise ManifestError(
            f"{manifest_name(manifest)}: metadata.namespace is {namespace}, the target is {release.target.namespace}. "
            "Next: remove the namespace; the model file sets it"
        )


def _check_deployment(deployment: Manifest, release: Release, *, reference: str) -> None:
    where, spec = manifest_name(deployment), deployment["spec"]
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
    """What a server that batches requests requires of the export; an archive's graph and warmup are unknown."""
    if release.source.kind == "savedmodel" or not batches_requests(deployment):
        return
    if release.served_by.decodes_in_batch and release.export.on_bad_image != "mark":
        raise ManifestError(
            f"overlay {release.overlay}: {manifest_name(deployment)} has --enable_batching, and one bad image would fail every "
            "request that is joined with it. Next: set export.on_bad_image to mark, or use another overlay"
        )
    limit, asked = largest_batch(deployment, objects), max(release.export.warmup_batches)
    if limit is not None and asked > limit:
        raise ManifestError(
            f"overlay {release.overlay}: {manifest_name(deployment)} joins at most {limit} images (max_batch_size), and the export's "
            f"warmup asks for {asked} at once: the server would not start. "
            f"Next: raise max_batch_size to {asked}, or set export.warmup_batches to numbers up to {limit}"
        )


def _check_metrics(deployment: Manifest, release: Release) -> None:
    """A bake that reads the pods' metrics requires a server that has them; an overlay's `args` replace those of the base."""
    containers = deployment["spec"]["template"]["spec"]["containers"]
    [server] = [one for one in containers if one["name"] == CONTAINER]
    words = [*server.get("command", ()), *server.get("args", ())]
    if release.gate.reads_pods and not any(MONITORING_FLAG in word for word in words):
        raise ManifestError(
            f"overlay {release.overlay}: {manifest_name(deployment)} has no {MONITORING_FLAG}, and gate.bake reads the servers' metrics. "
            f"Next: add {MONITORING_FLAG}={MONITORING_FILE} to the overlay's args, or give gate.bake.prometheus"
        )


def manifest_name(manifest: Manifest) -> str:
    """An object's name for kubectl: `deployment/tfs-server`."""
    return f"{manifest['kind'].lower()}/{manifest['metadata']['name']}"


def manifests_to_yaml(objects: list[Manifest]) -> str:
    """The manifests as one YAML stream, as `kubectl apply -f` takes it."""
    return str(yaml.dump_all(objects, Dumper=QuotingDumper, sort_keys=True, allow_unicode=True))
