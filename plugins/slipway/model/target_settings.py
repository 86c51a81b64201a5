"""The model file's `target`."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from slipway.model.field_types import Name, Part, Seconds, Url
from slipway.release import DEFAULT_UNSCHEDULABLE_GRACE_S
from slipway.target import ClusterSpec, Endpoint, NodePool


class NodePoolSettings(Part):
    """Nodes of one kind."""

    name: Name = Field(default="default-pool", description="The pool's name.")
    machine_type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*-[a-z0-9-]+$")] = Field(
        default="n1-standard-8",
        description="Compute Engine's machine type.",
        json_schema_extra={"form": "machine type"},
    )
    count: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=2, description="The initial number of nodes; in a region, per zone."
    )
    min_count: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None, description="The autoscaler's lower limit; required with `max_count`."
    )
    max_count: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="The autoscaler's upper limit. If left out: the pool does not scale."
    )

    @model_validator(mode="after")
    def _count_is_within_the_limits(self) -> NodePoolSettings:
        if (self.min_count is None) != (self.max_count is None):
            raise ValueError("min_count and max_count go together: give both or neither")
        if (
            self.min_count is not None
            and self.max_count is not None
            and not self.min_count <= self.count <= self.max_count
        ):
            raise ValueError(f"count {self.count} is not between min_count and max_count")
        return self


class GkeSettings(Part):
    """A GKE cluster. A run finds it by its name, creates it if it does not exist, and never changes it."""

    conn_id: str = Field(
        default="google_cloud_default", description="A connection of type google_cloud_platform, which may impersonate."
    )
    project: str | None = Field(default=None, description="The Google Cloud project. If left out: the connection's.")
    location: Annotated[str, Field(pattern=r"^[a-z]+-[a-z]+[0-9]+(-[a-z])?$")] = Field(
        default="us-central1-a", description="A zone, or a region.", json_schema_extra={"form": "zone or region"}
    )
    cluster: Name = Field(default="tfs-cluster", description="The cluster's name.")
    autopilot: bool = Field(default=False, description="Google manages the nodes; then leave out `node_pools`.")
    node_pools: Annotated[tuple[NodePoolSettings, ...], Field(min_length=1)] = Field(
        default=(NodePoolSettings(),), description="The node pools. If left out: one pool with the defaults below."
    )
    release_channel: Literal["RAPID", "REGULAR", "STABLE", "EXTENDED"] = Field(
        default="REGULAR", description="How soon Google upgrades the cluster."
    )
    workload_identity: bool = Field(default=True, description="Pods may act as Google service accounts, without keys.")
    private_nodes: bool = Field(default=False, description="Nodes have no public addresses.")
    endpoint: Endpoint = Field(
        default="public",
        description="How Airflow reaches the API server; `private` needs workers in the cluster's network.",
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Labels that Google shows on the bill.")
    timeout_s: Seconds = Field(
        default=1800, description="How long creating or deleting the cluster may take; Google takes five minutes."
    )
    temporary: bool = Field(
        default=False,
        description="Each run creates the cluster, proves the release on it and deletes it again, pass or fail; see [gke.md](gke.md#a-cluster-for-one-run).",
    )

    @model_validator(mode="after")
    def _autopilot_has_no_pools(self) -> GkeSettings:
        if self.autopilot and "node_pools" in self.model_fields_set:
            raise ValueError("autopilot has no node_pools: leave one of them out")
        return self

    @property
    def spec(self) -> ClusterSpec:
        """The settings with which a run creates the cluster."""
        pools = () if self.autopilot else self.node_pools
        return ClusterSpec(
            node_pools=tuple(NodePool(**pool.model_dump()) for pool in pools),
            release_channel=self.release_channel,
            workload_identity=self.workload_identity and not self.autopilot,  # Autopilot clusters always have it
            private_nodes=self.private_nodes,
            labels=dict(self.labels),
            timeout_s=self.timeout_s,
            temporary=self.temporary,
        )


class TargetSettings(Part):
    """Where the model is served."""

    gke: GkeSettings | None = Field(
        default=None,
        description="A GKE cluster in place of `conn_id`; a run creates it if it does not exist. `target: gke` alone means all defaults.",
    )

    conn_id: str = Field(default="kubernetes_default", description="The cluster: a connection of type kubernetes.")
    namespace: Name | None = Field(
        default=None,
        description="The objects' namespace. If left out: the connection's; with `gke` the Variable `slipway_namespace`, or `default`.",
    )
    deployment: Name = Field(
        default="tfs-server",
        description="The name of the Deployment, and of its Service, HorizontalPodAutoscaler and PodDisruptionBudget.",
    )
    overlay: str | None = Field(
        default=None,
        description="A folder of `include/manifests/overlays`, see [overlays.md](overlays.md). If left out: only the base.",
    )
    address: Url | None = Field(
        default=None,
        description="A fixed URL in place of the Service's address, for example of an ingress.",
    )
    grpc_address: Annotated[str, Field(pattern=r"^([\w.-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$")] | None = Field(
        default=None,
        description="The gRPC endpoint that goes with `address`, without TLS. If left out: gRPC is not tested at `address`.",
        json_schema_extra={"form": "host:port"},
    )
    strategy: Literal["preview", "rolling"] = Field(
        default="preview",
        description="`preview`: a new release first runs next to the live one, without users, and must pass its gate there. `rolling`: it replaces the live one pod by pod at once. See [operating.md](operating.md#the-preview).",
    )
    unschedulable_grace_s: Seconds = Field(
        default=DEFAULT_UNSCHEDULABLE_GRACE_S,
        description="How long a pod may be unschedulable before the rollout fails. The count starts again when a node is added or the cluster autoscaler begins to add some.",
    )

    @model_validator(mode="before")
    @classmethod
    def _only_gke_means_all_defaults(cls, given: Any) -> Any:
        return {"gke": {}} if given == "gke" else given

    @model_validator(mode="after")
    def _one_cluster(self) -> TargetSettings:
        if self.gke is not None and "conn_id" in self.model_fields_set:
            raise ValueError("conn_id and gke name two clusters: leave one of them out")
        return self

    @model_validator(mode="after")
    def _grpc_goes_with_an_address(self) -> TargetSettings:
        if self.grpc_address is not None and self.address is None:
            raise ValueError("grpc_address needs address: without it, the Service gives both addresses")
        return self

    @field_validator("address")
    @classmethod
    def _has_a_host(cls, address: str | None) -> str | None:
        if address is not None:
            parts = urlsplit(address)
            if not parts.hostname or parts.port == 0:  # urlsplit raises ValueError for a port that is not a number
                raise ValueError("has no host, or port 0")
        return address
