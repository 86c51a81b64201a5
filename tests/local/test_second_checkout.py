"""Two checkouts on one machine: the second one shares engine, registry and cluster with the first, and nothing else."""

import json
import subprocess

import pytest
from stand_commands import address, answering_pod, eventually, get, kubectl, local

from local.parts import shared
from local.programs.supervision import pids
from local.settings import settings_here

pytestmark = [pytest.mark.stand, pytest.mark.slow]


def test_1_it_shares_no_namespace_port_database_or_address(stand, second):
    """Each checkout has its own; engine and serving image are shared."""
    other = second.status
    for name in ("namespace", "registry", "kubeconfig", "store"):
        assert other[name] != stand[name]
    assert other["airflow"]["url"] != stand["airflow"]["url"]
    assert (other["docker_host"], other["serving_image"]) == (stand["docker_host"], stand["serving_image"])
    with answering_pod(stand, "first"), answering_pod(other, "second"):
        first, there = eventually(lambda: address(stand, "first")), eventually(lambda: address(other, "second"))
        assert first.rpartition(".")[0] != there.rpartition(".")[0]
        assert eventually(lambda: get(f"http://{there}/"))


def test_2_both_demos_at_once_succeed(stand, second, demos):
    """Each checkout serves its own release."""
    for place in (stand, second.status):
        labels = kubectl(place, "get", "deployment", "tfs-server", "-o", "jsonpath={.metadata.labels}")
        version = json.loads(labels)["slipway/version"]
        where = address(place, "tfs-server")
        served = json.loads(get(f"http://{where}:8501/v1/models/digits-vit/versions/{version}"))
        assert served["model_version_status"][0]["state"] == "AVAILABLE"


def test_3_its_down_keeps_the_first_one_running(stand, second):
    """The second one's namespace is deleted; the shared parts and this checkout's Airflow keep running."""
    output = local("down", folder=second.project)
    assert "another checkout uses them" in output
    assert pids(shared.supervisor(settings_here())) == second.pids
    assert subprocess.run(
        ["kubectl", "--kubeconfig", stand["kubeconfig"], "get", "namespace", second.status["namespace"]],
        capture_output=True,
        check=False,
    ).returncode
    assert json.loads(get(f"{stand['airflow']['url']}/api/v2/monitor/health"))["scheduler"]["status"] == "healthy"
