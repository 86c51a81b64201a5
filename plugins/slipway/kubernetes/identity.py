"""Which cluster a target reaches: the uid of the namespace `kube-system`, which is unique to each cluster."""

from __future__ import annotations

import logging
from dataclasses import replace

from slipway.errors import ApplyRefused
from slipway.kubernetes.api import api_errors, parse_object
from slipway.kubernetes.client import cluster_client
from slipway.target import REQUEST_TIMEOUT_S, Target

SYSTEM_NAMESPACE = "kube-system"

log = logging.getLogger(__name__)


def identify_cluster(target: Target) -> Target:
    """The target with its cluster's uid; without one if the connection may not read it. Raises ClusterUnreachable, InputRefused."""
    return replace(target, cluster_uid=read_cluster_uid(target))


def read_cluster_uid(target: Target) -> str | None:
    """The uid of the target's cluster, None if it may not be read. Raises as `identify_cluster` does."""
    from kubernetes.client import CoreV1Api

    try:
        with cluster_client(target) as client, api_errors(target, f"namespace/{SYSTEM_NAMESPACE}"):
            answer = CoreV1Api(client).read_namespace(
                SYSTEM_NAMESPACE, _preload_content=False, _request_timeout=REQUEST_TIMEOUT_S
            )
            uid = parse_object(answer.data)["metadata"].get("uid")
    except ApplyRefused as error:
        log.info("cluster of connection %s: it is known by the connection only: %s", target.conn_id, error)
        return None
    return str(uid) if uid else None
