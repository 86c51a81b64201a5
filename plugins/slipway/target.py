"""Where a release goes: one serialisable value that becomes a Kubernetes client, sync or async, here and nowhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

REQUEST_TIMEOUT_S = 30  # one answer of an API server; a hung connection must not hold a task
EVERY_CLUSTERS_NAMESPACE = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A namespace of a cluster, reached through an Airflow connection: of type `kubernetes`, or Google's for a GKE cluster."""

    kind: Literal["kubernetes", "gke"] = "kubernetes"
    conn_id: str
    namespace: str
    gke: GkeCluster | None = None  # which of Google's clusters; None: the one that the connection names

    def kubectl(self, command: str) -> str:
        """The kubectl command that a person would run next in this namespace."""
        return f"kubectl -n {self.namespace} {command}"


Endpoint = Literal["public", "private", "dns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GkeCluster:
    """Which cluster of Google's it is, and by which of its endpoints it is reached."""

    project: str
    location: str  # a zone or a region
    name: str
    endpoint: Endpoint = "public"

    @property
    def parent(self) -> str:
        """The location, as the API names it."""
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def path(self) -> str:
        """The cluster, as the API names it."""
        return f"{self.parent}/clusters/{self.name}"

    @property
    def region(self) -> str:
        """The region that the location is, or is in."""
        return region_of(self.location)

    @property
    def regional(self) -> bool:
        """Whether its nodes are in several zones: as many of them in each as the spec counts."""
        return self.region == self.location

    def __str__(self) -> str:
        """As people name it."""
        return f"cluster {self.name} in {self.project}, {self.location}"

    def gcloud(self, command: str) -> str:
        """The gcloud command that a person would run next."""
        return f"gcloud container clusters {command} {self.name} --location {self.location} --project {self.project}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePool:
    """Nodes of one kind; the two limits go together, and without them the pool stays as large as it is."""

    name: str
    machine_type: str
    count: int
    min_count: int | None = None
    max_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """The shape of a cluster that is made where there is none."""

    node_pools: tuple[NodePool, ...]  # none: Autopilot
    release_channel: str
    workload_identity: bool
    private_nodes: bool
    labels: dict[str, str]
    timeout_s: int
    temporary: bool = False  # made by a run, and deleted by it


def region_of(location: str) -> str:
    """The region of a zone; a region is its own."""
    return re.sub(r"-[a-z]$", "", location)
