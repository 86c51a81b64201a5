"""Whether the nodes' CPUs have what a base image needs, as far as the nodes' labels tell.

Node Feature Discovery labels each node with the features of its CPU: https://kubernetes-sigs.github.io/node-feature-discovery.
A server that is built for a feature ends with an illegal instruction on a node without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from slipway.errors import ApplyRefused
from slipway.facts import JsonObject
from slipway.kubernetes.api import api_errors, list_items
from slipway.kubernetes.client import cluster_client
from slipway.release import Release
from slipway.target import Target
from slipway.verdict import Finding

CPUID = "feature.node.kubernetes.io/cpu-cpuid."  # the prefix of a feature's label, whose value is "true"
MAX_NAMED = 3  # nodes that a message names


def inspect_cpu_features(release: Release, objects: Iterable[JsonObject]) -> list[Finding]:
    """Findings on the nodes that the Deployment's pods may run on; none if the base image needs no features.

    Raises ClusterUnreachable, and InputRefused if the connection is invalid.
    """
    if not release.cpu_features:
        return []
    [pod] = [
        one["spec"]["template"]["spec"]
        for one in objects
        if one["kind"] == "Deployment" and one["metadata"]["name"] == release.deployment
    ]
    try:
        nodes = _nodes(release.target)
    except ApplyRefused as error:
        return [Finding(outcome="warned", said=f"image.cpu_features: the nodes' CPUs could not be read: {error}")]
    return judge_cpu_features(release.cpu_features, nodes, pod.get("nodeSelector") or {})


def judge_cpu_features(
    needed: Sequence[str], nodes: Iterable[JsonObject], selector: Mapping[str, str]
) -> list[Finding]:
    """Findings on nodes, given as JSON. Only those that `selector` selects count; affinity and taints are not read."""
    labels = {node["metadata"]["name"]: node["metadata"].get("labels") or {} for node in nodes}
    chosen = {name: found for name, found in labels.items() if selector.items() <= found.items()}
    known = {name: found for name, found in chosen.items() if any(label.startswith(CPUID) for label in found)}
    lacking = {name: missing for name, found in known.items() if (missing := _missing(needed, found))}
    asked = f"image.cpu_features: {', '.join(needed)}"
    if not known:
        said = f"{asked}: unknown whether the nodes have them: no node that the pods may run on has labels of Node Feature Discovery"
        return [Finding(outcome="warned", said=said, then="install it, or test the image on such a node")]
    if not lacking:
        return [Finding(outcome="ok", said=f"{asked}: {len(known)} of {len(chosen)} nodes are known to have them")]
    shown = "; ".join(
        f"node {name} has no {', '.join(missing)}" for name, missing in sorted(lacking.items())[:MAX_NAMED]
    )
    more = f"; and {len(lacking) - MAX_NAMED} more" if len(lacking) > MAX_NAMED else ""
    return [
        Finding(
            outcome="missing",
            said=f"{asked}: the server would end with an illegal instruction: {shown}{more}",
            then=f"another image.base, or in the overlay a nodeSelector for nodes that have them, such as {CPUID}{needed[0]}: 'true'",
        )
    ]


def _missing(needed: Iterable[str], labels: Mapping[str, str]) -> list[str]:
    return [feature for feature in needed if labels.get(f"{CPUID}{feature}") != "true"]


def _nodes(target: Target) -> list[JsonObject]:
    from kubernetes.client import CoreV1Api

    with cluster_client(target) as client, api_errors(target, "nodes"):
        return list_items(CoreV1Api(client).list_node)
