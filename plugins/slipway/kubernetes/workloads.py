"""What runs in a cluster, as far as the connection may list it."""

from __future__ import annotations

from typing import Any

from slipway.facts import JsonObject
from slipway.kubernetes.api import FORBIDDEN, api_errors, list_items
from slipway.kubernetes.client import cluster_client
from slipway.target import Target


def list_workloads(target: Target) -> tuple[list[JsonObject], str | None]:
    """What runs in the cluster, as JSON; and why there may be more, if the connection may not list every namespace.

    Raises ClusterUnreachable, ApplyRefused.
    """
    from kubernetes.client import AppsV1Api, BatchV1Api, CoreV1Api

    items: list[JsonObject] = []
    blind: str | None = None
    with cluster_client(target) as client:
        apps, batch, core = AppsV1Api(client), BatchV1Api(client), CoreV1Api(client)
        for kind, api, resource in (
            ("Deployment", apps, "deployment"),
            ("StatefulSet", apps, "stateful_set"),
            ("DaemonSet", apps, "daemon_set"),
            ("CronJob", batch, "cron_job"),
            ("Service", core, "service"),
            ("PersistentVolumeClaim", core, "persistent_volume_claim"),
        ):
            found, unseen = _list_allowed(target, api, resource)
            blind = unseen or blind
            items += [{**item, "kind": kind} for item in found]
    return items, blind


def _list_allowed(target: Target, api: Any, resource: str) -> tuple[list[JsonObject], str | None]:
    """The objects of a resource that the connection may list, and why there may be more."""
    from kubernetes.client.exceptions import ApiException

    everywhere = (getattr(api, f"list_{resource}_for_all_namespaces"), ())
    here = (getattr(api, f"list_namespaced_{resource}"), (target.namespace,))
    for (call, arguments), unseen in (
        (everywhere, None),
        (here, f"connection {target.conn_id} may list only {target.namespace}"),
    ):
        with api_errors(target, f"{resource}s"):
            try:
                return list_items(call, *arguments), unseen
            except ApiException as error:
                if error.status != FORBIDDEN:
                    raise
    return [], f"connection {target.conn_id} may not list {resource}s"
