"""Where a release goes: a namespace of a cluster, and the GKE cluster that it may be in. Plain values without I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from shlex import quote
from typing import Literal

REQUEST_TIMEOUT_S = 30  # for one request to an API server, so that a hung connection does not block a task
EVERY_CLUSTERS_NAMESPACE = "default"  # the only one in a new cluster

Endpoint = Literal["public", "private", "dns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GkeCluster:
    """A GKE cluster by its name, and which of its endpoints is used."""

    project: str
    location: str  # a zone or a region
    name: str
    endpoint: Endpoint = "public"

    @property
    def parent(self) -> str:
        """The location, as Google's API names it."""
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def path(self) -> str:
        """The cluster, as Google's API names it."""
        return f"{self.parent}/clusters/{self.name}"

    @property
    def region(self) -> str:
        """The region of the location."""
        return region_of(self.location)

    @property
    def regional(self) -> bool:
        """Whether the location is a region: then each of several zones has as many nodes as the spec counts."""
        return self.region == self.location

    def __str__(self) -> str:
        """How messages name it."""
        return f"cluster {self.name} in {self.project}, {self.location}"

    def gcloud(self, command: str) -> str:
        """A gcloud command on this cluster, for a person to run."""
        return f"gcloud container clusters {command} {quote(self.name)} --location {quote(self.location)} --project {quote(self.project)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePool:
    """Nodes of one machine type; the pool scales if both limits are given."""

    name: str
    machine_type: str
    count: int
    min_count: int | None = None
    max_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """What a run creates if there is no cluster."""

    node_pools: tuple[NodePool, ...]  # empty: Autopilot
    release_channel: str
    workload_identity: bool
    private_nodes: bool
    labels: dict[str, str]
    timeout_s: int
    temporary: bool = False  # each run creates the cluster and deletes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A namespace of a cluster, and the Airflow connection to it: type `kubernetes`, or Google's for a GKE cluster."""

    kind: Literal["kubernetes", "gke"] = "kubernetes"
    conn_id: str
    namespace: str
    gke: GkeCluster | None = None  # None: the cluster that the connection names
    cluster_uid: str | None = None  # of the cluster's namespace kube-system; None if it is unknown

    def kubectl(self, command: str) -> str:
        """A kubectl command in this namespace, for a person to run."""
        return f"kubectl -n {quote(self.namespace)} {command}"


def is_same_target(one: Target, other: Target) -> bool:
    """Whether two targets are the same namespace of the same cluster, however it is reached.

    A GKE cluster is identified by its name, which it keeps if it is created again. Any other cluster is identified by its uid;
    if a uid is unknown, as in the records of an earlier Slipway, the connection decides.
    """
    if one.namespace != other.namespace:
        return False
    if one.gke and other.gke:
        return one.gke.path == other.gke.path
    if one.cluster_uid and other.cluster_uid:
        return one.cluster_uid == other.cluster_uid
    return one.gke is other.gke is None and one.conn_id == other.conn_id


def region_of(location: str) -> str:
    """The region of a zone; a region is returned as it is."""
    return re.sub(r"-[a-z]$", "", location)
