"""A GKE cluster: the request that creates it, its drift, and verdicts on its state. Pure.

Clusters and operations are dicts as in google.container.v1: snake_case fields, enums by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from slipway.facts import JsonObject
from slipway.names import CLUSTER_LABEL_RUN
from slipway.target import ClusterSpec, GkeCluster, NodePool
from slipway.verdict import Verdict

OperationKind = Literal["CREATE_CLUSTER", "DELETE_CLUSTER"]

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"  # so that only the roles of the nodes' account count
DONE = "DONE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A field of a cluster that differs from the model file."""

    field: str
    asked: Any
    found: Any

    def __str__(self) -> str:
        """One line for a log."""
        return f"{self.field} is {self.found!r}, asked for {self.asked!r}"


def plan_cluster_body(cluster: GkeCluster, spec: ClusterSpec) -> JsonObject:
    """The body of CreateCluster, in the snake_case that the provider's operator takes."""
    body: JsonObject = {
        "name": cluster.name,
        "release_channel": {"channel": spec.release_channel},
        "resource_labels": dict(spec.labels),
    }
    if spec.node_pools:
        body["node_pools"] = [_pool_body(pool, spec) for pool in spec.node_pools]
    else:
        body["autopilot"] = {"enabled": True}
    if spec.workload_identity:
        body["workload_identity_config"] = {"workload_pool": f"{cluster.project}.svc.id.goog"}
    if spec.private_nodes:
        private_endpoint = cluster.endpoint == "private"
        body["private_cluster_config"] = {"enable_private_nodes": True, "enable_private_endpoint": private_endpoint}
        body["ip_allocation_policy"] = {"use_ip_aliases": True}
    if cluster.endpoint == "dns":
        body["control_plane_endpoints_config"] = {"dns_endpoint_config": {"allow_external_traffic": True}}
    return body


def _pool_body(pool: NodePool, spec: ClusterSpec) -> JsonObject:
    config: JsonObject = {"machine_type": pool.machine_type, "oauth_scopes": [CLOUD_PLATFORM]}
    if spec.workload_identity:
        config["workload_metadata_config"] = {"mode": "GKE_METADATA"}
    body: JsonObject = {"name": pool.name, "initial_node_count": pool.count, "config": config}
    if pool.max_count is not None:
        limits = {"min_node_count": pool.min_count, "max_node_count": pool.max_count}
        body["autoscaling"] = {"enabled": True, **limits}
    return body


def plan_cluster_drift(cluster: GkeCluster, spec: ClusterSpec, found: JsonObject) -> tuple[Drift, ...]:
    """The fields that differ from the model file. Fields that it does not set are not drift.

    The current size of a pool that scales is not drift either: the autoscaler sets it.
    """
    asked = plan_cluster_body(cluster, spec)
    asked.setdefault("autopilot", {"enabled": False})
    pools = asked.pop("node_pools", [])
    drift = _compare("", asked, found)
    there = {pool["name"]: pool for pool in found.get("node_pools") or ()}
    if spec.node_pools:
        drift += [
            Drift(field=f"node_pools.{name}", asked=None, found="a pool") for name in there if name not in _names(pools)
        ]
    for pool in pools:
        where = f"node_pools.{pool['name']}"
        if pool["name"] not in there:
            drift.append(Drift(field=where, asked="a pool", found=None))
        else:
            drift += _compare(f"{where}.", _compared(pool), there[pool["name"]])
    return tuple(drift)


def _names(pools: Sequence[JsonObject]) -> set[str]:
    return {str(pool["name"]) for pool in pools}


def _compared(pool: JsonObject) -> JsonObject:
    if "autoscaling" in pool:
        return {field: value for field, value in pool.items() if field != "initial_node_count"}
    return {**pool, "autoscaling": {"enabled": False}}


def _compare(prefix: str, asked: JsonObject, found: JsonObject | None) -> list[Drift]:
    drift: list[Drift] = []
    for field, wanted in asked.items():
        there = (found or {}).get(field)
        if isinstance(wanted, dict):
            drift += _compare(f"{prefix}{field}.", wanted, there)
        elif isinstance(wanted, list):
            missing = [one for one in wanted if one not in (there or [])]
            drift += [Drift(field=f"{prefix}{field}", asked=wanted, found=list(there or []))] if missing else []
        elif (there or None) != (wanted or None):  # an unset field reads as None, False or 0
            drift.append(Drift(field=f"{prefix}{field}", asked=wanted, found=there))
    return drift


def judge_cluster(cluster: GkeCluster, found: JsonObject | None, operation: JsonObject | None) -> Verdict:
    """Whether the cluster can be used; `operation` is the newest one that creates it, None if Google remembers none.

    DONE means that the operation has ended, not that it succeeded: its error and the cluster's status tell.
    """
    error = error_of_operation(operation)
    status = str(found["status"]) if found else None
    if error and status in {None, "PROVISIONING"}:  # the creation may end after the cluster was read
        return Verdict.failed(f"{cluster}: it was not created: {error}")
    if found is None:
        return Verdict.failed(f"{cluster}: it is gone, or was never created")
    message = _message_of(found)
    if status == "RUNNING":
        return Verdict.passed(f"{cluster}: RUNNING")
    if status == "PROVISIONING" or (status == "RECONCILING" and not error):
        return Verdict.wait(f"{cluster}: {status}{message}")
    if status == "STOPPING":
        return Verdict.failed(f"{cluster}: STOPPING: somebody is deleting it")
    reason = f": {error}" if error and error not in message else ""
    return Verdict.failed(f"{cluster}: {status}{message}{reason}")


def judge_cluster_gone(cluster: GkeCluster, found: JsonObject | None) -> Verdict:
    """Whether a cluster that was STOPPING is gone, so that its name is free."""
    if found is None:
        return Verdict.passed(f"{cluster}: gone")
    if found["status"] == "STOPPING":
        return Verdict.wait(f"{cluster}: STOPPING, its name is not free yet")
    return Verdict.failed(f"{cluster}: {found['status']} after it was STOPPING: somebody else created it again")


def judge_cluster_claim(cluster: GkeCluster, found: JsonObject | None, claim: str) -> Verdict:
    """Whether a run may create, use and delete this cluster: there is none, or the run has created it."""
    if found is None or found["status"] == "STOPPING":
        return Verdict.passed(f"{cluster}: there is none, the run creates it")
    if (found.get("resource_labels") or {}).get(CLUSTER_LABEL_RUN) == claim:
        return Verdict.passed(f"{cluster}: created by this run")
    return Verdict.failed(
        f"{cluster}: was not created by this run, as a temporary cluster has to be; it is left as it is"
    )


def judge_cluster_deletable(cluster: GkeCluster, found: JsonObject | None) -> Verdict:
    """Whether Google accepts a request to delete it now; it accepts none during another operation."""
    if found is not None and found["status"] in {"PROVISIONING", "RECONCILING"}:
        return Verdict.wait(f"{cluster}: {found['status']}, it can be deleted afterwards")
    return Verdict.passed(f"{cluster}: {found['status'] if found else 'gone already'}")


def judge_cluster_deleted(cluster: GkeCluster, found: JsonObject | None, operation: JsonObject | None) -> Verdict:
    """Whether a cluster that is being deleted is gone; `operation` is the newest one that deletes it.

    DONE means that the operation has ended, not that it succeeded: its error tells.
    """
    if found is None:
        return Verdict.passed(f"{cluster}: gone")
    if (error := error_of_operation(operation)) and found["status"] != "STOPPING":
        return Verdict.failed(f"{cluster}: it was not deleted, it is {found['status']}: {error}")
    return Verdict.wait(f"{cluster}: {found['status']}, being deleted")


def newest_operation(cluster: GkeCluster, operations: Sequence[JsonObject], kind: OperationKind) -> JsonObject | None:
    """The newest operation of a kind on this cluster among a location's operations; an earlier try may have started it."""
    ours = [
        operation for operation in operations if operation["operation_type"] == kind and _is_about(operation, cluster)
    ]
    return max(ours, key=lambda operation: str(operation["start_time"]), default=None)


def _is_about(operation: JsonObject, cluster: GkeCluster) -> bool:
    # Only location and name are compared: a link has the project's number, and may have `zones/` for a zone.
    return str(operation["target_link"]).endswith(f"/{cluster.location}/clusters/{cluster.name}")


def error_of_operation(operation: JsonObject | None) -> str | None:
    """The error of an operation that has ended with one, else None."""
    if operation is None or operation["status"] != DONE:
        return None
    error = operation.get("error") or {}
    return str(error.get("message") or operation.get("status_message") or "") or None


def _message_of(found: JsonObject) -> str:
    """The cluster's status message, or its conditions if it has none; with a colon before it."""
    conditions = "; ".join(str(one.get("message") or one.get("code")) for one in found.get("conditions") or ())
    message = found.get("status_message") or conditions
    return f": {message}" if message else ""
