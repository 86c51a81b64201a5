"""The running stand: a second `up` changes nothing, and what is killed is restarted."""

import contextlib
import json
import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest
from stand_commands import LIMIT_S, address, answering_pod, eventually, get, kubectl, local

from local.errors import StandError
from local.parts import checkout, shared
from local.programs.locks import locked, locked_at_once, shared_lock
from local.programs.supervision import RUNNING, pids, states
from local.settings import settings_here

pytestmark = pytest.mark.stand


def test_status_names_what_programs_need(stand):
    """The JSON has every key that the README promises, and the files that it names exist."""
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
    """The same processes run afterwards, and it takes less than 30 s of CPU time."""
    settings = settings_here()
    before = pids(checkout.supervisor(settings)), pids(shared.supervisor(settings))
    before_status = json.loads(local("status", "--json"))
    before_s = resource.getrusage(resource.RUSAGE_CHILDREN)
    local("up")
    after_s = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after_s.ru_utime + after_s.ru_stime - before_s.ru_utime - before_s.ru_stime < 30
    assert (pids(checkout.supervisor(settings)), pids(shared.supervisor(settings))) == before
    assert {**json.loads(local("status", "--json")), "endpoints": {}} == {**before_status, "endpoints": {}}


@pytest.mark.alone
def test_doctor_finds_nothing(stand):
    """Every part works."""
    assert "Next:" not in "\n".join(line for line in local("doctor").splitlines() if not line.startswith("stand-in"))


@pytest.mark.alone
def test_killed_airflow_process_comes_back(stand):
    """A killed triggerer is restarted, and Airflow reports that it is healthy again."""
    supervisor = checkout.supervisor(settings_here())
    old = pids(supervisor)["triggerer"]
    os.kill(old, signal.SIGKILL)
    eventually(lambda: pids(supervisor).get("triggerer", old) != old)
    health = f"{stand['airflow']['url']}/api/v2/monitor/health"
    eventually(lambda: json.loads(get(health))["triggerer"]["status"] == "healthy")
    assert set(states(supervisor).values()) == {RUNNING}


def test_service_answers_at_its_loopback_address_and_logs_are_read(stand):
    """A LoadBalancer Service gets an address of the checkout's range, which responds; `kubectl logs` shows the request."""
    with answering_pod(stand, "answers"):
        where = eventually(lambda: address(stand, "answers"))
        assert where.startswith(checkout.read_slot(settings_here()).address_prefix + ".")
        assert eventually(lambda: get(f"http://{where}/question")) == "the stand answers\n"
        assert "asked for /question" in kubectl(stand, "logs", "answers")


def test_unrestricted_pod_is_refused(stand):
    """The namespace refuses what a hardened cluster would refuse, and names what is missing."""
    done = subprocess.run(
        ["kubectl", "--kubeconfig", stand["kubeconfig"], "run", "careless", "--image=x"],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode != 0
    assert 'violates PodSecurity "restricted' in done.stderr


def test_unknown_token_is_refused(stand):
    """The API server asks its webhook about unknown tokens; with or without an emulator there, the answer is 401."""
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
    server = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout
    asked = [
        "curl",
        "-sk",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-H",
        "Authorization: Bearer nobody",
        f"{server}/api",
    ]
    assert subprocess.run(asked, capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout == "401"


def test_shared_parts_cannot_be_held_alone_while_another_checkout_runs(stand):
    """While another process holds the shared lock, no test may break shared parts; this checkout then holds its lock again."""
    settings = settings_here()
    with (
        locked(shared_lock(settings), shared=True),
        pytest.raises(StandError, match="another checkout uses them"),
        shared.held_alone(settings),
    ):
        pass
    eventually(lambda: states(checkout.supervisor(settings))["lock"] == RUNNING)


@pytest.mark.alone
def test_killed_shared_part_comes_back(stand):
    """A killed registry is restarted; while another checkout is up, the test may not kill it."""
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
        old = pids(shared.supervisor(settings))["registry"]
        os.kill(old, signal.SIGKILL)
        eventually(lambda: pids(shared.supervisor(settings)).get("registry", old) != old)
        assert eventually(lambda: shared.registry_answers(stand["registry"].split("/", maxsplit=1)[0]))
    with locked_at_once(shared_lock(settings)) as free:
        assert not free  # no other checkout's `down` finds them unused
