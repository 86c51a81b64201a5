"""What tests of the stand share: its commands, and a pod that answers."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from local.parts.cluster import pause_image
from local.settings import settings_here

PROJECT = Path(__file__).resolve().parents[1]
PATIENCE_S = 1800  # far beyond what anything here takes: how long is the machine's business
RESTRICTED_POD = {
    "automountServiceAccountToken": False,
    "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
    "terminationGracePeriodSeconds": 1,
}


def local(*words, folder=PROJECT, timeout_s=PATIENCE_S):
    """A command of the stand, as a person runs it."""
    done = subprocess.run(
        [sys.executable, "-m", "local", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kubectl(stand, *words, stdin=None):
    """What kubectl says, in the namespace of the checkout."""
    command = ["kubectl", "--kubeconfig", stand["kubeconfig"], *words]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout


def eventually(fact, *, seconds=PATIENCE_S):
    """What `fact()` gives once it gives something; asked again while it gives nothing or the connection fails."""
    end_s = time.monotonic() + seconds
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError, subprocess.CalledProcessError):
            if found := fact():
                return found
        assert time.monotonic() < end_s, f"not within {seconds} s"
        time.sleep(0.3)


@contextlib.contextmanager
def answering_pod(stand, name):
    """A pod that answers HTTP requests behind a LoadBalancer Service of the same name, both removed afterwards."""
    container = {
        "name": "answer",
        "image": pause_image(settings_here()),
        "imagePullPolicy": "Never",
        "args": ["answer", ":8080"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {**RESTRICTED_POD, "containers": [container]},
    }
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"type": "LoadBalancer", "selector": {"app": name}, "ports": ports},
    }
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": [pod, service]})
    kubectl(stand, "apply", "-f", "-", stdin=objects)
    try:
        yield
    finally:
        kubectl(stand, "delete", "--wait=false", "-f", "-", stdin=objects)


def address(stand, name):
    """The address that a Service was given, if it was."""
    return kubectl(stand, "get", "service", name, "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")


def get(url, timeout_s=60):
    """The text at a URL."""
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:
        return answer.read().decode()
