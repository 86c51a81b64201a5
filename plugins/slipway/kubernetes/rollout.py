"""Judges a rollout, its pods and its Service's address.

The algorithm is that of `kubectl rollout status` (polymorphichelpers/rollout_status.go), for the generation that the API
server returned to the apply. The functions read plain JSON as the API server returns it, and do no I/O.
"""

from __future__ import annotations

from slipway.facts import JsonObject
from slipway.names import LABEL_RELEASE, REST_PORT
from slipway.verdict import Verdict

GRPC_PORT_NAME = "tf-serving-grpc"


def judge_rollout(deployment: JsonObject | None, *, uid: str, generation: int, namespace: str) -> Verdict:
    """Whether the rollout of the apply that returned this uid and generation is complete.

    `deployment` is the object as JSON, None if it does not exist.
    """
    if deployment is None:
        return Verdict.failed("the Deployment is gone: somebody deleted it during the rollout")
    where = f"deployment/{deployment['metadata']['name']} in {namespace}"
    spec, status = deployment["spec"], deployment.get("status") or {}
    current = deployment["metadata"]["generation"]
    if deployment["metadata"]["uid"] != uid:
        return Verdict.failed(f"{where}: not the object that was applied: somebody recreated it")
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
    """Whether every pod of a Deployment is of this release and ready; terminating pods do not count."""
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
    return Verdict.passed(f"{where}: {len(ready)} of {len(staying)} are ready, and there are no others")


def _is_ready(pod: JsonObject) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions") or [])


def judge_address(service: JsonObject | None, *, name: str, namespace: str) -> tuple[Verdict, str | None]:
    """Whether the Service has an address, and the URL of its REST port: with an IP, or with a hostname as on EKS."""
    where = f"service/{name} in {namespace}"
    if service is None:
        return Verdict.failed(f"{where}: does not exist"), None
    host = _host_of(service)
    if not host:
        return Verdict.wait(f"{where}: no address yet"), None
    url = f"http://{host}:{REST_PORT}"
    return Verdict.passed(f"{where}: {url}"), url


def grpc_at(service: JsonObject) -> str | None:
    """A Service's gRPC address as host:port; None if it has no port of that name, or no address."""
    host = _host_of(service)
    port = next((one["port"] for one in service["spec"].get("ports") or [] if one.get("name") == GRPC_PORT_NAME), None)
    return f"{host}:{port}" if host and port else None


def _host_of(service: JsonObject) -> str | None:
    """A Service's address as a URL has it: an IP, or a hostname as on EKS."""
    given = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    host = given[0].get("ip") or given[0].get("hostname") if given else None
    return f"[{host}]" if host and ":" in host else host


def release_selector(release_id: str) -> str:
    """The label selector of one release's pods."""
    return f"{LABEL_RELEASE}={release_id}"
