"""Reads objects from the API server, and turns its refusals into Slipway's errors."""

from __future__ import annotations

import json
from typing import Any

from slipway.errors import ApplyRefused, ClusterUnreachable, FieldOwnedElsewhere
from slipway.facts import JsonObject
from slipway.target import REQUEST_TIMEOUT_S, Target

UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT = 401, 403, 404, 409
ANONYMOUS = "system:anonymous"  # who asks without credentials, where the API server lets such a one ask


def refusal(target: Target, where: str, status: int | None, body: str | bytes | None) -> Exception:
    """What an API server's refusal is, by its status and its Status object."""
    said = _status(body)
    message = (
        said.get("message") or (body.decode(errors="replace") if isinstance(body, bytes) else body) or "no reason given"
    )
    causes = (said.get("details") or {}).get("causes") or []
    owners = [cause for cause in causes if cause.get("reason") == "FieldManagerConflict"]
    message = " ".join(message.split()).rstrip(".")
    place = f"{where} in {target.namespace}"
    if status == CONFLICT and owners:
        owned = "; ".join(f"{cause['field']}: {cause['message']}" for cause in owners)
        return FieldOwnedElsewhere(
            f"{place}: {owned}. Next: stop that manager from setting the field, or take it out of the manifests: "
            f"{target.kubectl(f'get {where} -o yaml --show-managed-fields')}"
        )
    if status is None or status in {0, 429} or status >= 500:  # noqa: PLR2004 - HTTP's own classes
        return ClusterUnreachable(f"{place}: HTTP {status}: {message}. Next: {target.kubectl('get deployments')}")
    return ApplyRefused(f"{place}: HTTP {status}: {message}. Next: {mend(target, status, message)}")


def mend(target: Target, status: int, message: str) -> str:
    """What to do about a refusal that will not go away."""
    if status == UNAUTHORIZED or ANONYMOUS in message:
        return f"put a token or certificate that is valid into the kubeconfig of connection {target.conn_id}"
    if status == FORBIDDEN:
        return f"{target.kubectl('auth can-i --list')} as connection {target.conn_id}, and give it the rights"
    if status == NOT_FOUND and message.startswith("namespaces "):
        return f"kubectl create namespace {target.namespace}, or mend target.namespace or connection {target.conn_id}"
    return f"mend the overlay, connection {target.conn_id} or its rights"


def _status(body: str | bytes | None) -> dict[str, Any]:
    try:
        said = json.loads(body or b"{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def items(call: Any, namespace: str, **selectors: str) -> list[JsonObject]:
    """The items of a list call of `kubernetes`, as JSON."""
    answer = call(namespace, _preload_content=False, _request_timeout=REQUEST_TIMEOUT_S, **selectors)
    return list(json.loads(answer.data)["items"])


def read(target: Target, kind: str, name: str) -> JsonObject | None:
    """A Deployment or Service as JSON, None where there is none. Raises ClusterUnreachable, ApplyRefused."""
    from kubernetes.client import AppsV1Api, CoreV1Api
    from kubernetes.client.exceptions import ApiException

    from slipway.kubernetes.client import cluster_client

    where = f"{kind.lower()}/{name}"
    with cluster_client(target) as client:
        read = {
            "Deployment": AppsV1Api(client).read_namespaced_deployment,
            "Service": CoreV1Api(client).read_namespaced_service,
        }[kind]
        try:
            answer = read(name, target.namespace, _preload_content=False, _request_timeout=REQUEST_TIMEOUT_S)
        except ApiException as error:
            if error.status == 404:  # noqa: PLR2004 - not found
                return None
            raise refusal(target, where, error.status, error.body) from error
        return dict(json.loads(answer.data))


async def read_async(target: Target, kind: str, name: str) -> JsonObject | None:
    """A Deployment or Service as JSON, None where there is none; for triggers, which only read."""
    from kubernetes_asyncio.client import AppsV1Api, CoreV1Api
    from kubernetes_asyncio.client.exceptions import ApiException

    from slipway.kubernetes.client import async_cluster_client

    async with async_cluster_client(target) as client:
        read = {
            "Deployment": AppsV1Api(client).read_namespaced_deployment,
            "Service": CoreV1Api(client).read_namespaced_service,
        }[kind]
        try:
            found = await read(name, target.namespace, _request_timeout=REQUEST_TIMEOUT_S)
        except ApiException as error:
            if error.status == 404:  # noqa: PLR2004 - not found
                return None
            raise
        return dict(client.sanitize_for_serialization(found))


async def list_pods_async(target: Target, labels: dict[str, str]) -> list[JsonObject]:
    """The pods that bear these labels, as JSON; for triggers, which only read."""
    from kubernetes_asyncio.client import CoreV1Api

    from slipway.kubernetes.client import async_cluster_client

    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    async with async_cluster_client(target) as client:
        found = await CoreV1Api(client).list_namespaced_pod(
            target.namespace, label_selector=selector, _request_timeout=REQUEST_TIMEOUT_S
        )
        return list(client.sanitize_for_serialization(found)["items"])


async def items_async(client: Any, call: Any, *words: str, **selectors: str) -> list[JsonObject]:
    """The items of a list call of `kubernetes_asyncio`, as JSON."""
    answer = await call(*words, _request_timeout=REQUEST_TIMEOUT_S, **selectors)
    return list(client.sanitize_for_serialization(answer)["items"])
