import json
from pathlib import Path

import yaml
from trigger_events import FAR, events_of

from slipway.dag.triggers.rollout import RolloutTrigger
from slipway.facts import to_dict
from slipway.verdict import Verdict

STUCK = yaml.safe_load((Path(__file__).parents[2] / "kubernetes" / "stuck.yaml").read_text())
SEEN, MISSING = STUCK["crash loop"], STUCK["image missing"]["pod"]
DEPLOYMENT = {
    "metadata": {"name": "tfs-server", "uid": SEEN["replica_set"]["metadata"]["ownerReferences"][0]["uid"], "generation": 4},
    "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "tfs-server"}}, "template": {}},
    "status": {"observedGeneration": 4, "replicas": 1, "updatedReplicas": 1},
}  # fmt: skip
REPLICA_SET = {**SEEN["replica_set"], "spec": {"selector": {}}}
ROLLING = "deployment/tfs-server in shop: 0 of 1 updated replicas are available"
CRASHING = f"{ROLLING}; pod/{SEEN['pod']['metadata']['name']}: CrashLoopBackOff: Error: exit code 2, 3 restarts"


def answers(*lists):
    """The API server's answers to one poll: the Deployment, then these lists."""
    return [(200, json.dumps(DEPLOYMENT)), *((200, json.dumps({"items": [found]})) for found in lists)]


def rollout(release, *times_s):
    """A rollout's trigger that polls at these times."""
    own = {"release_id": "r", "uid": DEPLOYMENT["metadata"]["uid"], "generation": 4}
    trigger = RolloutTrigger(release=to_dict(release), deadline=FAR, poll_s=0.001, **own)
    trigger.clock = iter(times_s).__next__
    return trigger


async def test_stuck_rollout_fails_if_polls_10_s_apart_find_it_stuck(release, connected, http_server):
    """A crash loop seen at 0, 4, 8 and 12 s fails at 12 s, with the pod's own message and three requests per poll."""
    server = http_server(*answers(REPLICA_SET, SEEN["pod"]) * 4)
    connected(server)
    (event,) = await events_of(rollout(release, 0, 4, 8, 12))
    assert event == {"outcome": "fail", "reason": f"{CRASHING}, for 12 s", "found": True, "late": False}
    assert len(server.seen) == 12
    assert {seen.method for seen in server.seen} == {"GET"}


async def test_stuck_rollout_fails_although_events_may_not_be_listed(release, connected, http_server):
    """The pod's status says that the image is missing. The reason says what could not be read."""
    owners = {"ownerReferences": SEEN["pod"]["metadata"]["ownerReferences"]}
    pod = {**MISSING, "metadata": {**MISSING["metadata"], **owners}}
    connected(http_server(*[*answers(REPLICA_SET, pod), (403, "{}")] * 2))
    trigger = rollout(release, 0, 12)
    first, second = [await trigger.poll_release(release) for _ in range(2)]
    unread = f"{ROLLING}; connection kubernetes_default may not list events in shop; "
    assert (first.outcome, second.outcome) == ("wait", "fail")
    assert second.reason.startswith(f"{unread}pod/{pod['metadata']['name']}: ImagePullBackOff: ")
    assert second.reason.endswith("not found, for 12 s")


async def test_stuck_rollout_waits_again_if_the_trigger_was_restarted(release, connected, http_server):
    """Polls of an earlier triggerer do not count: the first poll of the next one only waits."""
    connected(http_server(*answers(REPLICA_SET, SEEN["pod"]) * 2))
    for time_s in (0, 40):
        verdict = await rollout(release, time_s).poll_release(release)
        assert verdict == Verdict.wait(f"{CRASHING} (counts after 10 s)")


def labelled(name, release_id, **metadata):
    """A ready pod of this release, version 7."""
    return {
        "metadata": {"name": name, "uid": name, "labels": {"slipway/release": release_id, "slipway/version": "7"}, **metadata},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }  # fmt: skip


async def test_rollout_waits_until_old_pods_of_the_same_version_are_gone(release, connected, http_server):
    """A release that changed only manifests has the same version as the one before, whose pods could pass the gate instead."""
    rolled_out = {
        **DEPLOYMENT,
        "spec": {**DEPLOYMENT["spec"], "template": {"metadata": {"labels": {"slipway/version": "7"}}}},
        "status": {**DEPLOYMENT["status"], "availableReplicas": 1},
    }
    new, old = (
        labelled("b", "r"),
        labelled("a", "before", deletionTimestamp="2026-11-28T12:00:00Z", deletionGracePeriodSeconds=20),
    )
    answered = [{"items": [new, old]}, {"items": [new]}]
    connected(http_server(*((200, json.dumps(found)) for pods in answered for found in (rolled_out, pods))))
    trigger = rollout(release, 0)
    first, second = [await trigger.poll_release(release) for _ in answered]
    assert first == Verdict.wait("pod/a of release before still answers for version 7 while it terminates")
    assert second == Verdict.passed("pods of release r in shop: 1 of 1 are ready, and there are no others")


async def test_rollout_waits_if_its_pods_cannot_be_read(release, connected, http_server):
    """Without the right to list ReplicaSets the wait goes on and says what could not be read."""
    connected(http_server((200, json.dumps(DEPLOYMENT)), (403, "{}")))
    verdict = await rollout(release).poll_release(release)
    assert verdict == Verdict.wait(f"{ROLLING}; its pods could not be read: ApiException: Forbidden")


EXCEEDED = {
    "type": "Progressing",
    "status": "False",
    "reason": "ProgressDeadlineExceeded",
    "message": "it has timed out",
}
OVERDUE = {**DEPLOYMENT, "status": {**DEPLOYMENT["status"], "conditions": [EXCEEDED]}}
DONE = {**DEPLOYMENT, "status": {**DEPLOYMENT["status"], "availableReplicas": 1}}
READY = {
    "metadata": {"name": "a", "labels": {"slipway/release": "r"}},
    "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
}


def listed(*found):
    """The API server's answer to a list call."""
    return 200, json.dumps({"items": list(found)})


async def test_rollout_passes_after_a_deadline_that_the_generation_before_exceeded(release, connected, http_server):
    """The controller publishes a new generation with the old condition first: one poll that sees it only waits."""
    stale = [(200, json.dumps(OVERDUE)), listed(), listed()]
    connected(http_server(*stale, (200, json.dumps(DONE)), listed(READY)))
    (event,) = await events_of(rollout(release, 0))
    assert (event["outcome"], event["found"]) == ("pass", False)


async def test_exceeded_deadline_fails_although_the_pods_cannot_be_read(release, connected, http_server):
    """The rollout fails after two polls, with the controller's message, even if the account may not list pods."""
    connected(http_server(*[(200, json.dumps(OVERDUE)), (403, "{}")] * 2))
    (event,) = await events_of(rollout(release, 0, 12))
    unread = f"{ROLLING}; its pods could not be read: ApiException: Forbidden"
    reason = f"{unread}; exceeded its progress deadline: it has timed out, for 12 s"
    assert event == {"outcome": "fail", "reason": reason, "found": False, "late": False}
