"""The rollout: kubectl's own status algorithm as a judge, and what a person needs to read when it fails.

The algorithm is that of `kubectl rollout status` (polymorphichelpers/rollout_status.go), held to the generation that
our own apply was answered with. Everything here reads plain JSON as the API server gives it, and writes nothing.
"""

from __future__ import annotations

import json
from typing import Any

from slipway.facts import JsonObject
from slipway.names import LABEL_RELEASE, REST_PORT
from slipway.release import Release
from slipway.target import REQUEST_TIMEOUT_S, Target
from slipway.verdict import Verdict

LAST_LOG_LINES = 10
SHOWN_PODS = 3
LOG = " log: "  # between a pod's name and a line that it wrote
GRPC_PORT_NAME = "tf-serving-grpc"


def judge_rollout(deployment: JsonObject | None, *, uid: str, generation: int, namespace: str) -> Verdict:
    """Whether the Deployment has become what the apply that answered with this uid and generation said.

    `deployment` is the object as JSON, None where there is none.
    """
    if deployment is None:
        return Verdict.failed("the Deployment is gone: somebody deleted it during the rollout")
    where = f"deployment/{deployment['metadata']['name']} in {namespace}"
    spec, status = deployment["spec"], deployment.get("status") or {}
    current = deployment["metadata"]["generation"]
    if deployment["metadata"]["uid"] != uid:
        return Verdict.failed(f"{where}: another object than the one applied: somebody created it anew")
    observed = status.get("observedGeneration") or 0
    if observed < max(current, generation):
        return Verdict.wait(f"{where}: generation {observed} observed, {max(current, generation)} applied")
    if spec.get("paused"):
        return Verdict.failed(f"{where}: its rollout is paused")
    return _judge_progress(where, spec, status)


def _judge_progress(where: str, spec: JsonObject, status: JsonObject) -> Verdict:
    progressing: JsonObject = next((c for c in status.get("conditions") or [] if c["type"] == "Progressing"), {})
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        return Verdict.failed(f"{where}: exceeded its progress deadline: {progressing.get('message', '')}")
    wanted = 1 if spec.get("replicas") is None else spec["replicas"]
    replicas, updated, available = (
        status.get(name) or 0 for name in ("replicas", "updatedReplicas", "availableReplicas")
    )
    if updated < wanted:
        return Verdict.wait(f"{where}: {updated} of {wanted} new replicas have been updated")
    if replicas > updated:
        return Verdict.wait(f"{where}: {replicas - updated} old replicas are pending termination")
    if available < updated:
        return Verdict.wait(f"{where}: {available} of {updated} updated replicas are available")
    return Verdict.passed(f"{where}: {available} of {wanted} replicas are available")


def judge_pods(pods: list[JsonObject], *, release_id: str, namespace: str) -> Verdict:
    """Whether every pod behind a Deployment is of this release and ready; pods that are going away do not count."""
    staying = [
        pod
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp") and pod["status"].get("phase") in {"Pending", "Running"}
    ]
    others = [pod for pod in staying if pod["metadata"].get("labels", {}).get(LABEL_RELEASE) != release_id]
    ready = [pod for pod in staying if pod not in others and _is_ready(pod)]
    where = f"pods of release {release_id} in {namespace}"
    if others:
        return Verdict.wait(f"{where}: pod/{others[0]['metadata']['name']} is of another release")
    if not ready or len(ready) < len(staying):
        return Verdict.wait(f"{where}: {len(ready)} of {len(staying)} are ready")
    return Verdict.passed(f"{where}: {len(ready)} of {len(staying)} are ready, and there is no other")


def _is_ready(pod: JsonObject) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions") or [])


def judge_address(service: JsonObject | None, *, name: str, namespace: str) -> tuple[Verdict, str | None]:
    """Whether the Service has an address, and the URL of its REST port if it has: an IP, or a hostname as EKS gives."""
    where = f"service/{name} in {namespace}"
    if service is None:
        return Verdict.failed(f"{where}: there is none"), None
    host = _host_of(service)
    if not host:
        return Verdict.wait(f"{where}: no address yet"), None
    url = f"http://{host}:{REST_PORT}"
    return Verdict.passed(f"{where}: {url}"), url


def grpc_at(service: JsonObject) -> str | None:
    """Where a Service is asked over gRPC, as host:port; None where it has no port named so, or no address."""
    host = _host_of(service)
    port = next((one["port"] for one in service["spec"].get("ports") or [] if one.get("name") == GRPC_PORT_NAME), None)
    return f"{host}:{port}" if host and port else None


def _host_of(service: JsonObject) -> str | None:
    """A Service's address as URLs write it: an IP, or a hostname as EKS gives."""
    given = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    host = given[0].get("ip") or given[0].get("hostname") if given else None
    return f"[{host}]" if host and ":" in host else host


def explain_pods(pods: list[JsonObject], events: list[JsonObject], *, deployment: str) -> list[str]:
    """What the pods and their events say of a rollout that does not come, one reason a line, most telling first."""
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
                f"{involved.get('kind', '').lower()}/{involved.get('name')}: {event.get('reason')}: {one_line(event.get('message'))}"
            )
    return list(dict.fromkeys(lines))


def _pod_reasons(status: JsonObject) -> list[str]:
    lines = [
        f"{condition.get('reason')}: {one_line(condition.get('message'))}"
        for condition in status.get("conditions", [])
        if condition["type"] == "PodScheduled" and condition["status"] == "False"
    ]
    for container in status.get("containerStatuses", []):
        state = container.get("state", {})
        last = container.get("lastState", {}).get("terminated")
        if waiting := state.get("waiting"):
            lines.append(f"{waiting.get('reason')}: {one_line(waiting.get('message'))}")
        if ended := state.get("terminated") or last:
            lines.append(
                f"{ended.get('reason')}: exit code {ended.get('exitCode')}, {container.get('restartCount', 0)} restarts"
            )
        elif state.get("running") and not container.get("ready"):
            lines.append(f"running, not ready, {container.get('restartCount', 0)} restarts")
    return lines


def one_line(text: str | None) -> str:
    """A message of Kubernetes' in one line."""
    return " ".join((text or "").split())


def release_selector(release_id: str) -> str:
    """Selects the pods of one release."""
    return f"{LABEL_RELEASE}={release_id}"


def next_command(release: Release, release_id: str, reason: str = "") -> str:
    """The command that a person runs next to look at the pods, or at the ReplicaSet that may not make any."""
    kind = "replicasets" if "replicaset/" in reason else "pods"
    return release.target.kubectl(f"describe {kind} -l {release_selector(release_id)}")


def most_telling(found: list[str], reason: str) -> str:
    """What to add of a diagnosis to a reason: its first line; a server's last words where the reason names the pod."""
    last_words = [line for line in found if LOG in line][-1:]
    return next(iter(last_words if "pod/" in reason or "replicaset/" in reason else found), "")


def diagnose(api_client: Any, release: Release, release_id: str) -> list[str]:
    """Reasons from pods, events and the last log lines of a release whose rollout failed. Reads only."""
    from kubernetes.client import CoreV1Api

    core, namespace = CoreV1Api(api_client), release.target.namespace
    pods = items(core.list_namespaced_pod, namespace, label_selector=release_selector(release_id))
    events = items(core.list_namespaced_event, namespace)
    lines = explain_pods(pods, events, deployment=release.deployment)
    for pod in pods[:SHOWN_PODS]:
        lines += [f"pod/{pod['metadata']['name']}{LOG}{line}" for line in _last_log_lines(core, pod)]
    return lines


def items(call: Any, namespace: str, **selectors: str) -> list[JsonObject]:
    """The items of a list call of `kubernetes`, as JSON."""
    answer = call(namespace, _preload_content=False, _request_timeout=REQUEST_TIMEOUT_S, **selectors)
    return list(json.loads(answer.data)["items"])


def _last_log_lines(core: Any, pod: JsonObject) -> list[str]:
    """The last lines of the pod's container, of its previous start where it has been restarted; none where there are none."""
    from kubernetes.client.exceptions import ApiException

    restarted = any(
        container.get("restartCount", 0) for container in pod.get("status", {}).get("containerStatuses", [])
    )
    try:
        answer = core.read_namespaced_pod_log(
            pod["metadata"]["name"],
            pod["metadata"]["namespace"],
            tail_lines=LAST_LOG_LINES,
            previous=restarted,
            _preload_content=False,
            _request_timeout=REQUEST_TIMEOUT_S,
        )
    except ApiException:
        return []
    return [line for line in answer.data.decode(errors="replace").splitlines() if line.strip()]


def read(target: Target, kind: str, name: str) -> JsonObject | None:
    """A Deployment or Service as JSON, None where there is none. Raises ClusterUnreachable, ApplyRefused."""
    from kubernetes.client import AppsV1Api, CoreV1Api
    from kubernetes.client.exceptions import ApiException

    from slipway.apply import refusal
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
