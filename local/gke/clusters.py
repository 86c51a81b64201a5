"""Clusters, operations and their faults over time, by a clock that is passed in.

The emulator keeps them in memory. The endpoint of every cluster is the stand's real Kubernetes.
"""

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc
from google.cloud.container_v1.types import Cluster, NodePool, Operation, StatusCondition
from google.rpc.status_pb2 import Status

from local.gke.errors import Refusal
from local.gke.state import REGIONS, Artifacts, Compute, Project, Residue

VERSION = "1.34.4-gke.1000"
CPUS_BY_NAME = -1  # n1-standard-8: the last part of a machine type's name is the number of CPUs
RESOURCE_EXHAUSTED = 8  # google.rpc.Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubernetes:
    """The real API server behind every emulated cluster."""

    endpoint: str  # host:port
    ca: str  # base64 of the PEM, as GKE gives it


@dataclass(slots=True, kw_only=True)
class Faults:
    """The faults to simulate. By default there are none."""

    operation_s: float = 6.0  # the duration of an operation; GKE takes five minutes
    operation_error: str | None = None  # operations end DONE with this error
    stockout: bool = False  # creations end with the error of a zone that has no machines left
    lost: bool = False  # a failed creation leaves no cluster
    quota_cpus: int | None = None  # a request for more CPUs is refused at once
    # Methods that answer PERMISSION_DENIED: CreateCluster, compute.regions.get.
    deny: list[str] = field(default_factory=list)
    unavailable: dict[str, int] = field(default_factory=dict)  # this many next calls of a method answer UNAVAILABLE
    swallow: dict[str, int] = field(default_factory=dict)  # the same, but the request is carried out
    refuse_tokens: bool = False  # every token counts as expired
    expired_before: int = 0  # for registry and clusters, tokens issued before this Unix time count as expired


@dataclass(slots=True)
class Google:
    """The state of the emulated Google: clusters, operations, faults, and its one project."""

    kubernetes: Kubernetes
    clock: Callable[[], float]
    faults: Faults = field(default_factory=Faults)
    calls: Counter[str] = field(default_factory=Counter)
    lock: threading.RLock = field(default_factory=threading.RLock)
    project: Project = field(default_factory=Project)
    compute: Compute = field(default_factory=Compute)
    residue: Residue = field(default_factory=Residue)
    artifacts: Artifacts = field(default_factory=Artifacts)
    clusters: dict[str, Any] = field(default_factory=dict)  # by full name
    operations: dict[str, Any] = field(default_factory=dict)  # by full name, oldest first
    _ends: dict[str, tuple[float, Faults]] = field(default_factory=dict)
    _numbers: Any = field(default_factory=itertools.count)

    def reset(self, faults: Faults | None = None) -> None:
        """Delete clusters, operations and counts, give the project its default state, and set these faults or none."""
        self.faults = faults or Faults()
        self.project, self.compute, self.residue, self.artifacts = Project(), Compute(), Residue(), Artifacts()
        for kept in (self.clusters, self.operations, self.calls, self._ends):
            kept.clear()

    def create(self, parent: str, cluster: Any) -> Any:
        """Begin to create a cluster. Returns the operation. Raises Refusal as GKE does."""
        name = f"{parent}/clusters/{cluster.name}"
        if not cluster.name:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "Cluster.name is required.")
        if name in self.clusters:
            raise Refusal(grpc.StatusCode.ALREADY_EXISTS, f"Already exists: {name}.")
        self._check_quota(cluster)
        cluster.status = Cluster.Status.PROVISIONING
        cluster.location = parent.rpartition("/")[2]
        cluster.locations = [f"{cluster.location}-{letter}" for letter in REGIONS.get(cluster.location, "")[:3]] or [
            cluster.location
        ]
        cluster.self_link = f"https://container/v1/{name}"
        cluster.create_time = _stamp(self.clock())
        self.clusters[name] = cluster
        return self._begin(Operation.Type.CREATE_CLUSTER, parent, name)

    def delete(self, name: str) -> Any:
        """Begin to delete a cluster. Returns the operation."""
        cluster = self.get(name)
        if cluster.status in {Cluster.Status.PROVISIONING, Cluster.Status.STOPPING}:
            raise Refusal(
                grpc.StatusCode.FAILED_PRECONDITION, f"Cluster {cluster.name} is running incompatible operation."
            )
        cluster.status = Cluster.Status.STOPPING
        return self._begin(Operation.Type.DELETE_CLUSTER, name.rpartition("/clusters/")[0], name)

    def get(self, name: str) -> Any:
        """The current state of a cluster."""
        self.advance()
        if name not in self.clusters:
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"Not found: {name}.")
        return self.clusters[name]

    def operation(self, name: str) -> Any:
        """The current state of an operation."""
        self.advance()
        if name not in self.operations:
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"Not found: {name}.")
        return self.operations[name]

    def below(self, what: dict[str, Any], parent: str) -> list[Any]:
        """The clusters or the operations of a location; `-` means all locations."""
        self.advance()
        prefix = parent.removesuffix("-")
        return [one for name, one in what.items() if name.startswith(prefix)]

    def put(self, name: str, cluster: Any) -> None:
        """Add a cluster in exactly this state."""
        parent, _, cluster.name = name.rpartition("/clusters/")
        cluster.location = parent.rpartition("/")[2]
        cluster.self_link = f"https://container/v1/{name}"
        self.clusters[name] = cluster
        self._connect(cluster)
        if cluster.status in {Cluster.Status.PROVISIONING, Cluster.Status.STOPPING}:
            kinds = {Cluster.Status.PROVISIONING: Operation.Type.CREATE_CLUSTER}
            self._begin(kinds.get(cluster.status, Operation.Type.DELETE_CLUSTER), parent, name)

    def advance(self) -> None:
        """Finish the operations whose duration has passed."""
        now = self.clock()
        for name, (end, faults) in list(self._ends.items()):
            if end <= now:
                del self._ends[name]
                self._finish(self.operations[name], faults)

    def end_operations(self) -> None:
        """End every operation now, however long it was to take."""
        for name, (_, faults) in list(self._ends.items()):
            self._ends[name] = (self.clock(), faults)
        self.advance()

    def _begin(self, kind: Any, parent: str, target: str) -> Any:
        name = f"operation-{int(self.clock() * 1000)}-{next(self._numbers):08x}"
        operation = Operation(
            name=name,
            operation_type=kind,
            status=Operation.Status.RUNNING,
            location=parent.rpartition("/")[2],
            start_time=_stamp(self.clock()),
            target_link=f"https://container/v1/{target}",
            self_link=f"https://container/v1/{parent}/operations/{name}",
        )
        full = f"{parent}/operations/{name}"
        self.operations[full] = operation
        self._ends[full] = (self.clock() + self.faults.operation_s, Faults(**_fields(self.faults)))
        return operation

    def _finish(self, operation: Any, faults: Faults) -> None:
        name = operation.target_link.removeprefix("https://container/v1/")
        operation.status, operation.end_time = Operation.Status.DONE, _stamp(self.clock())
        cluster = self.clusters.get(name)
        error = faults.operation_error
        deletes = operation.operation_type == Operation.Type.DELETE_CLUSTER
        if cluster is None or (deletes and error is None):
            self.clusters.pop(name, None)
            return
        if faults.stockout and not deletes:
            error = f"[GCE_STOCKOUT] Google Compute Engine: {cluster.location} does not have enough resources available to fulfill the request."
        if error is None:
            cluster.status = Cluster.Status.RUNNING
            self._connect(cluster)
            return
        operation.error = Status(code=RESOURCE_EXHAUSTED, message=error)
        operation.status_message = error
        if faults.lost and not deletes:
            del self.clusters[name]
            return
        cluster.status, cluster.status_message = Cluster.Status.ERROR, error
        code = StatusCondition.Code.GCE_STOCKOUT if faults.stockout else StatusCondition.Code.UNKNOWN
        cluster.conditions.append(StatusCondition(code=code, message=error))

    def _connect(self, cluster: Any) -> None:
        """Set each kind of endpoint of the cluster to the real API server."""
        where = self.kubernetes.endpoint
        cluster.endpoint = cluster.private_cluster_config.private_endpoint = where
        cluster.control_plane_endpoints_config.dns_endpoint_config.endpoint = where
        cluster.master_auth.cluster_ca_certificate = self.kubernetes.ca
        cluster.current_master_version = VERSION
        for pool in cluster.node_pools:
            pool.status, pool.version = NodePool.Status.RUNNING, VERSION

    def _check_quota(self, cluster: Any) -> None:
        quota = self.faults.quota_cpus
        wanted = sum(_cpus(pool) for pool in cluster.node_pools)
        if quota is not None and wanted > quota:
            raise Refusal(
                grpc.StatusCode.PERMISSION_DENIED,  # the code that GKE uses: HTTP 403
                f"Insufficient regional quota to satisfy request: resource \"CPUS\": request requires '{wanted}.0' and is short "
                f"'{wanted - quota}.0'. project has a quota of '{quota}.0' with '{quota}.0' available.",
            )


def _cpus(pool: Any) -> int:
    return int(pool.initial_node_count) * int(pool.config.machine_type.split("-")[CPUS_BY_NAME])


def _fields(faults: Faults) -> dict[str, Any]:
    return {name: getattr(faults, name) for name in Faults.__slots__}


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
