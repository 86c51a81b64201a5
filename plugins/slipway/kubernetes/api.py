"""Reads objects from the API server, and maps what its clients raise to Slipway's errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from shlex import quote
from typing import Any

from slipway.errors import ApplyRefused, ClusterUnreachable, FieldOwnedElsewhere, NamespaceMissing, one_line
from slipway.facts import JsonObject
from slipway.strict_json import load_json
from slipway.target import REQUEST_TIMEOUT_S, Target

UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT = 401, 403, 404, 409
ANONYMOUS = "system:anonymous"  # the user of a request without credentials, if the API server accepts such requests


@contextmanager
def api_errors(target: Target, where: str) -> Iterator[None]:
    """Maps what the synchronous client raises: see `refusal`. `where` names the object, as in `deployment/tfs-server`."""
    from kubernetes.client.exceptions import ApiException
    from kubernetes.dynamic.exceptions import ResourceNotFoundError

    try:
        yield
    except ResourceNotFoundError as error:
        raise ApplyRefused(f"{where}: the cluster knows no such kind: {error}. Next: kubectl api-resources") from error
    except ApiException as error:
        raise api_refusal(target, where, error.status, error.body) from error


def api_refusal(target: Target, where: str, status: int | None, body: str | bytes | None) -> Exception:
    """The error for an API server's refusal, from its HTTP status and its Status object."""
    reported, message = _status_object(body), refusal_message(body)
    owners = [cause for cause in _causes(reported) if cause.get("reason") == "FieldManagerConflict"]
    place = f"{where} in {target.namespace}"
    if status == CONFLICT and owners:
        owned = "; ".join(f"{cause.get('field')}: {cause.get('message')}" for cause in owners)
        return FieldOwnedElsewhere(
            f"{place}: {owned}. Next: stop that manager from setting the field, or remove it from the manifests: "
            f"{target.kubectl(f'get {quote(where)} -o yaml --show-managed-fields')}"
        )
    if status is None or status in {0, 429} or status >= 500:  # noqa: PLR2004 - HTTP's own classes
        return ClusterUnreachable(f"{place}: HTTP {status}: {message}. Next: {target.kubectl('get deployments')}")
    kind = NamespaceMissing if _is_missing_namespace(status, message) else ApplyRefused
    return kind(f"{place}: HTTP {status}: {message}. Next: {how_to_fix_refusal(target, status, message)}")


def refusal_message(body: str | bytes | None) -> str:
    """What an API server says in a refusal, in one line."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    return one_line(_status_object(body).get("message") or text or "no reason given")


def _is_missing_namespace(status: int, message: str) -> bool:
    return status == NOT_FOUND and message.startswith("namespaces ")


def how_to_fix_refusal(target: Target, status: int, message: str) -> str:
    """What a person does about a refusal that does not go away by itself."""
    if status == UNAUTHORIZED or ANONYMOUS in message:
        return f"put a valid token or certificate into the kubeconfig of connection {target.conn_id}"
    if status == FORBIDDEN:
        return f"{target.kubectl('auth can-i --list')} as connection {target.conn_id}, and grant the rights"
    if _is_missing_namespace(status, message):
        return f"kubectl create namespace {quote(target.namespace)}, or fix target.namespace or connection {target.conn_id}"
    return f"fix the overlay, connection {target.conn_id} or its rights"


def _status_object(body: str | bytes | None) -> JsonObject:
    try:
        parsed = load_json(body or b"{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _causes(reported: JsonObject) -> list[JsonObject]:
    details = reported.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    return [cause for cause in causes if isinstance(cause, dict)] if isinstance(causes, list) else []


def parse_object(data: str | bytes) -> JsonObject:
    """An object from an API server's answer. Raises ClusterUnreachable if it is none: a proxy's login page, say."""
    return dict(_parse(data, _is_object))


def _parse(data: str | bytes, is_valid: Callable[[Any], bool]) -> Any:
    try:
        found = load_json(data)
    except ValueError:
        found = None
    if not is_valid(found):
        raise ClusterUnreachable(
            "the API server: an answer with status 200 that is no Kubernetes object. "
            "Next: check that the connection's server is an API server, and what stands in front of it"
        )
    return found


def _is_object(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("metadata"), dict)


def _is_list(found: Any) -> bool:
    items = found.get("items") if isinstance(found, dict) else None
    return isinstance(items, list) and all(map(_is_object, items))


def list_items(call: Any, *words: str, **selectors: str) -> list[JsonObject]:
    """The items of a list call of `kubernetes`, as JSON. Raises ClusterUnreachable, as `parse_object`, and the client's own errors."""
    answer = call(*words, _preload_content=False, _request_timeout=REQUEST_TIMEOUT_S, **selectors)
    return list(_parse(answer.data, _is_list)["items"])


async def list_items_async(client: Any, call: Any, *words: str, **selectors: str) -> list[JsonObject]:
    """The items of a list call of `kubernetes_asyncio`, as JSON."""
    answer = await call(*words, _request_timeout=REQUEST_TIMEOUT_S, **selectors)
    return list(client.sanitize_for_serialization(answer)["items"])


def read_object(target: Target, kind: str, name: str) -> JsonObject | None:
    """A Deployment or Service as JSON, None if it does not exist. Raises ClusterUnreachable, ApplyRefused."""
    from kubernetes.client import AppsV1Api, CoreV1Api
    from kubernetes.client.exceptions import ApiException

    from slipway.kubernetes.client import cluster_client

    with cluster_client(target) as client, api_errors(target, f"{kind.lower()}/{name}"):
        call = {
            "Deployment": AppsV1Api(client).read_namespaced_deployment,
            "Service": CoreV1Api(client).read_namespaced_service,
        }[kind]
        try:
            answer = call(name, target.namespace, _preload_content=False, _request_timeout=REQUEST_TIMEOUT_S)
        except ApiException as error:
            if error.status == NOT_FOUND:
                return None
            raise
        return parse_object(answer.data)


async def read_object_async(target: Target, kind: str, name: str) -> JsonObject | None:
    """A Deployment or Service as JSON, None if it does not exist. For triggers: raises the client's own errors."""
    from kubernetes_asyncio.client import AppsV1Api, CoreV1Api
    from kubernetes_asyncio.client.exceptions import ApiException

    from slipway.kubernetes.client import async_cluster_client

    async with async_cluster_client(target) as client:
        call = {
            "Deployment": AppsV1Api(client).read_namespaced_deployment,
            "Service": CoreV1Api(client).read_namespaced_service,
        }[kind]
        try:
            found = await call(name, target.namespace, _request_timeout=REQUEST_TIMEOUT_S)
        except ApiException as error:
            if error.status == NOT_FOUND:
                return None
            raise
        return dict(client.sanitize_for_serialization(found))


async def list_pods_async(target: Target, labels: dict[str, str]) -> list[JsonObject]:
    """The pods with these labels, as JSON. For triggers: raises the client's own errors."""
    from kubernetes_asyncio.client import CoreV1Api

    from slipway.kubernetes.client import async_cluster_client

    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    async with async_cluster_client(target) as client:
        list_pods = CoreV1Api(client).list_namespaced_pod
        return await list_items_async(client, list_pods, target.namespace, label_selector=selector)
