"""Reads clusters, operations and Compute Engine's lists from Google."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from slipway.errors import ClusterRefused, GoogleUnreachable
from slipway.gke.cluster import OperationKind, newest_operation
from slipway.google import cluster_hook, google_errors
from slipway.target import REQUEST_TIMEOUT_S, GkeCluster

if TYPE_CHECKING:
    from slipway.google_rest import GoogleAnswer


def find_cluster(conn_id: str, cluster: GkeCluster) -> dict[str, Any] | None:
    """The cluster as Google describes it, None where there is none. Raises ClusterRefused, GoogleUnreachable."""
    from google.api_core.exceptions import NotFound
    from google.cloud.container_v1.types import Cluster

    with google_errors(str(cluster), conn_id):
        try:
            found = cluster_hook(conn_id, cluster).get_cluster(name=cluster.name, project_id=cluster.project)
        except NotFound:
            return None
    return dict(Cluster.to_dict(found, use_integers_for_enums=False))


def list_clusters(conn_id: str, project: str) -> list[dict[str, Any]]:
    """Every cluster of a project, wherever it is. Raises ClusterRefused, GoogleUnreachable."""
    from google.cloud.container_v1.types import Cluster

    with google_errors(f"clusters of {project}", conn_id):
        client = cluster_hook(conn_id, None).get_cluster_manager_client()
        listed = client.list_clusters(parent=f"projects/{project}/locations/-", timeout=REQUEST_TIMEOUT_S).clusters
    return [dict(Cluster.to_dict(one, use_integers_for_enums=False)) for one in listed]


def find_operation(conn_id: str, cluster: GkeCluster, kind: OperationKind) -> dict[str, Any] | None:
    """The newest operation that created the cluster, or deletes it, as far as Google remembers.

    The provider has no call for it, and finding one by name would need a worker that lived long enough to write it down.
    """
    from google.cloud.container_v1.types import Operation

    with google_errors(str(cluster), conn_id):
        client = cluster_hook(conn_id, cluster).get_cluster_manager_client()
        listed = client.list_operations(parent=cluster.parent, timeout=REQUEST_TIMEOUT_S).operations
    found = newest_operation(cluster, [Operation.to_dict(one, use_integers_for_enums=False) for one in listed], kind)
    return dict(found) if found else None


async def look_at(
    conn_id: str, cluster: GkeCluster, kind: OperationKind
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Cluster and operation as they are now, for triggers: the provider's async hook can read neither."""
    return await asyncio.to_thread(lambda: (find_cluster(conn_id, cluster), find_operation(conn_id, cluster, kind)))


def list_compute(conn_id: str, cluster: GkeCluster, resource: str) -> dict[str, Any]:
    """Compute Engine's aggregated list of a resource in the cluster's project: what each region and zone has.

    The provider's ComputeEngineHook has no call for it. Raises ClusterRefused, GoogleUnreachable.
    """
    from slipway.google_rest import google_rest

    items: dict[str, Any] = {}
    page: dict[str, str] = {}
    with google_rest(conn_id) as google:
        while True:
            answer = google.get("compute", f"/compute/v1/projects/{cluster.project}/aggregated/{resource}", **page)
            if answer.refusal is not None:
                raise _refused(f"{resource} of {cluster.project}", conn_id, answer)
            for scope, listed in (answer.body.get("items") or {}).items():
                items.setdefault(scope, {}).setdefault(resource, []).extend(listed.get(resource) or ())
            if not answer.body.get("nextPageToken"):
                return items
            page = {"pageToken": str(answer.body["nextPageToken"])}


def _refused(where: str, conn_id: str, answer: GoogleAnswer) -> Exception:
    """What a REST API's refusal is, by its status."""
    if answer.status in {0, 429} or answer.status >= 500:  # noqa: PLR2004 - HTTP's own classes
        return GoogleUnreachable(f"{where}: {answer.refusal}. Next: look at status.cloud.google.com")
    return ClusterRefused(f"{where}: {answer.refusal}. Next: give connection {conn_id} roles/compute.viewer")
