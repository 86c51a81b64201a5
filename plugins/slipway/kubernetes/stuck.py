"""Finds a stuck rollout: one that waiting does not help, from the newest ReplicaSet and its pods.

A rollout fails only if no pod can still become ready, or if its progress deadline is exceeded, in two polls at least 10 s apart:
one poll may see a passing state.
The functions read plain JSON as the API server returns it, and do no I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from slipway.errors import one_line
from slipway.facts import JsonObject
from slipway.names import LABEL_RELEASE
from slipway.verdict import Verdict

APART_S = 10  # between the two polls: longer than a pod stays in any passing state
ENDS = 2  # the model is in the image, so a server waits for nothing: one that ended twice ends again
REVISION = "deployment.kubernetes.io/revision"

PULL_MAY_RECOVER = re.compile(  # a registry or network in trouble
    r"\b(429|5\d\d) |timeout|timed out|deadline exceeded|connection re(fused|set)|no such host|\bEOF\b|unreachable|"
    r"too ?many ?requests|unavailable|server misbehaving",
    re.IGNORECASE,
)
NO_IMAGE = re.compile(
    r"not found|denied|unauthorized|forbidden|manifest unknown|name unknown|authorization failed|"
    r"authentication required|not present with pull policy",
    re.IGNORECASE,
)
NODE_MAY_RECOVER = re.compile(r"failed to sync .* cache|deadline exceeded|timed out|is reserved for")  # a busy node
REFUSED = re.compile(r"is forbidden|denied the request|is invalid")
ADMISSION_FAILED = re.compile(r"failed calling webhook|Internal error occurred", re.IGNORECASE)
UNMOUNTABLE = re.compile(r'(configmap|secret) "[^"]+" not found|references non-existent (config|secret) key')
PULLING = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"}
UNSTARTABLE = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
UNMOUNTED = {"ContainerCreating", "PodInitializing"}
CRASH_LOOP = "CrashLoopBackOff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The objects of a Deployment whose rollout is not complete."""

    replica_set: JsonObject | None = None  # the newest, if it is the release's
    pods: tuple[JsonObject, ...] = ()  # of that ReplicaSet
    events: tuple[JsonObject, ...] = ()  # of pods
    nodes: tuple[JsonObject, ...] = ()
    unlisted: str | None = None  # why the events are unknown
    overdue: str | None = None  # what `find_overdue` says of the Deployment
    terminating: bool = False  # whether pods of the Deployment are terminating: until they are gone they use quota


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """Why waiting does not help."""

    reason: str
    unschedulable: bool = False  # no node fits: one may still be added
    blames_release: bool = False  # its own containers end: neither the cluster nor a registry causes that


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """What the polls so far have found."""

    stuck: Stuck | None = None
    since_s: float = 0.0
    growth: frozenset[str] = frozenset()  # nodes, and scale-ups that the autoscaler announced


def judge_stuck(
    before: Observations, evidence: Evidence, waiting: Verdict, *, now_s: float, grace_s: float
) -> tuple[Observations, Verdict]:
    """The observations for the next poll, and a verdict: `waiting`, or a failure if the rollout is stuck.

    A stuck rollout fails if it was stuck `APART_S` ago too. If a pod fits no node, it fails after `grace_s` in which no node
    was added and the cluster autoscaler did not begin to add one.
    """
    stuck, growth = find_stuck(evidence), _growth(evidence)
    if stuck is None:
        return Observations(), waiting
    same = before.stuck is not None and before.stuck.unschedulable == stuck.unschedulable
    grown = stuck.unschedulable and bool(growth - before.growth)
    since_s = before.since_s if same and not grown else now_s
    seen = Observations(stuck=stuck, since_s=since_s, growth=growth)
    reason, limit_s = f"{waiting.reason}; {stuck.reason}", max(APART_S, grace_s) if stuck.unschedulable else APART_S
    if now_s - since_s < limit_s:
        return seen, Verdict.wait(f"{reason} (counts after {limit_s:.0f} s)")
    return seen, Verdict.failed(f"{reason}, for {now_s - since_s:.0f} s")


def find_stuck(evidence: Evidence) -> Stuck | None:
    """Why a release is stuck; None if its progress deadline is not exceeded and any of its pods can still become ready."""
    stuck = _stuck_pods(evidence)
    if evidence.overdue is None:
        return stuck
    if stuck is None:
        return Stuck(reason=evidence.overdue)
    return replace(
        stuck, reason=f"{evidence.overdue}; {stuck.reason}", unschedulable=False
    )  # no grace after the deadline


def _stuck_pods(evidence: Evidence) -> Stuck | None:
    pods = [pod for pod in evidence.pods if _stays(pod)]
    reasons = [_stuck_pod(pod, evidence.events) for pod in pods]
    found = [stuck for stuck in reasons if stuck is not None]
    if len(found) < len(reasons):
        return None
    if not found:
        return _refused_pods(evidence.replica_set, terminating=evidence.terminating) if evidence.replica_set else None
    found.sort(key=lambda stuck: stuck.unschedulable)
    return replace(found[0], unschedulable=found[-1].unschedulable)


def gather_rollout_evidence(
    replica_sets: list[JsonObject], pods: list[JsonObject], *, deployment_uid: str, release_id: str
) -> Evidence:
    """The Deployment's newest ReplicaSet and its pods; nothing if that ReplicaSet is not (or not yet) of this release."""
    own = [found for found in replica_sets if _owned_by(found, deployment_uid)]
    newest = max(own, key=lambda found: int(found["metadata"].get("annotations", {}).get(REVISION, 0)), default=None)
    if newest is None or newest["metadata"].get("labels", {}).get(LABEL_RELEASE) != release_id:
        return Evidence()
    mine = tuple(pod for pod in pods if _owned_by(pod, newest["metadata"]["uid"]))
    terminating = any(pod["metadata"].get("deletionTimestamp") for pod in pods)
    return Evidence(replica_set=newest, pods=mine, terminating=terminating)


def _owned_by(found: JsonObject, uid: str) -> bool:
    return any(owner["uid"] == uid for owner in found["metadata"].get("ownerReferences", []))


def _stays(pod: JsonObject) -> bool:
    return not pod["metadata"].get("deletionTimestamp") and pod["status"].get("phase") in {"Pending", "Running"}


def _refused_pods(replica_set: JsonObject, *, terminating: bool) -> Stuck | None:
    """Why the API server refuses to create any pod of a ReplicaSet."""
    for condition in replica_set.get("status", {}).get("conditions", []):
        words = one_line(condition.get("message") or "")
        waits = ADMISSION_FAILED.search(words) or (terminating and "exceeded quota" in words)
        if condition["type"] == "ReplicaFailure" and REFUSED.search(words) and not waits:
            return Stuck(reason=f"replicaset/{replica_set['metadata']['name']}: {condition.get('reason')}: {words}")
    return None


def _stuck_pod(pod: JsonObject, events: tuple[JsonObject, ...]) -> Stuck | None:
    name, status = f"pod/{pod['metadata']['name']}", pod["status"]
    if condition := _unschedulable(status):
        message = one_line(condition.get("message") or "", full_stop=True)
        return Stuck(reason=f"{name}: Unschedulable: {message}", unschedulable=True)
    own = [event for event in events if event["involvedObject"].get("uid") == pod["metadata"]["uid"]]
    for container in _containers(status):
        if words := _stuck_container(container, own):
            return Stuck(reason=f"{name}: {words}", blames_release=words.startswith(CRASH_LOOP))
    return None


def _unschedulable(status: JsonObject) -> JsonObject | None:
    """The scheduler's condition that no node fits the pod."""
    return next((found for found in status.get("conditions", []) if found.get("reason") == "Unschedulable"), None)


def _containers(status: JsonObject) -> list[JsonObject]:
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _stuck_container(container: JsonObject, events: list[JsonObject]) -> str | None:
    """Why a container will not run, None if it may."""
    waiting = container.get("state", {}).get("waiting", {})
    reason, words = waiting.get("reason", ""), one_line(waiting.get("message") or "")
    if reason in PULLING:
        return _missing_image(container["image"], reason, words, events)
    if reason in UNSTARTABLE:
        return None if NODE_MAY_RECOVER.search(words) else f"{reason}: {words}"
    if reason == "InvalidImageName":
        return f"{reason}: {words}"
    if reason in UNMOUNTED:
        words = _newest_message(events, "FailedMount")
        return f"FailedMount: {words}" if UNMOUNTABLE.search(words) else None
    return _crash_loop(container)


def _missing_image(image: str, reason: str, words: str, events: list[JsonObject]) -> str | None:
    """From Kubernetes 1.32 on a back-off's message has the cause; before, only the event of the last pull has it."""
    bare = reason == "ImagePullBackOff" and ": " not in words
    message = _newest_message(events, "Failed", "Failed to pull image") if bare else words
    searched = re.sub(r'"[^"]*"', "", message.replace(image, ""))  # without names: they may contain the words below
    return f"{reason}: {message}" if NO_IMAGE.search(searched) and not PULL_MAY_RECOVER.search(searched) else None


def _crash_loop(container: JsonObject) -> str | None:
    """How a container ended last, if it has ended twice and is not healthy since."""
    state, restarts = container.get("state", {}), container.get("restartCount", 0)
    ended = state.get("terminated") or container.get("lastState", {}).get("terminated")
    is_healthy = "running" in state and (container.get("started") or container.get("ready"))
    if ended is None or is_healthy or restarts + ("running" not in state) < ENDS:
        return None
    words = f": {one_line(ended['message'])}" if ended.get("message") else ""
    return f"{CRASH_LOOP}: {ended.get('reason')}: exit code {ended.get('exitCode')}, {restarts} restarts{words}"


def _newest_message(events: list[JsonObject], reason: str, begin: str = "") -> str:
    found = [event for event in events if event.get("reason") == reason and event.get("message", "").startswith(begin)]
    return one_line(max(found, key=_when)["message"]) if found else ""


def needs_pod_events(pods: tuple[JsonObject, ...]) -> bool:
    """Whether a pod is in a state that its events explain better than its status."""
    statuses = [pod["status"] for pod in pods]
    waiting = {
        container.get("state", {}).get("waiting", {}).get("reason")
        for status in statuses
        for container in _containers(status)
    }
    return bool(waiting & (UNMOUNTED | {"ImagePullBackOff"})) or any(_unschedulable(status) for status in statuses)


def _when(event: JsonObject) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp"))


def _growth(evidence: Evidence) -> frozenset[str]:
    """Signs of more capacity: each node, and each scale-up that the autoscaler announced for these pods."""
    own = {pod["metadata"]["uid"] for pod in evidence.pods}
    announced = [
        event
        for event in evidence.events
        if event.get("reason") == "TriggeredScaleUp" and event["involvedObject"].get("uid") in own
    ]
    return frozenset(node["metadata"]["uid"] for node in evidence.nodes) | {
        f"{event['metadata'].get('uid')} {event.get('count')}" for event in announced
    }
