"""Leftovers: what Google still has of a deleted cluster, such as disks and parts of load balancers. Listed, never deleted.

GKE marks them: descriptions name a Service, labels name a cluster, and names follow a pattern.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from slipway.facts import Balancer, JsonObject, Teardown
from slipway.strict_json import load_json
from slipway.target import GkeCluster

Kind = Literal["forwarding-rules", "target-pools", "addresses", "disks"]  # as gcloud names them

LISTS: dict[Kind, str] = {  # as Compute Engine's API names them
    "forwarding-rules": "forwardingRules",
    "target-pools": "targetPools",
    "addresses": "addresses",
    "disks": "disks",
}
LABEL_CLUSTER, LABEL_LOCATION = "goog-k8s-cluster-name", "goog-k8s-cluster-location"
SERVICE_KEYS = ("kubernetes.io/service-name", "networking.gke.io/service-name")
VOLUME_KEY = "kubernetes.io/created-for/pvc/name"
BALANCER_NAME = 32  # characters of a load balancer's name: `a` and the Service's uid without dashes, cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A resource that still exists and may be billed."""

    kind: Kind
    name: str
    place: str  # a flag of gcloud: --region …, --zone …, --global
    project: str
    why: str
    sure: bool  # if not, it may belong to another cluster

    @property
    def command(self) -> str:
        """The command that deletes it, or shows it if it may belong to another cluster."""
        verb = "delete" if self.sure else "describe"
        return f"gcloud compute {self.kind} {verb} {self.name} {self.place} --project {self.project}"

    def __str__(self) -> str:
        """One line for a log."""
        return f"{self.kind} {self.name}: {self.why}. Next: {self.command}"


def plan_leftovers(found: Mapping[Kind, Mapping[str, JsonObject]], teardown: Teardown) -> tuple[Leftover, ...]:
    """The cluster's leftovers; `found` has the `items` of Compute Engine's aggregated lists by kind."""
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
    """The gcloud flag for `regions/us-central1`, `zones/us-central1-a` or `global`."""
    kind, _, name = scope.partition("/")
    return f"--{kind.removesuffix('s')} {name}" if name else f"--{kind}"


def _judge_balancer(item: JsonObject, teardown: Teardown) -> tuple[str, bool] | None:
    """Why a part of a load balancer is a leftover, and whether that is sure: Services of two clusters may share a name."""
    description = _described(item)
    service = next((str(description[key]) for key in SERVICE_KEYS if key in description), None)
    for balancer in teardown.balancers:
        if item["name"] == balancer_name(balancer):
            return f"created for service {balancer.service}, by its uid", True
        address = item.get("IPAddress") or item.get("address")
        if service == balancer.service and balancer.address and address == balancer.address:
            return f"created for service {balancer.service}, by its address {address}", True
    ours = {f"{ref.namespace}/{ref.name}" for ref in teardown.objects if ref.kind == "Service"}
    if service in ours | {balancer.service for balancer in teardown.balancers}:
        return f"created for service {service}, of this cluster or another", False
    return None


def balancer_name(balancer: Balancer) -> str:
    """The name that Kubernetes gives a Service's load balancer and its parts."""
    return f"a{balancer.uid.replace('-', '')}"[:BALANCER_NAME]


def _judge_disk(item: JsonObject, cluster: GkeCluster) -> tuple[str, bool] | None:
    """Why a disk is a leftover, and whether that is sure. A disk in use is none."""
    labels = item.get("labels") or {}
    if item.get("users"):
        return None
    if LABEL_CLUSTER in labels:
        ours = labels[LABEL_CLUSTER] == cluster.name
        return ("its label names the cluster", True) if ours and _is_here(labels, cluster) else None
    if item["name"].startswith(f"gke-{cluster.name}-"):
        return "by its name a disk of a node of this cluster, or of one whose name starts the same", False
    if item["name"].startswith("pvc-") and VOLUME_KEY in (description := _described(item)):
        return f"created for the volume claim {description[VOLUME_KEY]}, of this cluster or another", False
    return None


def _is_here(labels: Mapping[str, str], cluster: GkeCluster) -> bool:
    return labels.get(LABEL_LOCATION, cluster.location) == cluster.location


def _described(item: JsonObject) -> JsonObject:
    """The JSON that GKE writes as a resource's description; empty if it is plain text."""
    try:
        parsed = load_json(item.get("description") or "{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def find_leftovers(teardown: Teardown) -> tuple[Leftover, ...]:
    """The leftovers that Google still has of the cluster. Reads only. Raises ClusterRefused, GoogleUnreachable."""
    from slipway.gke.lookup import list_compute

    cluster = teardown.cluster
    found = {kind: list_compute(teardown.target.conn_id, cluster, name) for kind, name in LISTS.items()}
    return plan_leftovers(found, teardown)
