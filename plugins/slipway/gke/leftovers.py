"""Leftovers: what Google keeps of a cluster that is gone, such as a load balancer's parts and disks. Listed, never deleted.

They are known by what GKE writes on them: descriptions that name a Service, labels that name a cluster, names of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from slipway.facts import Balancer, Teardown
from slipway.target import GkeCluster

Kind = Literal["forwarding-rules", "target-pools", "addresses", "disks"]  # gcloud's words
Item = Mapping[str, Any]

LISTS: dict[Kind, str] = {  # Compute Engine's words
    "forwarding-rules": "forwardingRules",
    "target-pools": "targetPools",
    "addresses": "addresses",
    "disks": "disks",
}
LABEL_CLUSTER, LABEL_LOCATION = "goog-k8s-cluster-name", "goog-k8s-cluster-location"
SERVICE_KEYS = ("kubernetes.io/service-name", "networking.gke.io/service-name")
VOLUME_KEY = "kubernetes.io/created-for/pvc/name"
BALANCER_NAME = (
    32  # characters of the name that a Service's load balancer bears: `a` and the Service's uid without dashes
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Something that is still there and may be billed."""

    kind: Kind
    name: str
    place: str  # gcloud's flag for where it is: --region …, --zone …, --global
    project: str
    why: str
    sure: bool  # else it may be another cluster's

    @property
    def command(self) -> str:
        """The command that removes it; that shows it, where it may be another cluster's."""
        verb = "delete" if self.sure else "describe"
        return f"gcloud compute {self.kind} {verb} {self.name} {self.place} --project {self.project}"

    def __str__(self) -> str:
        """One line for a log."""
        return f"{self.kind} {self.name}: {self.why}. Next: {self.command}"


def plan_leftovers(found: Mapping[Kind, Mapping[str, Item]], teardown: Teardown) -> tuple[Leftover, ...]:
    """What is the cluster's of all that a project has: by kind, the `items` of Compute Engine's aggregated lists."""
    leftovers = []
    for kind, scopes in found.items():
        for scope, listed in sorted(scopes.items()):
            for item in listed.get(LISTS[kind], ()):
                judged = _judge_disk(item, teardown.cluster) if kind == "disks" else _judge_balancer(item, teardown)
                if judged:
                    why, sure = judged
                    leftovers.append(
                        Leftover(
                            kind=kind,
                            name=item["name"],
                            place=_place(scope),
                            project=teardown.cluster.project,
                            why=why,
                            sure=sure,
                        )
                    )
    return tuple(leftovers)


def _place(scope: str) -> str:
    """The flag of gcloud for `regions/us-central1`, `zones/us-central1-a` or `global`."""
    kind, _, name = scope.partition("/")
    return f"--{kind.removesuffix('s')} {name}" if name else f"--{kind}"


def _judge_balancer(item: Item, teardown: Teardown) -> tuple[str, bool] | None:
    """Whose a part of a load balancer is, and whether that is sure: Services of two clusters may have one name."""
    said = _described(item)
    service = next((str(said[key]) for key in SERVICE_KEYS if key in said), None)
    for balancer in teardown.balancers:
        if item["name"] == balancer_name(balancer):
            return f"made for service {balancer.service}, by its uid", True
        address = item.get("IPAddress") or item.get("address")
        if service == balancer.service and balancer.address and address == balancer.address:
            return f"made for service {balancer.service}, with its address {address}", True
    ours = {f"{ref.namespace}/{ref.name}" for ref in teardown.objects if ref.kind == "Service"}
    if service in ours | {balancer.service for balancer in teardown.balancers}:
        return f"made for a service {service}, of this cluster or another", False
    return None


def balancer_name(balancer: Balancer) -> str:
    """What Kubernetes calls a Service's load balancer, and its parts."""
    return f"a{balancer.uid.replace('-', '')}"[:BALANCER_NAME]


def _judge_disk(item: Item, cluster: GkeCluster) -> tuple[str, bool] | None:
    """Whose a disk is, and whether that is sure. One that is in use is nobody's leftover."""
    labels = item.get("labels") or {}
    if item.get("users"):
        return None
    if LABEL_CLUSTER in labels:
        ours = labels[LABEL_CLUSTER] == cluster.name
        return ("labelled as the cluster's", True) if ours and _is_here(labels, cluster) else None
    if item["name"].startswith(f"gke-{cluster.name}-"):
        return "named as a node's disk of the cluster, or of one whose name begins like it", False
    if item["name"].startswith("pvc-") and VOLUME_KEY in (said := _described(item)):
        return f"made for the volume claim {said[VOLUME_KEY]}, of this cluster or another", False
    return None


def _is_here(labels: Mapping[str, str], cluster: GkeCluster) -> bool:
    return labels.get(LABEL_LOCATION, cluster.location) == cluster.location


def _described(item: Item) -> dict[str, Any]:
    """What GKE says in a resource's description, which is JSON; nothing where it is somebody's words."""
    try:
        said = json.loads(item.get("description") or "{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def find_leftovers(teardown: Teardown) -> tuple[Leftover, ...]:
    """What Google still has of the cluster. Reads only. Raises ClusterRefused, GoogleUnreachable."""
    from slipway.gke.lookup import list_compute

    cluster = teardown.cluster
    found = {kind: list_compute(teardown.target.conn_id, cluster, name) for kind, name in LISTS.items()}
    return plan_leftovers(found, teardown)
