"""Judges a rollout, its pods and its Service's address.

The algorithm is that of `kubectl rollout status` (polymorphichelpers/rollout_status.go), for the generation that the API
server returned to the apply. `stuck` judges an exceeded progress deadline, in two polls, because the Deployment controller
first publishes a new generation with the condition of the one before. The functions read plain JSON as the API server returns
it, and do no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping

from slipway.errors import one_line
from slipway.facts import JsonObject
from slipway.names import LABEL_RELEASE, LABEL_VERSION
from slipway.verdict import Verdict

LOST_S = 30  # added to a pod's grace period: by then the kubelet has killed the pod, unless its node is lost
DEFAULT_GRACE_S = 30  # Kubernetes' own


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


def find_overdue(deployment: JsonObject) -> str | None:
    """What the Deployment controller says of a rollout that has exceeded its progress deadline; None if it has not."""
    for condition in (deployment.get("status") or {}).get("conditions") or []:
        if condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return f"exceeded its progress deadline: {one_line(condition.get('message') or '')}"
    return None


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


def judge_drain(
    pods: list[JsonObject], *, release_id: str, version: str, since_s: Mapping[str, float], now_s: float
) -> tuple[dict[str, float], Verdict]:
    """When each terminating pod that could answer instead of this release was first seen, and whether all are gone.

    A pod of another release with the same version answers the same requests until it is gone, and a gate cannot distinguish
    it from a new pod. A pod that outlasts its grace period is on a lost node and no longer counts.
    """
    draining = [pod for pod in pods if _answers_instead(pod, release_id=release_id, version=version)]
    known_s = {pod["metadata"]["uid"]: since_s.get(pod["metadata"]["uid"], now_s) for pod in draining}
    left = [pod for pod in draining if now_s - known_s[pod["metadata"]["uid"]] < _grace_s(pod) + LOST_S]
    if not left:
        return known_s, Verdict.passed("no terminating pod answers for this version")
    metadata = left[0]["metadata"]
    return known_s, Verdict.wait(
        f"pod/{metadata['name']} of release {metadata['labels'].get(LABEL_RELEASE)} still answers for version {version} "
        "while it terminates"
    )


def _answers_instead(pod: JsonObject, *, release_id: str, version: str) -> bool:
    labels = pod["metadata"].get("labels") or {}
    terminates = pod["metadata"].get("deletionTimestamp") and pod["status"].get("phase") == "Running"
    return bool(terminates and labels.get(LABEL_VERSION) == version and labels.get(LABEL_RELEASE) != release_id)


def _grace_s(pod: JsonObject) -> float:
    """The pod's grace period, in seconds."""
    found = pod["metadata"].get("deletionGracePeriodSeconds")
    return float(DEFAULT_GRACE_S if found is None else found)


def _is_ready(pod: JsonObject) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions") or [])


def release_selector(release_id: str) -> str:
    """The label selector of one release's pods."""
    return f"{LABEL_RELEASE}={release_id}"
