from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from slipway.kubernetes.stuck import (
    APART_S,
    Evidence,
    Observations,
    find_stuck,
    gather_rollout_evidence,
    judge_stuck,
    needs_pod_events,
)
from slipway.verdict import Verdict

SEEN = yaml.safe_load(Path(__file__).with_name("stuck.yaml").read_text())
WAITING = Verdict.wait("deployment/tfs-server in shop: 0 of 1 updated replicas are available")
MISSING = f"127.0.0.1:28500/nothing/here@sha256:{'0' * 64}"
NO_KEY = "couldn't find key nope in ConfigMap shop/kube-root-ca.crt"
NO_COMMAND = 'exec: "/bad-command": stat /bad-command: no such file or directory: unknown'
NO_CPU = "0/1 nodes are available: 1 Insufficient cpu."


def seen(case, *, events=True):
    """What the API server returned for a Deployment: its newest ReplicaSet, its pod, and the pod's events."""
    found = deepcopy(SEEN[case])
    pods = (found["pod"],) if "pod" in found else ()
    return Evidence(
        replica_set=found.get("replica_set"), pods=pods, events=tuple(found.get("events", ())) if events else ()
    )


def waits(reason, message, **container):
    """A pod whose container waits."""
    pod = deepcopy(SEEN["image missing"]["pod"])
    pod["status"]["containerStatuses"][0] |= {"state": {"waiting": {"reason": reason, "message": message}}, **container}
    return Evidence(pods=(pod,))


def pull(words, reason="ErrImagePull"):
    """A pod whose image cannot be pulled, with containerd's message."""
    image = "127.0.0.1:28999/e503/denied/not-found:v1"  # the words in a name are no reason
    resolving = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": {words}'
    back_off = f'Back-off pulling image "{image}": ErrImagePull: ' if reason == "ImagePullBackOff" else ""
    return waits(reason, back_off + resolving, image=image)


def old_back_off(words):
    """A pod of Kubernetes before 1.32: not the back-off has the cause, but the event of the last pull."""
    evidence = waits("ImagePullBackOff", f'Back-off pulling image "{MISSING}"')
    uid = evidence.pods[0]["metadata"]["uid"]
    messages = [("2026-11-24T04:21:10Z", "Error: ImagePullBackOff"), ("2026-11-24T04:21:04Z", words)]
    events = [
        {"reason": "Failed", "message": text, "lastTimestamp": at, "involvedObject": {"uid": uid}, "metadata": {}}
        for at, text in messages
    ]
    return Evidence(pods=evidence.pods, events=tuple(events))


def crashed(*, restarts, state, **container):
    """A pod whose container ended before."""
    pod = deepcopy(SEEN["crash loop"]["pod"])
    pod["status"]["containerStatuses"][0] |= {"restartCount": restarts, "state": state, "started": False, **container}
    return Evidence(pods=(pod,))


RUNNING = {"running": {"startedAt": "2026-11-24T04:21:49Z"}}
ENDED = {"terminated": {"exitCode": 255, "reason": "Error", "startedAt": "2026-11-24T04:21:49Z"}}
STUCK = {
    "image missing": (seen("image missing"), "ImagePullBackOff: Back-off pulling image", f"{MISSING}: not found"),
    "image missing, before 1.32": (
        old_back_off(f'Failed to pull image "{MISSING}": rpc error: code = NotFound desc = {MISSING}: not found'),
        "ImagePullBackOff: Failed to pull image", f"{MISSING}: not found",
    ),
    "image denied": (pull("pulling from host r failed with status code [manifests v1]: 403 Forbidden"), "ErrImagePull: ", "403 Forbidden"),
    "login refused": (
        pull("failed to authorize: failed to fetch anonymous token: unexpected status: 403 Forbidden", "ImagePullBackOff"),
        "ImagePullBackOff: ", "unexpected status: 403 Forbidden",
    ),
    "login refused, in Docker Hub's words": (
        pull("pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed"),
        "ErrImagePull: ", "authorization failed",
    ),
    "unauthorized": (pull("unauthorized: authentication required"), "ErrImagePull: ", "authentication required"),
    "manifest unknown": (pull("reading manifest v1 in shop/model: manifest unknown"), "ErrImagePull: ", "manifest unknown"),
    "image never pulled": (seen("image never pulled"), "ErrImageNeverPull: ", "is not present with pull policy of Never"),
    "image's name wrong": (seen("image's name wrong"), "InvalidImageName: ", "must be lowercase"),
    "crash loop": (seen("crash loop"), "CrashLoopBackOff: Error: exit code 2, 3 restarts", ""),
    "OOM kill": (seen("OOM kill"), "CrashLoopBackOff: OOMKilled: exit code 137, 3 restarts", ""),
    "ended twice": (crashed(restarts=1, state=ENDED), "CrashLoopBackOff: Error: exit code 255, 1 restarts", ""),
    "third start after two ends": (crashed(restarts=2, state=RUNNING), "CrashLoopBackOff: Error: exit code 2, 2 restarts", ""),
    "command missing, at its start": (waits("RunContainerError", f"runc create failed: {NO_COMMAND}"), "RunContainerError: runc create failed: ", NO_COMMAND),
    "command missing": (seen("command missing"), "CrashLoopBackOff: StartError: exit code 128, 3 restarts: ", NO_COMMAND),
    "key missing in a ConfigMap": (seen("key missing in a ConfigMap"), f"CreateContainerConfigError: {NO_KEY}", ""),
    "image runs as root, which is forbidden": (
        waits("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
        "CreateContainerConfigError: ", "image will run as root",
    ),
    "ConfigMap of a volume missing": (
        seen("ConfigMap of a volume missing"), 'FailedMount: MountVolume.SetUp failed for volume "c" : ', 'configmap "nope" not found',
    ),
    "unschedulable": (seen("unschedulable"), f"Unschedulable: {NO_CPU}", "1 Preemption is not helpful for scheduling."),
}  # fmt: skip


@pytest.mark.parametrize(("evidence", "begin", "end"), STUCK.values(), ids=STUCK)
def test_stuck_with_the_pods_message(evidence, begin, end):
    """A pod that waiting does not help is named, with its own message."""
    stuck = find_stuck(evidence)
    assert stuck.reason.startswith(f"pod/{evidence.pods[0]['metadata']['name']}: {begin}")
    assert stuck.reason.endswith(end)
    assert stuck.unschedulable is ("Unschedulable" in begin)


def refused(message):
    """A ReplicaSet whose pods the API server refuses."""
    replica_set = deepcopy(SEEN["refused by admission"]["replica_set"])
    replica_set["status"]["conditions"][0]["message"] = message
    return Evidence(replica_set=replica_set)


QUOTA = 'pods "a" is forbidden: exceeded quota: q, requested: cpu=2, used: cpu=2, limited: cpu=3'
REFUSED = {
    "Pod Security": (seen("refused by admission"), 'violates PodSecurity "restricted:latest": runAsNonRoot != true'),
    "quota": (refused(QUOTA), "exceeded quota: q"),
    "webhook": (refused('admission webhook "policy.example.com" denied the request: no'), "denied the request: no"),
    "no such pod": (refused('Pod "a" is invalid: spec.containers[0].image: Required value'), "is invalid: "),
}


@pytest.mark.parametrize(("evidence", "words"), REFUSED.values(), ids=REFUSED)
def test_stuck_if_no_pod_is_admitted(evidence, words):
    """A ReplicaSet whose pods are all refused is stuck, with the API server's message."""
    stuck = find_stuck(evidence)
    assert stuck.reason.startswith("replicaset/d-admission-9c7775774: FailedCreate: ")
    assert words in stuck.reason


def ready(evidence):
    """The evidence with one more pod, which is ready."""
    pod = deepcopy(SEEN["crash loop"]["pod"])
    pod["status"]["containerStatuses"][0] |= {"state": RUNNING, "ready": True, "started": True}
    return Evidence(replica_set=evidence.replica_set, pods=(*evidence.pods, pod))


def terminating(evidence):
    """The evidence with its pods terminating."""
    evidence.pods[0]["metadata"]["deletionTimestamp"] = "2026-11-24T04:22:00Z"
    return evidence


NOT_STUCK = {
    "no objects": Evidence(),
    "registry down": seen("registry refuses connections"),
    "registry in trouble": pull("pulling from host r failed with status code [manifests v1]: 503 Service Unavailable"),
    "registry in trouble, backing off": pull("pulling from host r failed with status code [manifests v1]: 500 Internal Server Error", "ImagePullBackOff"),
    "too many requests": pull("pulling from host r failed with status code [manifests v1]: 429 Too Many Requests"),
    "timeout": pull('failed to do request: Head "https://r/v2/": dial tcp 192.0.2.1:443: i/o timeout'),
    "name not resolved": pull("failed to do request: dial tcp: lookup r on 10.0.0.10:53: no such host"),
    "bare back-off": waits("ImagePullBackOff", f'Back-off pulling image "{MISSING}"'),
    "bare back-off, registry down": old_back_off(f'Failed to pull image "{MISSING}": dial tcp: connect: connection refused'),
    "being pulled": waits("ContainerCreating", None),
    "cache not filled": waits("CreateContainerConfigError", "failed to sync configmap cache: timed out waiting for the condition"),
    "node busy": waits("CreateContainerError", "context deadline exceeded"),
    "volume not there yet": Evidence(
        pods=waits("ContainerCreating", None).pods,
        events=({"reason": "FailedMount", "message": "timed out waiting for the condition", "lastTimestamp": "x",
                 "involvedObject": {"uid": SEEN["image missing"]["pod"]["metadata"]["uid"]}, "metadata": {}},),
    ),
    "another pod's event": Evidence(pods=waits("ContainerCreating", None).pods, events=seen("ConfigMap of a volume missing").events),
    "ended once": crashed(restarts=0, state=ENDED, lastState={}),
    "second start": crashed(restarts=1, state=RUNNING),
    "starts, never ended": crashed(restarts=0, state=RUNNING, lastState={}),
    "not ready for a moment, long after its restarts": crashed(restarts=7, state=RUNNING, started=True),
    "one pod of two is healthy": ready(seen("crash loop")),
    "refused, and one pod is healthy": ready(seen("refused by admission")),
    "the webhook is down": refused('Internal error occurred: failed calling webhook "policy.example.com": connection refused'),
    "quota, while old pods terminate": Evidence(replica_set=refused(QUOTA).replica_set, terminating=True),
    "terminating": terminating(seen("crash loop")),
}  # fmt: skip


@pytest.mark.parametrize("evidence", NOT_STUCK.values(), ids=NOT_STUCK)
def test_not_stuck_if_waiting_may_help(evidence):
    """Waiting may help with a registry in trouble, a busy node, a container that ended once, or one healthy pod."""
    assert find_stuck(evidence) is None


def judged(*polls, grace_s=60):
    """The verdicts of successive polls, each given as its time and evidence."""
    before, verdicts = Observations(), []
    for now_s, evidence in polls:
        before, verdict = judge_stuck(before, evidence, WAITING, now_s=now_s, grace_s=grace_s)
        verdicts.append(verdict)
    return verdicts


CRASHES, DOWN, UNSCHEDULABLE = seen("crash loop"), seen("registry refuses connections"), seen("unschedulable")
NODE, NEW_NODE = ({"metadata": {"uid": uid, "name": uid}} for uid in ("node-1", "node-2"))


def unschedulable(*nodes, scale_ups=0):
    """A pod that fits no node, the nodes, and how many scale-ups the autoscaler announced."""
    event = {
        "reason": "TriggeredScaleUp", "message": "pod triggered scale-up: [{pool 1->2 (max: 3)}]", "count": scale_ups, "type": "Normal",
        "involvedObject": {"uid": UNSCHEDULABLE.pods[0]["metadata"]["uid"]}, "metadata": {"uid": "e-1"},
    }  # fmt: skip
    return Evidence(pods=UNSCHEDULABLE.pods, events=(event,) if scale_ups else (), nodes=nodes)


def of_another_pod(evidence):
    """The evidence, with events of a pod that is not the release's."""
    return Evidence(
        pods=evidence.pods, nodes=evidence.nodes,
        events=tuple({**event, "involvedObject": {"uid": "another"}} for event in evidence.events),
    )  # fmt: skip


EXCEEDED = "exceeded its progress deadline: it has timed out"
LATE = Evidence(overdue=EXCEEDED)
SEQUENCES = {
    "the deadline of the generation before, in one poll": ([(0, LATE), (4, Evidence()), (14, LATE)], "wait wait wait"),
    "the deadline exceeded in two polls": ([(0, LATE), (APART_S - 1, LATE), (APART_S, LATE)], "wait wait fail"),
    "the deadline exceeded, one pod healthy": ([(0, replace(ready(CRASHES), overdue=EXCEEDED)), (12, replace(ready(CRASHES), overdue=EXCEEDED))], "wait fail"),
    "the deadline exceeded within the grace": ([(0, replace(UNSCHEDULABLE, overdue=EXCEEDED)), (12, replace(UNSCHEDULABLE, overdue=EXCEEDED))], "wait fail"),
    "one poll": ([(0, CRASHES)], "wait"),
    "two polls too close": ([(0, CRASHES), (APART_S - 1, CRASHES)], "wait wait"),
    "two polls apart": ([(0, CRASHES), (APART_S, CRASHES)], "wait fail"),
    "every four seconds": ([(4 * n, CRASHES) for n in range(4)], "wait wait wait fail"),
    "a poll between that found nothing": ([(0, CRASHES), (4, Evidence()), (8, CRASHES), (12, CRASHES), (18, CRASHES)], "wait wait wait wait fail"),
    "another reason": ([(0, seen("command missing")), (12, CRASHES)], "wait fail"),
    "a registry down, however long": ([(30 * n, DOWN) for n in range(10)], " ".join(["wait"] * 10)),
    "within the grace": ([(0, unschedulable(NODE)), (59, unschedulable(NODE))], "wait wait"),
    "beyond the grace": ([(0, unschedulable(NODE)), (60, unschedulable(NODE))], "wait fail"),
    "a node was added": ([(0, unschedulable(NODE)), (50, unschedulable(NODE, NEW_NODE)), (109, unschedulable(NODE, NEW_NODE)), (110, unschedulable(NODE, NEW_NODE))], "wait wait wait fail"),
    "a node was removed": ([(0, unschedulable(NODE, NEW_NODE)), (60, unschedulable(NODE))], "wait fail"),
    "a scale-up began": ([(0, unschedulable(NODE)), (50, unschedulable(NODE, scale_ups=1)), (109, unschedulable(NODE, scale_ups=1)), (110, unschedulable(NODE, scale_ups=1))], "wait wait wait fail"),
    "a scale-up began again": ([(0, unschedulable(scale_ups=1)), (50, unschedulable(scale_ups=2)), (70, unschedulable(scale_ups=2))], "wait wait wait"),
    "a scale-up for another pod": ([(0, unschedulable(NODE)), (60, of_another_pod(unschedulable(NODE, scale_ups=1)))], "wait fail"),
    "scheduled at last, then a crash loop": ([(0, unschedulable(NODE)), (50, CRASHES), (55, CRASHES), (60, CRASHES)], "wait wait wait fail"),
    "one of two fits no node": ([(0, Evidence(pods=(*CRASHES.pods, *UNSCHEDULABLE.pods))), (30, Evidence(pods=(*CRASHES.pods, *UNSCHEDULABLE.pods)))], "wait wait"),
}  # fmt: skip


@pytest.mark.parametrize(("polls", "outcomes"), SEQUENCES.values(), ids=SEQUENCES)
def test_fails_only_if_two_polls_find_it_stuck(polls, outcomes):
    """Two polls 10 s apart fail a rollout; a pod that fits no node has the target's grace, restarted by signs of new nodes."""
    assert outcomes == " ".join(verdict.outcome for verdict in judged(*polls))


def test_grace_is_never_shorter_than_two_polls():
    """With a grace of one second, one poll is still not enough."""
    outcomes = [
        verdict.outcome for verdict in judged((0, UNSCHEDULABLE), (2, UNSCHEDULABLE), (10, UNSCHEDULABLE), grace_s=1)
    ]
    assert outcomes == ["wait", "wait", "fail"]


def test_verdicts_say_why_and_from_when_it_counts():
    """The rollout's reason comes first, then the pod's; a rollout that is not stuck has only its own."""
    name = f"pod/{CRASHES.pods[0]['metadata']['name']}"
    assert judged((0, CRASHES), (12, CRASHES), (16, Evidence())) == [
        Verdict.wait(f"{WAITING.reason}; {name}: CrashLoopBackOff: Error: exit code 2, 3 restarts (counts after 10 s)"),
        Verdict.failed(f"{WAITING.reason}; {name}: CrashLoopBackOff: Error: exit code 2, 3 restarts, for 12 s"),
        WAITING,
    ]


def test_exceeded_deadline_comes_before_the_pods_reason():
    """The line first says why the wait ended, then what is wrong with the pods. A crash loop still blames the release."""
    late = replace(CRASHES, overdue=EXCEEDED)
    name = f"pod/{CRASHES.pods[0]['metadata']['name']}"
    reason = f"{WAITING.reason}; {EXCEEDED}; {name}: CrashLoopBackOff: Error: exit code 2, 3 restarts"
    assert judged((0, late), (12, late))[-1] == Verdict.failed(f"{reason}, for 12 s")
    assert find_stuck(late).blames_release


def revision(name, number, *, owner="u-1", release="abcdefabcdef"):
    """A ReplicaSet of a Deployment."""
    return {
        "metadata": {
            "name": name, "uid": name, "annotations": {"deployment.kubernetes.io/revision": str(number)},
            "labels": {"slipway/release": release}, "ownerReferences": [{"uid": owner}],
        }
    }  # fmt: skip


def owned(name, owner, **metadata):
    """A pod of a ReplicaSet."""
    return {"metadata": {"name": name, "ownerReferences": [{"uid": owner}], **metadata}}


GATHERED = {
    "none yet": ([], None),
    "the newest": ([revision("old", 9, release="before"), revision("new", 10)], "new"),
    "an old one that was rolled back to": ([revision("new", 12), revision("old", 11)], "new"),
    "the newest is another release's": ([revision("ours", 9), revision("theirs", 10, release="theirs")], None),
    "another Deployment's": ([revision("ours", 2), revision("theirs", 10, owner="u-2")], "ours"),
}


@pytest.mark.parametrize(("replica_sets", "name"), GATHERED.values(), ids=GATHERED)
def test_only_the_newest_replica_set_of_this_release_is_judged(replica_sets, name):
    """Only pods of the newest ReplicaSet count, and only if it is the release's."""
    pods = [owned("a", "new"), owned("b", "old"), owned("c", "ours"), owned("d", "theirs")]
    found = gather_rollout_evidence(replica_sets, pods, deployment_uid="u-1", release_id="abcdefabcdef")
    assert name == (found.replica_set and found.replica_set["metadata"]["name"])
    assert {"new": ["a"], "ours": ["c"], None: []}[name] == [pod["metadata"]["name"] for pod in found.pods]
    assert not found.terminating


def test_terminating_pods_are_noted():
    """Pods of the previous release that still terminate use quota."""
    pods = [owned("a", "new"), owned("b", "old", deletionTimestamp="2026-11-24T04:22:00Z")]
    assert gather_rollout_evidence(
        [revision("new", 2)], pods, deployment_uid="u-1", release_id="abcdefabcdef"
    ).terminating


ASKED = {"image missing": True, "ConfigMap of a volume missing": True, "unschedulable": True, "crash loop": False, "OOM kill": False}  # fmt: skip


@pytest.mark.parametrize(("case", "asked"), ASKED.items())
def test_events_are_read_if_they_can_matter(case, asked):
    """If a pod's status says everything, no events are listed."""
    assert needs_pod_events(seen(case).pods) is asked
