"""Stuck: what of a rollout will not come by waiting, told by the newest ReplicaSet and its pods in their own words.

Only a release of which no pod is in a fair way is doomed, and only if it looks doomed twice: one look may meet a moment
between two others. Everything that judges here reads plain JSON as the API server gives it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from slipway.facts import JsonObject
from slipway.kubernetes.rollout import one_line
from slipway.names import LABEL_RELEASE
from slipway.verdict import Verdict

APART_S = 10  # between the two looks: longer than a pod is in any state that it only passes through
ENDS = 2  # a server whose model is in its image has nothing to wait for: what ended twice ends again
REVISION = "deployment.kubernetes.io/revision"

BLIP = re.compile(  # a registry or a network in trouble, which may come back
    r"\b(429|5\d\d) |timeout|timed out|deadline exceeded|connection re(fused|set)|no such host|\bEOF\b|unreachable|"
    r"too ?many ?requests|unavailable|server misbehaving",
    re.IGNORECASE,
)
NO_IMAGE = re.compile(
    r"not found|denied|unauthorized|forbidden|manifest unknown|name unknown|authorization failed|"
    r"authentication required|not present with pull policy",
    re.IGNORECASE,
)
PASSING = re.compile(r"failed to sync .* cache|deadline exceeded|timed out|is reserved for")  # of a busy node
REFUSED = re.compile(r"is forbidden|denied the request|is invalid")
UNANSWERED = re.compile(r"failed calling webhook|Internal error occurred", re.IGNORECASE)
UNMOUNTABLE = re.compile(r'(configmap|secret) "[^"]+" not found|references non-existent (config|secret) key')
PULLING = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"}
UNSTARTABLE = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
UNMOUNTED = {"ContainerCreating", "PodInitializing"}
CRASH_LOOP = "CrashLoopBackOff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is there of a Deployment that has not become what was applied."""

    replica_set: JsonObject | None = None  # the newest, where it is the release's
    pods: tuple[JsonObject, ...] = ()  # its own
    events: tuple[JsonObject, ...] = ()  # of pods
    nodes: tuple[JsonObject, ...] = ()
    leaving: bool = False  # whether other pods of the Deployment are going away: until then they hold quota


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """Why waiting will not help; `unplaced` where a node may still come."""

    reason: str
    unplaced: bool = False
    blames_release: bool = False  # its own containers end: neither the cluster nor a registry can mend that


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What the looks until now have seen."""

    stuck: Stuck | None = None
    since_s: float = 0.0
    growth: frozenset[str] = frozenset()  # nodes, and the autoscaler's promises of more


def judge_stuck(
    before: Looks, evidence: Evidence, waiting: Verdict, *, now_s: float, grace_s: float
) -> tuple[Looks, Verdict]:
    """What to hand to the next look, and the rollout's own verdict, or what the pods make of it.

    Stuck counts when it was seen `APART_S` before too. Where a pod fits no node, `grace_s` has to go by in which neither a
    node was added nor the cluster autoscaler has begun to add one.
    """
    stuck, growth = find_stuck(evidence), _growth(evidence)
    if stuck is None:
        return Looks(), waiting
    same = before.stuck is not None and before.stuck.unplaced == stuck.unplaced
    grown = stuck.unplaced and bool(growth - before.growth)
    since_s = before.since_s if same and not grown else now_s
    looks = Looks(stuck=stuck, since_s=since_s, growth=growth)
    said, limit_s = f"{waiting.reason}; {stuck.reason}", max(APART_S, grace_s) if stuck.unplaced else APART_S
    if now_s - since_s < limit_s:
        return looks, Verdict.wait(f"{said} (counts after {limit_s:.0f} s)")
    return looks, Verdict.failed(f"{said}, for {now_s - since_s:.0f} s")


def find_stuck(evidence: Evidence) -> Stuck | None:
    """The doom of a release, None where there is none or where any of its pods is in a fair way."""
    pods = [pod for pod in evidence.pods if _stays(pod)]
    reasons = [_stuck_pod(pod, evidence.events) for pod in pods]
    found = [stuck for stuck in reasons if stuck is not None]
    if len(found) < len(reasons):
        return None
    if not found:
        return _refusal(evidence.replica_set, leaving=evidence.leaving) if evidence.replica_set else None
    found.sort(key=lambda stuck: stuck.unplaced)
    return replace(found[0], unplaced=found[-1].unplaced)


def gather(replica_sets: list[JsonObject], pods: list[JsonObject], *, deployment_uid: str, release_id: str) -> Evidence:
    """The Deployment's newest ReplicaSet and its own pods; nothing where that one is not (or not yet) of this release."""
    own = [found for found in replica_sets if _owned_by(found, deployment_uid)]
    newest = max(own, key=lambda found: int(found["metadata"].get("annotations", {}).get(REVISION, 0)), default=None)
    if newest is None or newest["metadata"].get("labels", {}).get(LABEL_RELEASE) != release_id:
        return Evidence()
    mine = tuple(pod for pod in pods if _owned_by(pod, newest["metadata"]["uid"]))
    leaving = any(pod["metadata"].get("deletionTimestamp") for pod in pods)
    return Evidence(replica_set=newest, pods=mine, leaving=leaving)


def _owned_by(found: JsonObject, uid: str) -> bool:
    return any(owner["uid"] == uid for owner in found["metadata"].get("ownerReferences", []))


def _stays(pod: JsonObject) -> bool:
    return not pod["metadata"].get("deletionTimestamp") and pod["status"].get("phase") in {"Pending", "Running"}


def _refusal(replica_set: JsonObject, *, leaving: bool) -> Stuck | None:
    """What the API server says to a ReplicaSet that may not make a single pod."""
    for condition in replica_set.get("status", {}).get("conditions", []):
        words = one_line(condition.get("message"))
        waits = UNANSWERED.search(words) or (leaving and "exceeded quota" in words)
        if condition["type"] == "ReplicaFailure" and REFUSED.search(words) and not waits:
            return Stuck(reason=f"replicaset/{replica_set['metadata']['name']}: {condition.get('reason')}: {words}")
    return None


def _stuck_pod(pod: JsonObject, events: tuple[JsonObject, ...]) -> Stuck | None:
    name, status = f"pod/{pod['metadata']['name']}", pod["status"]
    if unplaced := _unplaced(status):
        return Stuck(reason=f"{name}: Unschedulable: {one_line(unplaced.get('message'))}", unplaced=True)
    own = [event for event in events if event["involvedObject"].get("uid") == pod["metadata"]["uid"]]
    for container in _containers(status):
        if words := _stuck_container(container, own):
            return Stuck(reason=f"{name}: {words}", blames_release=words.startswith(CRASH_LOOP))
    return None


def _unplaced(status: JsonObject) -> JsonObject | None:
    """The scheduler's word that no node takes the pod."""
    return next((found for found in status.get("conditions", []) if found.get("reason") == "Unschedulable"), None)


def _containers(status: JsonObject) -> list[JsonObject]:
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _stuck_container(container: JsonObject, events: list[JsonObject]) -> str | None:
    """The words of a container that will not run, None of one that may."""
    waiting = container.get("state", {}).get("waiting", {})
    reason, words = waiting.get("reason", ""), one_line(waiting.get("message"))
    if reason in PULLING:
        return _missing_image(container["image"], reason, words, events)
    if reason in UNSTARTABLE:
        return None if PASSING.search(words) else f"{reason}: {words}"
    if reason == "InvalidImageName":
        return f"{reason}: {words}"
    if reason in UNMOUNTED:
        said = _newest_words(events, "FailedMount")
        return f"FailedMount: {said}" if UNMOUNTABLE.search(said) else None
    return _crash_loop(container)


def _missing_image(image: str, reason: str, words: str, events: list[JsonObject]) -> str | None:
    """A back-off says why it is one from Kubernetes 1.32 on; before, the event of the last pull does."""
    bare = reason == "ImagePullBackOff" and ": " not in words
    said = _newest_words(events, "Failed", "Failed to pull image") if bare else words
    told = re.sub(r'"[^"]*"', "", said.replace(image, ""))  # a name may hold any of the words below
    return f"{reason}: {said}" if NO_IMAGE.search(told) and not BLIP.search(told) else None


def _crash_loop(container: JsonObject) -> str | None:
    """That a container has ended twice and is not well since, and how it ended last."""
    state, restarts = container.get("state", {}), container.get("restartCount", 0)
    ended = state.get("terminated") or container.get("lastState", {}).get("terminated")
    is_well = "running" in state and (container.get("started") or container.get("ready"))
    if ended is None or is_well or restarts + ("running" not in state) < ENDS:
        return None
    said = f": {one_line(ended['message'])}" if ended.get("message") else ""
    return f"{CRASH_LOOP}: {ended.get('reason')}: exit code {ended.get('exitCode')}, {restarts} restarts{said}"


def _newest_words(events: list[JsonObject], reason: str, begin: str = "") -> str:
    said = [event for event in events if event.get("reason") == reason and event.get("message", "").startswith(begin)]
    return one_line(max(said, key=_when)["message"]) if said else ""


def wants_events(pods: tuple[JsonObject, ...]) -> bool:
    """Whether a pod is in a state of which its events say more than it does itself."""
    statuses = [pod["status"] for pod in pods]
    waiting = {
        container.get("state", {}).get("waiting", {}).get("reason")
        for status in statuses
        for container in _containers(status)
    }
    return bool(waiting & (UNMOUNTED | {"ImagePullBackOff"})) or any(_unplaced(status) for status in statuses)


def _when(event: JsonObject) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp"))


def _growth(evidence: Evidence) -> frozenset[str]:
    """All that may take a pod which fits no node now: each node, and each time the autoscaler said that it adds some."""
    own = {pod["metadata"]["uid"] for pod in evidence.pods}
    promised = [
        event
        for event in evidence.events
        if event.get("reason") == "TriggeredScaleUp" and event["involvedObject"].get("uid") in own
    ]
    return frozenset(node["metadata"]["uid"] for node in evidence.nodes) | {
        f"{event['metadata'].get('uid')} {event.get('count')}" for event in promised
    }
