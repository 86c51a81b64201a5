"""Reads clusters, operations and Compute Engine's lists from Google."""

from __future__ import annotations

import asyncio

from slipway.facts import JsonObject
from slipway.gke.cluster import OperationKind, judge_cluster, newest_operation
from slipway.google import UNAVAILABLE, gke_hook, google_errors, google_refusal
from slipway.target import REQUEST_TIMEOUT_S, GkeCluster, Target


def find_cluster(conn_id: str, cluster: GkeCluster) -> JsonObject | None:
    """The cluster as Google describes it, None if there is none. Raises ClusterRefused, GoogleUnreachable."""
    from google.api_core.exceptions import NotFound
    from google.cloud.container_v1.types import Cluster

    with google_errors(str(cluster), conn_id):
        try:
            found = gke_hook(conn_id, cluster).get_cluster(name=cluster.name, project_id=cluster.project)
        except NotFound:
            return None
    return dict(Cluster.to_dict(found, use_integers_for_enums=False))


def list_clusters(conn_id: str, project: str) -> list[JsonObject]:
    """The clusters of a project in all locations. Raises ClusterRefused, GoogleUnreachable."""
    from google.cloud.container_v1.types import Cluster

    with google_errors(f"clusters of {project}", conn_id):
        client = gke_hook(conn_id, None).get_cluster_manager_client()
        listed = client.list_clusters(parent=f"projects/{project}/locations/-", timeout=REQUEST_TIMEOUT_S).clusters
    return [dict(Cluster.to_dict(one, use_integers_for_enums=False)) for one in listed]


def find_operation(conn_id: str, cluster: GkeCluster, kind: OperationKind) -> JsonObject | None:
    """The newest operation that creates or deletes the cluster, None if Google remembers none.

    The provider has no call for it. It is not found by its name, because a worker may die before it stores the name.
    """
    from google.cloud.container_v1.types import Operation

    with google_errors(str(cluster), conn_id):
        client = gke_hook(conn_id, cluster).get_cluster_manager_client()
        listed = client.list_operations(parent=cluster.parent, timeout=REQUEST_TIMEOUT_S).operations
    found = newest_operation(cluster, [Operation.to_dict(one, use_integers_for_enums=False) for one in listed], kind)
    return dict(found) if found else None


async def read_cluster_and_operation(
    conn_id: str, cluster: GkeCluster, kind: OperationKind
) -> tuple[JsonObject | None, JsonObject | None]:
    """The cluster and its newest operation of a kind, for triggers; the provider's async hook can read neither."""
    return await asyncio.to_thread(lambda: (find_cluster(conn_id, cluster), find_operation(conn_id, cluster, kind)))


def list_compute(conn_id: str, cluster: GkeCluster, resource: str) -> JsonObject:
    """Compute Engine's aggregated list of a resource in the cluster's project, by region and zone.

    The provider's ComputeEngineHook has no call for it. Raises ClusterRefused, GoogleUnreachable.
    """
    from slipway.google_rest import google_rest

    items: JsonObject = {}
    page: dict[str, str] = {}
    with google_rest(conn_id) as google:
        while True:
            answer = google.get("compute", f"/compute/v1/projects/{cluster.project}/aggregated/{resource}", **page)
            if answer.refusal is not None:
                where, then = f"{resource} of {cluster.project}", f"give connection {conn_id} roles/compute.viewer"
                raise google_refusal(where, answer.status or UNAVAILABLE, answer.refusal, then=then)
            for scope, listed in (answer.body.get("items") or {}).items():
                items.setdefault(scope, {}).setdefault(resource, []).extend(listed.get(resource) or ())
            if not answer.body.get("nextPageToken"):
                return items
            page = {"pageToken": str(answer.body["nextPageToken"])}


def missing_cluster(target: Target) -> str | None:
    """Why a target's cluster cannot be used yet; None if it can, or if Slipway does not create it."""
    if target.gke is None:
        return None
    from slipway.gke.lookup import find_cluster

    verdict = judge_cluster(target.gke, find_cluster(target.conn_id, target.gke), None)
    return None if verdict.outcome == "pass" else verdict.reason
