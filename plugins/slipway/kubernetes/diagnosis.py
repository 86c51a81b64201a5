"""Explains a rollout that fails, from pods, events and logs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from slipway.errors import one_line, plain_line
from slipway.facts import JsonObject
from slipway.kubernetes.api import FORBIDDEN, list_items, list_items_async
from slipway.kubernetes.rollout import release_selector
from slipway.kubernetes.stuck import Evidence, find_stuck, gather_rollout_evidence, needs_pod_events
from slipway.release import Release
from slipway.target import REQUEST_TIMEOUT_S, Target

LAST_LOG_LINES = 10
LOG_BYTES = 64 * 1024  # of these lines together: a line may have any length
SHOWN_PODS = 3
METADATA_ALONE = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"  # a node's status is long
LOG = " log: "  # between a pod's name and a line of its log


def why_no_events(target: Target) -> str:
    """Why a reason has no events."""
    return f"connection {target.conn_id} may not list events in {target.namespace}"


def explain_pods(pods: list[JsonObject], events: list[JsonObject], *, deployment: str) -> list[str]:
    """Why a rollout is not complete, from its pods and their events: one reason a line, the pods' first."""
    lines = []
    for pod in pods[:SHOWN_PODS]:
        name, status = pod["metadata"]["name"], pod.get("status", {})
        lines += [f"pod/{name}: {line}" for line in _pod_reasons(status)]
    names = {pod["metadata"]["name"] for pod in pods}
    for event in events:
        involved = event.get("involvedObject", {})
        ours = involved.get("name") in names or (
            involved.get("kind") == "ReplicaSet" and str(involved.get("name")).rpartition("-")[0] == deployment
        )
        if event.get("type") == "Warning" and ours:
            lines.append(
                f"{involved.get('kind', '').lower()}/{involved.get('name')}: {event.get('reason')}: {one_line(event.get('message') or '')}"
            )
    return list(dict.fromkeys(map(plain_line, lines)))


def _pod_reasons(status: JsonObject) -> list[str]:
    lines = [
        f"{condition.get('reason')}: {one_line(condition.get('message') or '', full_stop=True)}"
        for condition in status.get("conditions", [])
        if condition["type"] == "PodScheduled" and condition["status"] == "False"
    ]
    for container in status.get("containerStatuses", []):
        state = container.get("state", {})
        last = container.get("lastState", {}).get("terminated")
        if waiting := state.get("waiting"):
            lines.append(f"{waiting.get('reason')}: {one_line(waiting.get('message') or '')}")
        if ended := state.get("terminated") or last:
            lines.append(
                f"{ended.get('reason')}: exit code {ended.get('exitCode')}, {container.get('restartCount', 0)} restarts"
            )
        elif state.get("running") and not container.get("ready"):
            lines.append(f"running, not ready, {container.get('restartCount', 0)} restarts")
    return lines


def next_pod_command(release: Release, release_id: str, reason: str = "") -> str:
    """The command that shows the pods, or the ReplicaSets if the reason names one."""
    kind = "replicasets" if "replicaset/" in reason else "pods"
    return release.target.kubectl(f"describe {kind} -l {release_selector(release_id)}")


def most_telling_line(found: list[str], reason: str) -> str:
    """The line of a diagnosis to add to a reason: the first; the last log line if the reason names a pod or ReplicaSet."""
    log_lines = [line for line in found if LOG in line][-1:]
    return next(iter(log_lines if "pod/" in reason or "replicaset/" in reason else found), "")


def diagnose_rollout(api_client: Any, release: Release, release_id: str) -> list[str]:
    """Why a release's rollout failed, from its pods, their events and their last log lines."""
    from kubernetes.client import CoreV1Api

    core, namespace = CoreV1Api(api_client), release.target.namespace
    pods = list_items(core.list_namespaced_pod, namespace, label_selector=release_selector(release_id))
    events = _events(core, namespace)
    lines = explain_pods(pods, events or [], deployment=release.deployment)
    if events is None:
        lines.append(why_no_events(release.target))
    for pod in pods[:SHOWN_PODS]:
        lines += [f"pod/{pod['metadata']['name']}{LOG}{line}" for line in _last_log_lines(core, pod)]
    return lines


def _events(core: Any, namespace: str) -> list[JsonObject] | None:
    """The events of the namespace; None if the account may not list them."""
    from kubernetes.client.exceptions import ApiException

    try:
        return list_items(core.list_namespaced_event, namespace)
    except ApiException as error:
        if error.status == FORBIDDEN:
            return None
        raise


def _last_log_lines(core: Any, pod: JsonObject) -> list[str]:
    """The last log lines of the pod's container; those before its restart if it was restarted."""
    from kubernetes.client.exceptions import ApiException

    restarted = any(
        container.get("restartCount", 0) for container in pod.get("status", {}).get("containerStatuses", [])
    )
    try:
        answer = core.read_namespaced_pod_log(
            pod["metadata"]["name"],
            pod["metadata"]["namespace"],
            tail_lines=LAST_LOG_LINES,
            limit_bytes=LOG_BYTES,
            previous=restarted,
            _preload_content=False,
            _request_timeout=REQUEST_TIMEOUT_S,
        )
    except ApiException:
        return []
    return [plain_line(line) for line in answer.data.decode(errors="replace").splitlines() if line.strip()]


async def read_rollout_evidence(target: Target, deployment: JsonObject, release_id: str) -> Evidence:
    """What `judge_stuck` reads; events and nodes only if they matter. For triggers: raises the client's own errors."""
    from kubernetes_asyncio.client import AppsV1Api, CoreV1Api

    from slipway.kubernetes.client import async_cluster_client

    namespace, uid = target.namespace, deployment["metadata"]["uid"]
    labels = ",".join(f"{key}={value}" for key, value in deployment["spec"]["selector"]["matchLabels"].items())
    async with async_cluster_client(target) as client:
        apps, core = AppsV1Api(client), CoreV1Api(client)
        replica_sets = await list_items_async(
            client, apps.list_namespaced_replica_set, namespace, label_selector=labels
        )
        pods = await list_items_async(client, core.list_namespaced_pod, namespace, label_selector=labels)
        evidence = gather_rollout_evidence(replica_sets, pods, deployment_uid=uid, release_id=release_id)
        if needs_pod_events(evidence.pods):
            events = await _events_of_pods(client, core, namespace)
            unlisted = why_no_events(target) if events is None else None
            evidence = replace(evidence, events=events or (), unlisted=unlisted)
        stuck = find_stuck(evidence)
        return replace(evidence, nodes=await _nodes(client, core)) if stuck and stuck.unschedulable else evidence


async def _events_of_pods(client: Any, core: Any, namespace: str) -> tuple[JsonObject, ...] | None:
    """The events of the namespace's pods; None if the account may not list them."""
    from kubernetes_asyncio.client.exceptions import ApiException

    events, of_pods = core.list_namespaced_event, "involvedObject.kind=Pod"
    try:
        return tuple(await list_items_async(client, events, namespace, field_selector=of_pods))
    except ApiException as error:
        if error.status == FORBIDDEN:
            return None
        raise


async def _nodes(client: Any, core: Any) -> tuple[JsonObject, ...]:
    """The nodes' metadata; none if the account may not list them: then only the autoscaler's events show new nodes."""
    from kubernetes_asyncio.client.exceptions import ApiException

    client.set_default_header("Accept", METADATA_ALONE)
    try:
        return tuple(await list_items_async(client, core.list_node))
    except ApiException as error:
        if error.status == FORBIDDEN:
            return ()
        raise
