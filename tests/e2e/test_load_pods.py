"""Locust's master and two workers as pods: an image of include/load, its manifests, and a release in the same cluster."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from load_requests import load_request

from local.parts.server_image import debian_base
from local.programs.docker_client import build_image, docker
from local.settings import settings_here
from slipway.load_plan import LoadPlan

LOADER = Path(__file__).parents[2] / "include" / "load"
PLAN = LoadPlan(rates_per_s=(8,), closed_users=(2,), step_s=20, settle_s=5)
JOBS = ("job/load-master", "job/load-workers")

pytestmark = [pytest.mark.stand, pytest.mark.slow]


@pytest.fixture(scope="module")
def image(stand):
    """The image in the stand's registry, built on the stand's own base."""
    name = f"{stand['registry']}/load:test"
    debian = debian_base(settings_here(), stand["docker_host"])
    build_image(stand["docker_host"], LOADER, debian, name)
    docker(stand["docker_host"], "push", name)
    return name


@pytest.fixture
def kustomization(tmp_path, image, record, kubectl):
    """A user's kustomization: the shipped manifests, the image, and a request to the live release's address in the cluster."""
    shutil.copytree(LOADER / "manifests", tmp_path / "base")
    service = json.loads(kubectl("get", "service/tfs-server", "-o", "json"))
    (tmp_path / "request.json").write_text(json.dumps(load_request(record, PLAN, service["spec"]["clusterIP"])))
    name, _, tag = image.rpartition(":")
    own = {
        "resources": ["base"],
        "configMapGenerator": [{"name": "load-request", "files": ["request.json"]}],
        "images": [{"name": "slipway-load", "newName": name, "newTag": tag}],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(own))
    return tmp_path


def test_a_master_and_two_workers_load_the_release(kustomization, kubectl):
    """A namespace with the standard `restricted` accepts them without a warning; they end, and the figures are the last line."""
    kubectl("apply", "--dry-run=server", "--warnings-as-errors", "-k", str(kustomization))
    try:
        kubectl("apply", "--warnings-as-errors", "-k", str(kustomization))
        waited = kubectl("wait", "--for=condition=Complete", *JOBS, "--timeout=300s", check=False)
        master, workers = (
            kubectl("logs", job, *how, check=False) for job, how in zip(JOBS, ([], ["--all-pods"]), strict=True)
        )
    finally:
        kubectl("delete", "--ignore-not-found", "-k", str(kustomization))
    assert waited.count("condition met") == 2, (master[-3000:], workers[-3000:])
    figures = json.loads(master.splitlines()[-1])
    rate, closed = figures["steps"]
    assert figures["errors"] == 0
    assert rate["reached_per_s"] == pytest.approx(8, rel=0.3)
    assert closed["requests"] > 10
    assert rate["by_protocol"].keys() == {"rest", "grpc"}
