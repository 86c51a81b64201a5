"""Stuck rollouts on the real API server and kubelet: each fails within seconds, with the reason of its pods.

All Deployments are applied at once and waited for at once, each by the trigger that a refresh and a rollback defer to.
"""

import asyncio
import itertools
import json
import math
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from kubernetes.client import CoreV1Api
from kubernetes.config import new_client_from_config

from local.parts.cluster import pause_image
from local.settings import settings_here
from slipway.dag.tasks.waits import RolloutWait
from slipway.dag.triggers.rollout import RolloutTrigger
from slipway.facts import to_dict
from slipway.kubernetes.stuck import APART_S
from slipway.release import Release, Source
from slipway.target import Target

LIMIT_S = 1800  # for a busy machine: the tests count polls
GRACE_S = 15
OUTAGE_S = 16  # longer than two polls that are 10 s apart …
REFUSED = 2  # … and the kubelet is refused at least so often
LABEL = "slipway.test/fail-fast"

pytestmark = [pytest.mark.stand, pytest.mark.alongside]


def deployment(name, image, *, namespace, pod=None, volumes=(), **container):
    """A Deployment of one pod, as a hardened cluster admits it unless `pod` says otherwise."""
    own = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    hardened = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {
        "automountServiceAccountToken": False,
        "securityContext": hardened,
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "tfs-k8s", "image": image, "securityContext": own, **container}],
        "volumes": list(volumes),
        **(pod or {}),
    }
    labels = {"app": name, "slipway/release": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": {LABEL: "yes"}},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def deployments(stand, refused_image):
    """One Deployment for each way of being stuck, and one that becomes ready once the registry responds again."""
    pause, serving, namespace = pause_image(settings_here()), stand["serving_image"], stand["namespace"]
    registry = stand["registry"].split("/", 1)[0]
    key = {"configMapKeyRef": {"name": "kube-root-ca.crt", "key": "nowhere"}}
    probe = {"httpGet": {"path": "/v1/models/model", "port": 8501}, "periodSeconds": 2, "failureThreshold": 150}
    broken = {"name": "model", "configMap": {"name": "ff-model"}}
    made = {
        "image-missing": {"image": f"{registry}/nothing/here@sha256:{'0' * 64}"},
        "crash-loop": {"image": pause, "args": ["answer", "nowhere:x"], "startupProbe": probe},
        "out-of-memory": {
            "image": serving,
            "command": ["python3", "-c", "bytearray(10**9)"],
            "startupProbe": probe,  # without one, a pod counts as ready until it is killed
            "resources": {"limits": {"memory": "64Mi"}},
        },
        "bad-model": {
            "image": serving,
            "args": ["--max_num_load_retries=0"],
            "startupProbe": probe,
            "volumes": [broken],
            "volumeMounts": [{"name": "model", "mountPath": "/models/model/1"}],
        },
        "bad-config": {"image": pause, "env": [{"name": "KEY", "valueFrom": key}]},
        "not-admitted": {"image": pause, "pod": {"securityContext": {}}},
        "fits-no-node": {"image": pause, "resources": {"requests": {"cpu": "1000"}}},
        "registry-outage": {"image": refused_image, "command": ["sleep", "1000"], "imagePullPolicy": "Always"},
    }
    model = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "ff-model", "namespace": namespace, "labels": {LABEL: "yes"}},
        "data": {"saved_model.pb": "no model"},
    }
    return [model, *(deployment(f"ff-{name}", namespace=namespace, **own) for name, own in made.items())]


@contextmanager
def unavailable_registry(registry, *, seconds):
    """The address of a registry that answers 503 for some seconds and to the kubelet's first tries, then redirects to the real one."""
    end_s, numbers = time.monotonic() + seconds, itertools.count(1)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            number = next(numbers)
            self.send_response(503 if time.monotonic() < end_s or number <= REFUSED else 307)
            self.send_header("Location", f"http://{registry}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 - the name is http.server's

        def log_message(self, *_):
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def release_to(stand, name):
    """A release to a Deployment; these tests read only its target and its grace."""
    return Release(
        model="fail-fast", run_id="test", source=Source(kind="folder", location="x", revision="sha256:1"), exporter="sha256:2",
        base_image="x", base_digest="sha256:3", repository="x/y", engine_conn_id="docker_default", registry_conn_id=None,
        target=Target(conn_id="kubernetes_default", namespace=stand["namespace"]), deployment=name, overlay=None, address=None,
        golden=(), gate_passes=1, gate_timeout_s=1, rollout_timeout_s=1, address_timeout_s=1, manifests_hash="sha256:4",
        store="file:///nowhere", force=False, keep_first=False, unschedulable_grace_s=GRACE_S,
    )  # fmt: skip


class Watched(RolloutTrigger):
    """The trigger, and the times of its latest consecutive polls that found the rollout stuck."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stuck_s, self.is_stuck = [], asyncio.Event()

    async def poll_release(self, release):
        """Poll once."""
        verdict = await super().poll_release(release)
        if "(counts after" in verdict.reason:
            self.stuck_s.append(time.monotonic())
            self.is_stuck.set()
        elif verdict.outcome == "wait":
            self.stuck_s.clear()
        return verdict


def watched(stand, applied):
    """The release of an applied Deployment, and the trigger that waits for it."""
    release, metadata = release_to(stand, applied["metadata"]["name"]), applied["metadata"]
    own = {"release_id": release.deployment, "uid": metadata["uid"], "generation": metadata["generation"]}
    return release, Watched(release=to_dict(release), deadline=time.time() + LIMIT_S, poll_s=RolloutWait.poll_s, **own)


async def end_of(release, trigger, began_s):
    """The end of one wait: its event, the seconds until then, and when polls found the rollout stuck."""
    event = await anext(trigger.run())
    after_s, stuck_s = time.monotonic() - began_s, [at_s - began_s for at_s in trigger.stuck_s]
    return SimpleNamespace(**event.payload, after_s=after_s, stuck_s=stuck_s, release=release)


async def wait_for_all(stand, applied, began_s, add_node):
    """The ends of all waits by name; a node is added as soon as a poll has found that a pod fits no node."""
    waits = {found["metadata"]["name"].removeprefix("ff-"): watched(stand, found) for found in applied}

    async def add_node_in_time():
        await asyncio.wait_for(waits["fits-no-node"][1].is_stuck.wait(), LIMIT_S)
        after_s = time.monotonic() - began_s
        await asyncio.to_thread(add_node)
        return SimpleNamespace(outcome="added", after_s=after_s, reason="it takes no pods")

    ends = await asyncio.gather(*[end_of(*wait, began_s) for wait in waits.values()], add_node_in_time())
    return dict(zip([*waits, "node"], ends, strict=True))


@pytest.fixture(scope="module")
def ends(stand, surroundings):
    """How each rollout ended, and when the node was added."""
    kubectl = [str(Path(sys.executable).parent / "kubectl"), "--kubeconfig", stand["kubeconfig"]]
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"ff-{stand['namespace']}"},
        "spec": {"unschedulable": True},
    }

    def run(*words, objects=()):
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        return subprocess.run(
            [*kubectl, *words], input=listed, capture_output=True, text=True, check=True, timeout=600
        ).stdout

    def add_node():
        with new_client_from_config(stand["kubeconfig"]) as client:
            CoreV1Api(client).create_node(node)

    registry, path = stand["serving_image"].split("/", 1)
    with (
        pytest.MonkeyPatch.context() as patch,
        unavailable_registry(registry, seconds=OUTAGE_S) as unavailable,
    ):
        patch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", surroundings["AIRFLOW_CONN_KUBERNETES_DEFAULT"])
        image = f"{unavailable}/{path}"
        try:
            began_s = time.monotonic()
            created = json.loads(run("apply", "-o", "json", "-f", "-", objects=deployments(stand, image)))["items"]
            applied = [found for found in created if found["kind"] == "Deployment"]
            found = asyncio.run(wait_for_all(stand, applied, began_s, add_node))
            for name, end in found.items():
                print(f"{name}: {end.outcome} after {end.after_s:.0f} s: {end.reason}")
            yield found
        finally:
            run("delete", "node", node["metadata"]["name"], "--ignore-not-found")
            run("-n", stand["namespace"], "delete", "deployment,configmap", "-l", f"{LABEL}=yes")
            ctr = ["ctr", "--address", str(settings_here().containerd_socket), "-n", "k8s.io", "images", "rm", image]
            subprocess.run(ctr, capture_output=True, check=False, timeout=60)


STUCK = {
    "image-missing": "not found",
    "crash-loop": "CrashLoopBackOff: Error: exit code 2",
    "out-of-memory": "CrashLoopBackOff: OOMKilled: exit code 137",
    "bad-model": "CrashLoopBackOff: Error: exit code 255",
    "bad-config": "CreateContainerConfigError: couldn't find key nowhere in ConfigMap",
    "not-admitted": 'FailedCreate: pods "ff-not-admitted',
    "fits-no-node": "Unschedulable: 0/",
}


@pytest.mark.parametrize(("name", "words"), STUCK.items())
def test_a_stuck_rollout_fails_with_its_pods_reason(ends, name, words):
    """A rollout that cannot succeed fails at the first poll at which its state counts, with the reason: within a minute on an idle machine."""
    end = ends[name]
    assert (end.outcome, words in end.reason) == ("fail", True), end.reason
    assert "time is up" not in end.reason
    polls = [at_s for at_s in end.stuck_s if name != "fits-no-node" or at_s > ends["node"].after_s]
    counts_after_s = GRACE_S if name == "fits-no-node" else APART_S
    assert len(polls) <= 1 + math.ceil(counts_after_s / RolloutWait.poll_s)


def test_the_message_has_the_servers_last_log_line_and_the_next_command(ends, monkeypatch, surroundings):
    """The message is one line: the pod's state, the server's last log line, and what to do next."""
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", surroundings["AIRFLOW_CONN_KUBERNETES_DEFAULT"])
    end = ends["bad-model"]
    wait = RolloutWait(release=end.release, applied=SimpleNamespace(release_id="ff-bad-model"))
    line = str(wait.failure({"reason": end.reason, "found": end.found}))
    assert line.startswith(f"{end.reason} (pod/ff-bad-model-")
    assert " log: " in line
    assert "did not become available" in line
    assert line.endswith(
        f"). Next: kubectl -n {end.release.target.namespace} describe pods -l slipway/release=ff-bad-model"
    )


def test_an_added_node_restarts_the_grace(ends):
    """A rollout whose pod fits no node fails after the grace, counted from the last node that was added."""
    assert ends["fits-no-node"].after_s > ends["node"].after_s + GRACE_S


def test_a_short_outage_of_the_registry_fails_nothing(ends):
    """A registry may answer 503 for longer than two polls need: the rollout succeeds once it responds again."""
    end = ends["registry-outage"]
    assert end.outcome == "pass", end.reason
    assert end.after_s > OUTAGE_S
