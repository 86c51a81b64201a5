"""The kustomization of a variant: an overlay on the one that it differs from, ready to be copied into the project."""

from __future__ import annotations

from typing import Any

import yaml

from slipway.facts import JsonObject
from slipway.kubernetes.manifests import BASE_NAME, CONTAINER, Manifest
from slipway.release import Release
from slipway.serving.batching import batches_requests
from slipway.variants import Variant

INTER_OP, INTRA_OP = "--tensorflow_inter_op_parallelism", "--tensorflow_intra_op_parallelism"
BATCHING, PARAMETERS = "--enable_batching", "--batching_parameters_file"
FOLDER, FILE = "/etc/tf-serving", "batching.txt"  # as the overlay `batching` has them
HEAD = """\
# {name}
# To use it: save this as manifests/overlays/NAME/kustomization.yaml, and name it in the model file's target.overlay.
"""


class _BlockDumper(yaml.SafeDumper):
    """Writes texts of several lines as people do."""


_BlockDumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def render_variant(variant: Variant, release: Release, objects: list[Manifest]) -> str:
    """The text of a variant's kustomization. `objects` are what the overlay renders for the release, without the variant."""
    named = {one["kind"]: one for one in objects if one["metadata"]["name"] == release.deployment}
    deployment, autoscaler = named["Deployment"], named.get("HorizontalPodAutoscaler")
    patches = [
        *([_autoscaler_patch(variant.replicas, autoscaler)] if variant.replicas is not None else ()),
        *_deployment_patches(variant, deployment),
    ]
    kustomization: JsonObject = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"../{variant.overlay}" if variant.overlay else "../../base"],
    }
    if variant.max_batch_size:
        kustomization["configMapGenerator"] = [_parameters(variant.max_batch_size, deployment)]
    if patches:
        kustomization["patches"] = [{"patch": yaml.safe_dump(patch, sort_keys=False)} for patch in patches]
    text = yaml.dump(kustomization, Dumper=_BlockDumper, sort_keys=False, allow_unicode=True)
    return HEAD.format(name=variant.name) + str(text)


def _autoscaler_patch(replicas: int, autoscaler: Manifest | None) -> JsonObject:
    """As many pods from the start, and no fewer at most than the overlay has."""
    most = max(replicas, autoscaler["spec"]["maxReplicas"] if autoscaler else replicas)
    spec = {"minReplicas": replicas, "maxReplicas": most}
    return _patch("autoscaling/v2", "HorizontalPodAutoscaler", spec)


def _deployment_patches(variant: Variant, deployment: Manifest) -> list[JsonObject]:
    """A patch of the server's arguments, which replaces all of them; none if they stay."""
    [server] = [one for one in deployment["spec"]["template"]["spec"]["containers"] if one["name"] == CONTAINER]
    before = server.get("args", [])
    arguments = arguments_of_variant(variant, before)
    if arguments == before:
        return []
    pod: JsonObject = {"containers": [{"name": CONTAINER, "args": arguments}]}
    if variant.max_batch_size:
        pod["containers"][0]["volumeMounts"] = [{"name": "batching", "mountPath": FOLDER, "readOnly": True}]
        pod["volumes"] = [{"name": "batching", "configMap": {"name": BASE_NAME}}]
    return [_patch("apps/v1", "Deployment", {"template": {"spec": pod}})]


def _patch(version: str, kind: str, spec: JsonObject) -> JsonObject:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": BASE_NAME}, "spec": spec}


def arguments_of_variant(variant: Variant, arguments: list[str]) -> list[str]:
    """The server's arguments with the variant's threads and batching."""
    found = list(arguments)
    for flag, threads in ((INTER_OP, variant.inter_op), (INTRA_OP, variant.intra_op)):
        if threads is not None:
            given = any(_is(flag, one) for one in found)
            found = [f"{flag}={threads}" if _is(flag, one) else one for one in (found if given else [*found, flag])]
    if variant.max_batch_size is None:
        return found
    found = [one for one in found if not _is(BATCHING, one) and not _is(PARAMETERS, one)]
    return [*found, BATCHING, f"{PARAMETERS}={FOLDER}/{FILE}"] if variant.max_batch_size else found


def _is(flag: str, argument: str) -> bool:
    return argument.partition("=")[0] == flag


def _parameters(max_batch_size: int, deployment: Manifest) -> JsonObject:
    """The ConfigMap with the batching file; one that the overlay has gets other content."""
    text = (
        f"max_batch_size {{ value: {max_batch_size} }}\nbatch_timeout_micros {{ value: 0 }}\n"
        "max_enqueued_batches { value: 2 }\nnum_batch_threads { value: 2 }\n"
    )
    kept: dict[str, Any] = {"behavior": "merge"} if batches_requests(deployment) else {}
    return {"name": BASE_NAME, **kept, "literals": [f"{FILE}={text}"]}
