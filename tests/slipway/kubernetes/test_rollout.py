import pytest

from slipway.kubernetes.address import judge_address, service_grpc_address
from slipway.kubernetes.diagnosis import explain_pods, next_pod_command
from slipway.kubernetes.rollout import find_overdue, judge_drain, judge_rollout, release_selector
from slipway.verdict import Verdict

WHERE = "deployment/tfs-server in shop"


def deployment(*, generation=4, replicas=2, paused=False, **status):
    """A Deployment as the API server returns it, by default with a complete rollout."""
    spec = {"replicas": replicas, **({"paused": True} if paused else {})}
    settled = {"observedGeneration": generation, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
    return {
        "metadata": {"name": "tfs-server", "uid": "u-1", "generation": generation},
        "spec": spec,
        "status": {name: value for name, value in {**settled, **status}.items() if value != "absent"},
    }


EXCEEDED = [
    {
        "type": "Progressing",
        "status": "False",
        "reason": "ProgressDeadlineExceeded",
        "message": 'ReplicaSet "x" has timed out.',
    }
]
AVAILABLE = [
    {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable"},
    {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"},
]
ROLLOUTS = {
    "settled": (deployment(), Verdict.passed(f"{WHERE}: 2 of 2 replicas are available")),
    "generation not observed": (
        deployment(observedGeneration=3),
        Verdict.wait(f"{WHERE}: generation 3 observed, 4 applied"),
    ),
    "just created, status empty": (
        deployment(observedGeneration="absent", replicas="absent", updatedReplicas="absent", availableReplicas="absent")
        | {"spec": {"replicas": 1}},
        Verdict.wait(f"{WHERE}: generation 0 observed, 4 applied"),
    ),
    "status missing": (
        {"metadata": {"name": "tfs-server", "uid": "u-1", "generation": 4}, "spec": {"replicas": 1}},
        Verdict.wait(f"{WHERE}: generation 0 observed, 4 applied"),
    ),
    "deadline exceeded, which two polls have to see": (
        deployment(updatedReplicas=1, conditions=EXCEEDED),
        Verdict.wait(f"{WHERE}: 1 of 2 new replicas have been updated"),
    ),
    "deadline exceeded by an older generation": (
        deployment(observedGeneration=3, conditions=EXCEEDED),
        Verdict.wait(f"{WHERE}: generation 3 observed, 4 applied"),
    ),
    "new replicas missing": (
        deployment(updatedReplicas=1, conditions=AVAILABLE),
        Verdict.wait(f"{WHERE}: 1 of 2 new replicas have been updated"),
    ),
    "no replica updated, field absent": (
        deployment(updatedReplicas="absent"),
        Verdict.wait(f"{WHERE}: 0 of 2 new replicas have been updated"),
    ),
    "numbers are null": (
        deployment(updatedReplicas=None, availableReplicas=None, replicas=2),
        Verdict.wait(f"{WHERE}: 0 of 2 new replicas have been updated"),
    ),
    "old pods terminating": (
        deployment() | {"status": {"observedGeneration": 4, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3}},
        Verdict.wait(f"{WHERE}: 1 old replicas are pending termination"),
    ),
    "unavailable": (
        deployment(availableReplicas=1, conditions=AVAILABLE),
        Verdict.wait(f"{WHERE}: 1 of 2 updated replicas are available"),
    ),
    "none available, field absent": (
        deployment(availableReplicas="absent"),
        Verdict.wait(f"{WHERE}: 0 of 2 updated replicas are available"),
    ),
    "paused": (deployment(paused=True, updatedReplicas=0), Verdict.failed(f"{WHERE}: its rollout is paused")),
    "scaled to zero": (
        {"metadata": {"name": "tfs-server", "uid": "u-1", "generation": 5}, "spec": {"replicas": 0}, "status": {"observedGeneration": 5}},
        Verdict.passed(f"{WHERE}: 0 of 0 replicas are available"),
    ),
    "replicas not set: one, Kubernetes' default": (
        {
            "metadata": {"name": "tfs-server", "uid": "u-1", "generation": 4},
            "spec": {"replicas": None},
            "status": {"observedGeneration": 4, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1, "conditions": None},
        },
        Verdict.passed(f"{WHERE}: 1 of 1 replicas are available"),
    ),
    "everything in the status is null": (
        {"metadata": {"name": "tfs-server", "uid": "u-1", "generation": 4}, "spec": {"replicas": 1}, "status": {"observedGeneration": None}},
        Verdict.wait(f"{WHERE}: generation 0 observed, 4 applied"),
    ),
    "recreated": (
        {**deployment(generation=4), "metadata": {"name": "tfs-server", "uid": "u-2", "generation": 4}},
        Verdict.failed(f"{WHERE}: not the object that was applied: somebody recreated it"),
    ),
    "gone": (None, Verdict.failed("the Deployment is gone: somebody deleted it during the rollout")),
    "HPA changed replicas, not yet observed": (
        deployment(generation=5, replicas=3, observedGeneration=4),
        Verdict.wait(f"{WHERE}: generation 4 observed, 5 applied"),
    ),
    "HPA changed replicas, third one missing": (
        deployment(generation=5, replicas=3),
        Verdict.wait(f"{WHERE}: 2 of 3 new replicas have been updated"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("seen", "verdict"), ROLLOUTS.values(), ids=ROLLOUTS)
def test_verdict_of_a_rollout(seen, verdict):
    """The verdict follows kubectl's algorithm, for the generation that was applied."""
    assert verdict == judge_rollout(seen, uid="u-1", generation=4, namespace="shop")


def draining(release_id="old", version="7", phase="Running", **metadata):
    """A terminating pod with a grace period of 20 s."""
    labels = {"slipway/release": release_id, "slipway/version": version}
    own = {"name": "a", "uid": "u", "labels": labels, "deletionTimestamp": "t", "deletionGracePeriodSeconds": 20}
    return {"metadata": {**own, **metadata}, "status": {"phase": phase}}


WAITS = Verdict.wait("pod/a of release old still answers for version 7 while it terminates")
GONE = Verdict.passed("no terminating pod answers for this version")
DRAINS = {  # the pod; since when it is known; the verdict at 100 s
    "of another release with this version": (draining(), {}, WAITS),
    "still within its grace period": (draining(), {"u": 51.0}, WAITS),
    "its node is lost": (draining(), {"u": 50.0}, GONE),
    "of another version": (draining(version="6"), {}, GONE),
    "of this release": (draining(release_id="new"), {}, GONE),
    "has ended": (draining(phase="Succeeded"), {}, GONE),
    "not terminating": (draining(deletionTimestamp=None), {}, GONE),
    "without a grace period": (draining(deletionGracePeriodSeconds=None), {"u": 41.0}, WAITS),
    "without labels": (draining(labels=None), {}, GONE),
}


@pytest.mark.parametrize(("pod", "since_s", "verdict"), DRAINS.values(), ids=DRAINS)
def test_waits_for_terminating_pods_that_could_pass_the_gate_instead(pod, since_s, verdict):
    """Until such a pod is gone, it may be the one that answers."""
    known_s, found = judge_drain([pod], release_id="new", version="7", since_s=since_s, now_s=100.0)
    assert found == verdict
    assert known_s in ({"u": since_s.get("u", 100.0)}, {})


@pytest.mark.parametrize(
    ("conditions", "overdue"),
    [(EXCEEDED, 'exceeded its progress deadline: ReplicaSet "x" has timed out'), (AVAILABLE, None), (None, None)],
)
def test_overdue_in_the_controllers_words(conditions, overdue):
    """A rollout is overdue if its Deployment says so."""
    assert overdue == find_overdue(deployment(conditions=conditions))


def service(*ingress):
    """A Service with these addresses."""
    return {"status": {"loadBalancer": {"ingress": list(ingress)} if ingress else {}}}


ADDRESSES = {
    "ip": (service({"ip": "203.0.113.9"}), "http://203.0.113.9:8501"),
    "hostname": (service({"hostname": "lb.example.com"}), "http://lb.example.com:8501"),
    "ip before hostname": (service({"ip": "203.0.113.9", "hostname": "lb.example.com"}), "http://203.0.113.9:8501"),
    "IPv6": (service({"ip": "2001:db8::9"}), "http://[2001:db8::9]:8501"),
}


@pytest.mark.parametrize(("seen", "url"), ADDRESSES.values(), ids=ADDRESSES)
def test_url_if_the_service_has_an_address(seen, url):
    """An address passes with the URL of the REST port."""
    assert (Verdict.passed(f"service/tfs-server in shop: {url}"), url) == judge_address(
        seen, name="tfs-server", namespace="shop"
    )


@pytest.mark.parametrize(
    "seen", [service(), {}, {"status": {"loadBalancer": {"ingress": None}}}, service({"ports": []})], ids=str
)
def test_wait_if_the_service_has_no_address(seen):
    """A Service without an address is a wait without a URL."""
    verdict = Verdict.wait("service/tfs-server in shop: no address yet")
    assert (verdict, None) == judge_address(seen, name="tfs-server", namespace="shop")


GRPC_PORTS = [{"name": "tf-serving-restapi", "port": 8501}, {"name": "tf-serving-grpc", "port": 9000}]
GRPC = {
    "by its port's name": ({"ip": "203.0.113.9"}, GRPC_PORTS, "203.0.113.9:9000"),
    "IPv6": ({"ip": "2001:db8::9"}, GRPC_PORTS, "[2001:db8::9]:9000"),
    "no such port": ({"ip": "203.0.113.9"}, GRPC_PORTS[:1], None),
    "no ports": ({"ip": "203.0.113.9"}, None, None),
    "no address": (None, GRPC_PORTS, None),
}


@pytest.mark.parametrize(("ingress", "ports", "address"), GRPC.values(), ids=GRPC)
def test_grpc_address_has_the_services_port(ingress, ports, address):
    """An overlay may change gRPC's port, or remove it."""
    seen = {**service(*filter(None, [ingress])), "spec": {"ports": ports}}
    assert address == service_grpc_address(seen)


def test_fail_if_the_service_is_gone():
    """Waiting does not help a Service that does not exist."""
    verdict = Verdict.failed("service/tfs-server in shop: does not exist")
    assert (verdict, None) == judge_address(None, name="tfs-server", namespace="shop")


def pod(name, *containers, conditions=()):
    """A pod with these container statuses."""
    return {
        "metadata": {"name": name},
        "status": {"containerStatuses": list(containers), "conditions": list(conditions)},
    }


def waiting(reason, message=None, *, restarts=0, last=None):
    """A container that waits."""
    state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
    return {"state": state, "lastState": {"terminated": last} if last else {}, "restartCount": restarts, "ready": False}


UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/1 nodes are available:\n 1 Insufficient cpu.",
}
PODS = {
    "image pull": (
        [pod("a", waiting("ImagePullBackOff", 'Back-off pulling image "r/x@sha256:d"'))],
        ['pod/a: ImagePullBackOff: Back-off pulling image "r/x@sha256:d"'],
    ),
    "crash loop": (
        [pod("a", waiting("CrashLoopBackOff", "back-off 20s", restarts=3, last={"reason": "Error", "exitCode": 134}))],
        ["pod/a: CrashLoopBackOff: back-off 20s", "pod/a: Error: exit code 134, 3 restarts"],
    ),
    "ended": (
        [pod("a", {"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}, "lastState": {}, "restartCount": 0})],
        ["pod/a: OOMKilled: exit code 137, 0 restarts"],
    ),
    "unschedulable": (
        [pod("a", conditions=[UNSCHEDULABLE])],
        ["pod/a: Unschedulable: 0/1 nodes are available: 1 Insufficient cpu."],
    ),
    "running, not ready": (
        [pod("a", {"state": {"running": {"startedAt": "x"}}, "lastState": {}, "restartCount": 0, "ready": False})],
        ["pod/a: running, not ready, 0 restarts"],
    ),
    "ready": ([pod("a", {"state": {"running": {}}, "lastState": {}, "restartCount": 0, "ready": True})], []),
    "no status yet": ([{"metadata": {"name": "a"}}], []),
    "none": ([], []),
    "first three only": (
        [pod(name, waiting("ErrImagePull")) for name in "abcd"],
        [f"pod/{name}: ErrImagePull: " for name in "abc"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("pods", "lines"), PODS.values(), ids=PODS)
def test_reasons_of_pods(pods, lines):
    """Each reason is one line that names the pod."""
    assert lines == explain_pods(pods, [], deployment="tfs-server")


def event(kind, name, reason, *, type_="Warning", message="no  luck\nat all"):
    """An event of an object."""
    return {"type": type_, "reason": reason, "message": message, "involvedObject": {"kind": kind, "name": name}}


EVENTS = {
    "of a pod": ([event("Pod", "a", "Failed")], ["pod/a: Failed: no luck at all"]),
    "of a ReplicaSet": ([event("ReplicaSet", "tfs-server-1", "FailedCreate")], ["replicaset/tfs-server-1: FailedCreate: no luck at all"]),
    "of its preview's ReplicaSet": ([event("ReplicaSet", "tfs-server-preview-1", "FailedCreate")], []),
    "of another model's ReplicaSet": ([event("ReplicaSet", "tfs-other-1", "FailedCreate")], []),
    "of another pod": ([event("Pod", "other", "Failed")], []),
    "normal": ([event("Pod", "a", "Scheduled", type_="Normal")], []),
    "twice": ([event("Pod", "a", "Failed"), event("Pod", "a", "Failed")], ["pod/a: Failed: no luck at all"]),
    "without a message": ([event("Pod", "a", "Failed", message=None)], ["pod/a: Failed: "]),
}  # fmt: skip


@pytest.mark.parametrize(("events", "lines"), EVENTS.values(), ids=EVENTS)
def test_reasons_of_events(events, lines):
    """Each warning of the release's pods and ReplicaSets is one line, once."""
    assert lines == explain_pods([pod("a", {"state": {"running": {}}, "ready": True})], events, deployment="tfs-server")


def test_pods_before_events():
    """The pods' own reasons come first: they say the most."""
    lines = explain_pods([pod("a", waiting("ErrImagePull"))], [event("Pod", "a", "Failed")], deployment="tfs-server")
    assert lines == ["pod/a: ErrImagePull: ", "pod/a: Failed: no luck at all"]


def test_next_command_selects_the_pods_of_the_release(release):
    """The next command can be pasted: namespace and selector of this release."""
    assert release_selector("abcdefabcdef") == "slipway/release=abcdefabcdef"
    assert next_pod_command(release, "abcdefabcdef") == "kubectl -n shop describe pods -l slipway/release=abcdefabcdef"
