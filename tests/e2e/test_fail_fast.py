"""Rollouts that will not come, on the real API server and kubelet: each is given up in seconds, in the words of its pods.

All Deployments are applied at once and waited for at once, each by the trigger that a refresh and a rollback defer to.
"""

import asyncio
import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from local.parts.cluster import pause_image
from local.settings import settings_here
from slipway.dag.tasks.waits import RolloutSensor
from slipway.dag.triggers.rollout import RolloutTrigger
from slipway.facts import to_dict
from slipway.release import Release, Source
from slipway.target import Target

SOON_S = 60  # the promise, from the apply to the trigger's event
LIMIT_S = 150
GRACE_S = 15
NODE_AFTER_S = 8  # when a node is added
BLIP_S = 16  # two looks are 10 s apart, and the kubelet has pulled twice by then
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


def deployments(stand, blip):
    """One Deployment for each way not to come, and one that comes once the registry is well again."""
    pause, serving, namespace = pause_image(settings_here()), stand["serving_image"], stand["namespace"]
    registry = stand["registry"].split("/", 1)[0]
    key = {"configMapKeyRef": {"name": "kube-root-ca.crt", "key": "nowhere"}}
    probe = {"httpGet": {"path": "/v1/models/model", "port": 8501}, "periodSeconds": 2, "failureThreshold": 150}
    broken = {"name": "model", "configMap": {"name": "ff-model"}}
    made = {
        "image-missing": {"image": f"{registry}/nothing/here@sha256:{'0' * 64}"},
        "crash-loop": {"image": pause, "args": ["answer", "nowhere:x"]},
        "out-of-memory": {
            "image": serving,
            "command": ["python3", "-c", "bytearray(10**9)"],
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
        "blip": {"image": blip, "command": ["sleep", "1000"], "imagePullPolicy": "Always"},
    }
    model = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "ff-model", "namespace": namespace, "labels": {LABEL: "yes"}},
        "data": {"saved_model.pb": "no model"},
    }
    return [model, *(deployment(f"ff-{name}", namespace=namespace, **said) for name, said in made.items())]


@contextmanager
def registry_in_trouble(registry, *, until):
    """The address of a registry that answers 503 until `until()`, and then passes on to the real one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(307 if until() else 503)
            self.send_header("Location", f"http://{registry}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 - the name is http.server's

        def log_message(self, *_):
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def release_to(stand, name):
    """A release to a Deployment; nothing of it but where it goes is read here."""
    return Release(
        model="fail-fast", run_id="test", source=Source(kind="folder", location="x", revision="sha256:1"), exporter="sha256:2",
        base_image="x", base_digest="sha256:3", repository="x/y", engine_conn_id="docker_default", registry_conn_id=None,
        target=Target(conn_id="kubernetes_default", namespace=stand["namespace"]), deployment=name, overlay=None, address=None,
        golden=(), gate_passes=1, gate_timeout_s=1, rollout_timeout_s=1, address_timeout_s=1, manifests_hash="sha256:4",
        store="file:///nowhere", force=False, keep_first=False, unschedulable_grace_s=GRACE_S,
    )  # fmt: skip


async def waited_for(stand, applied, began_s):
    """The end of one wait: its event, and after how many seconds it came."""
    release, metadata = release_to(stand, applied["metadata"]["name"]), applied["metadata"]
    own = {"release_id": release.deployment, "uid": metadata["uid"], "generation": metadata["generation"]}
    trigger = RolloutTrigger(
        release=to_dict(release), deadline=time.time() + LIMIT_S, poll_s=RolloutSensor.poll_s, **own
    )
    event = await anext(trigger.run())
    return SimpleNamespace(**event.payload, after_s=time.monotonic() - began_s, release=release)


async def all_waited_for(stand, applied, began_s, add_node):
    """The ends of all waits by name; a node is added while they wait."""
    waits = [waited_for(stand, found, began_s) for found in applied]
    *ends, _ = await asyncio.gather(*waits, add_node())
    return {end.release.deployment.removeprefix("ff-"): end for end in ends}


@pytest.fixture(scope="module")
def ends(stand, surroundings):
    """How each rollout ended."""
    kubectl = [str(Path(sys.executable).parent / "kubectl"), "--kubeconfig", stand["kubeconfig"]]
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"ff-{stand['namespace']}"},
        "spec": {"unschedulable": True},
    }
    began_s = time.monotonic()

    def run(*words, objects=()):
        said = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        return subprocess.run(
            [*kubectl, *words], input=said, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    async def add_node():
        await asyncio.sleep(NODE_AFTER_S - (time.monotonic() - began_s))
        await asyncio.to_thread(run, "apply", "-f", "-", objects=[node])

    registry, path = stand["serving_image"].split("/", 1)
    with (
        pytest.MonkeyPatch.context() as patch,
        registry_in_trouble(registry, until=lambda: time.monotonic() - began_s > BLIP_S) as troubled,
    ):
        patch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", surroundings["AIRFLOW_CONN_KUBERNETES_DEFAULT"])
        blip = f"{troubled}/{path}"
        try:
            began_s = time.monotonic()
            said = json.loads(run("apply", "-o", "json", "-f", "-", objects=deployments(stand, blip)))["items"]
            applied = [found for found in said if found["kind"] == "Deployment"]
            found = asyncio.run(all_waited_for(stand, applied, began_s, add_node))
            for name, end in found.items():
                print(f"{name}: {end.outcome} after {end.after_s:.0f} s: {end.reason}")
            yield found
        finally:
            run("delete", "node", node["metadata"]["name"], "--ignore-not-found")
            run("-n", stand["namespace"], "delete", "deployment,configmap", "-l", f"{LABEL}=yes")
            ctr = ["ctr", "--address", str(settings_here().containerd_socket), "-n", "k8s.io", "images", "rm", blip]
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
def test_given_up_within_a_minute_in_the_pods_own_words(ends, name, words):
    """A rollout that will not come fails within a minute of its apply, and says why."""
    end = ends[name]
    assert (end.outcome, words in end.reason) == ("fail", True), end.reason
    assert end.after_s < SOON_S


def test_the_line_has_the_next_command_and_the_servers_last_words(ends, monkeypatch, surroundings):
    """What a person reads is one line: the pod's state, what the server said last, and what to do next."""
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", surroundings["AIRFLOW_CONN_KUBERNETES_DEFAULT"])
    end = ends["bad-model"]
    run = SimpleNamespace(release=end.release, applied=SimpleNamespace(release_id="ff-bad-model"))
    line = RolloutSensor(task_id="wait_for_rollout").explain(run, end.reason)
    assert line.startswith(f"RolloutFailed: {end.reason} (pod/ff-bad-model-")
    assert " log: " in line
    assert "did not become available" in line
    assert line.endswith(
        f"). Next: kubectl -n {end.release.target.namespace} describe pods -l slipway/release=ff-bad-model"
    )


def test_a_node_that_is_added_gives_a_pod_its_grace_anew(ends):
    """A pod that fits no node is given up when its grace is over, counted from the last node that came."""
    assert ends["fits-no-node"].after_s > NODE_AFTER_S + GRACE_S


def test_a_registrys_blip_does_not_count(ends):
    """A registry that answers 503 for longer than two looks need fails nothing: the rollout comes when it is back."""
    end = ends["blip"]
    assert end.outcome == "pass", end.reason
    assert end.after_s > BLIP_S
