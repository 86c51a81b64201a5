"""The running stand: `up` is idempotent, killed processes restart, and two checkouts share it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from local.errors import StandError
from local.parts import checkout, shared
from local.parts.cluster import pause_image
from local.programs.locks import locked, locked_at_once, shared_lock
from local.programs.supervision import RUNNING, pids, states
from local.settings import settings_here

pytestmark = pytest.mark.stand

PROJECT = Path(__file__).resolve().parents[2]
RESTRICTED_POD = {
    "automountServiceAccountToken": False,
    "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
    "terminationGracePeriodSeconds": 1,
}


def local(*words, folder=PROJECT, timeout_s=120):
    """Run a command of the stand as a person does."""
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
    """The output of kubectl in the checkout's namespace."""
    command = ["kubectl", "--kubeconfig", stand["kubeconfig"], *words]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=True).stdout


def eventually(fact, *, seconds):
    """Poll `fact()` until it returns something. A failed connection counts as nothing."""
    end_s = time.monotonic() + seconds
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError, subprocess.CalledProcessError):
            if found := fact():
                return found
        assert time.monotonic() < end_s, f"not within {seconds} s"
        time.sleep(0.3)


@contextlib.contextmanager
def answering_pod(stand, name):
    """A pod that answers HTTP requests behind a LoadBalancer Service of the same name. Both are deleted afterwards."""
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
    """The address of a Service, or an empty string."""
    return kubectl(stand, "get", "service", name, "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")


def get(url, timeout_s=5):
    """The text at a URL."""
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:
        return answer.read().decode()


def test_status_names_what_programs_need(stand):
    """The JSON has every key that the README lists, and the files that it names exist."""
    assert {
        "kubeconfig",
        "namespace",
        "registry",
        "docker_host",
        "airflow",
        "endpoints",
        "serving_image",
        "stand_ins",
        "store",
    } <= stand.keys()
    assert {"url", "user", "password_file"} <= stand["airflow"].keys()
    assert Path(stand["kubeconfig"]).stat().st_mode & 0o077 == 0
    assert Path(stand["airflow"]["password_file"]).stat().st_mode & 0o077 == 0
    assert Path(stand["exporter_python"]).exists()


def test_second_up_changes_nothing(stand):
    """The same processes run afterwards, and it takes less than 30 s."""
    settings = settings_here()
    before = pids(checkout.supervisor(settings)), pids(shared.supervisor(settings))
    said = json.loads(local("status", "--json"))
    began_s = time.monotonic()
    local("up", timeout_s=60)
    assert time.monotonic() - began_s < 30
    assert (pids(checkout.supervisor(settings)), pids(shared.supervisor(settings))) == before
    assert {**json.loads(local("status", "--json")), "endpoints": {}} == {**said, "endpoints": {}}


def test_doctor_finds_nothing(stand):
    """`doctor` reports no problem of any part."""
    assert "Next:" not in "\n".join(line for line in local("doctor").splitlines() if not line.startswith("stand-in"))


def test_killed_airflow_process_restarts(stand):
    """A killed triggerer is restarted, and Airflow reports that it is healthy again."""
    supervisor = checkout.supervisor(settings_here())
    old = pids(supervisor)["triggerer"]
    os.kill(old, signal.SIGKILL)
    eventually(lambda: pids(supervisor).get("triggerer", old) != old, seconds=30)
    health = f"{stand['airflow']['url']}/api/v2/monitor/health"
    eventually(lambda: json.loads(get(health))["triggerer"]["status"] == "healthy", seconds=60)
    assert set(states(supervisor).values()) == {RUNNING}


def test_service_answers_at_its_loopback_address_and_logs_are_read(stand):
    """A LoadBalancer Service gets an address of the checkout's range and answers there. `kubectl logs` shows the request."""
    with answering_pod(stand, "answers"):
        where = eventually(lambda: address(stand, "answers"), seconds=30)
        assert where.startswith(checkout.read_slot(settings_here()).address_prefix + ".")
        assert eventually(lambda: get(f"http://{where}/question"), seconds=30) == "the stand answers\n"
        assert "asked for /question" in kubectl(stand, "logs", "answers")


def test_unrestricted_pod_is_refused(stand):
    """The namespace admits only restricted pods, and the message names the violated standard."""
    done = subprocess.run(
        ["kubectl", "--kubeconfig", stand["kubeconfig"], "run", "careless", "--image=x"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert 'violates PodSecurity "restricted' in done.stderr


def test_unknown_token_is_refused(stand):
    """The API server sends an unknown token to its webhook. Whether or not an emulator answers there, the status is 401."""
    command = [
        "kubectl",
        "--kubeconfig",
        stand["kubeconfig"],
        "config",
        "view",
        "--raw",
        "-o",
        "jsonpath={.clusters[0].cluster.server}",
    ]
    server = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    asked = [
        "curl",
        "-sk",
        "-m",
        "30",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-H",
        "Authorization: Bearer nobody",
        f"{server}/api",
    ]
    assert subprocess.run(asked, capture_output=True, text=True, timeout=40, check=True).stdout == "401"


def test_shared_parts_cannot_be_held_alone_while_another_checkout_runs(stand):
    """While another checkout holds the shared lock, `held_alone` is refused. This checkout then holds the lock again."""
    settings = settings_here()
    with (
        locked(shared_lock(settings), shared=True),
        pytest.raises(StandError, match="another checkout uses them"),
        shared.held_alone(settings),
    ):
        pass
    eventually(lambda: states(checkout.supervisor(settings))["lock"] == RUNNING, seconds=10)


@pytest.mark.alone
def test_killed_shared_part_restarts(stand):
    """A killed registry is restarted and responds. While another checkout is up, `held_alone` is refused."""
    settings = settings_here()
    refusal = ""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(shared.held_alone(settings))
        except StandError as refused:
            refusal = str(refused)
        if refusal:
            assert "another checkout uses them" in refusal
            return
        old = shared.shared_pids(settings)["registry"]
        os.kill(old, signal.SIGKILL)
        eventually(lambda: shared.shared_pids(settings).get("registry", old) != old, seconds=30)
        assert eventually(lambda: shared.registry_answers(stand["registry"].split("/", maxsplit=1)[0]), seconds=30)
    with locked_at_once(shared_lock(settings)) as free:
        assert not free  # the `down` of another checkout does not find them unused


def demo(folder):
    """Start `make demo` with every step, without waiting for it."""
    return subprocess.Popen(
        ["make", "demo", "FORCE=1"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_two_checkouts_run_at_the_same_time(stand, tmp_path):
    """A clone shares no namespace, port, database or address. Both demos succeed at once. Its `down` keeps the first running."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(clone)], check=True, timeout=60)
    before = pids(shared.supervisor(settings_here()))
    try:
        local("up", folder=clone, timeout_s=240)
        other = json.loads(local("status", "--json", folder=clone))
        for name in ("namespace", "registry", "kubeconfig", "store"):
            assert other[name] != stand[name]
        assert other["airflow"]["url"] != stand["airflow"]["url"]
        assert (other["docker_host"], other["serving_image"]) == (stand["docker_host"], stand["serving_image"])
        with answering_pod(stand, "first"), answering_pod(other, "second"):
            first = eventually(lambda: address(stand, "first"), seconds=30)
            second = eventually(lambda: address(other, "second"), seconds=30)
            assert first.rpartition(".")[0] != second.rpartition(".")[0]
            assert eventually(lambda: get(f"http://{second}/"), seconds=30)
        demos = [demo(folder) for folder in (PROJECT, clone)]
        said = [running.communicate(timeout=600)[0] for running in demos]
        assert [running.returncode for running in demos] == [0, 0], said
        for place in (stand, other):
            labels = kubectl(place, "get", "deployment", "tfs-server", "-o", "jsonpath={.metadata.labels}")
            version = json.loads(labels)["slipway/version"]
            where = address(place, "tfs-server")
            served = json.loads(get(f"http://{where}:8501/v1/models/digits-vit/versions/{version}"))
            assert served["model_version_status"][0]["state"] == "AVAILABLE"
    finally:
        said = local("down", folder=clone)
    assert "another checkout uses them" in said
    assert pids(shared.supervisor(settings_here())) == before
    assert subprocess.run(
        ["kubectl", "--kubeconfig", stand["kubeconfig"], "get", "namespace", other["namespace"]],
        capture_output=True,
        check=False,
    ).returncode
    assert json.loads(get(f"{stand['airflow']['url']}/api/v2/monitor/health"))["scheduler"]["status"] == "healthy"
