"""The stand's API server accepts every overlay and component that ships."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.facts import from_dict
from slipway.kubernetes.kustomize import render_manifests
from slipway.kubernetes.manifests import manifests_to_yaml
from slipway.model.served import overlay_names
from slipway.paths import INCLUDE
from slipway.release import ExportOptions, Release

pytestmark = pytest.mark.stand


@pytest.fixture(scope="session")
def dry_run(stand):
    """Runs a server-side dry run of manifests in the checkout's namespace; the resulting objects. A warning fails."""

    def run(objects):
        command = [
            str(Path(sys.executable).parent / "kubectl"), "--kubeconfig", stand["kubeconfig"], "-n", stand["namespace"],
            "apply", "--server-side", "--dry-run=server", "--field-manager=slipway-tests", "-o", "json", "-f", "-",
        ]  # fmt: skip
        done = subprocess.run(
            command, input=manifests_to_yaml(objects), capture_output=True, text=True, check=False, timeout=600
        )
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)["items"] if len(objects) > 1 else [json.loads(done.stdout)]

    return run


@pytest.fixture
def objects_of(record, stand):
    """Renders an overlay for the release that is live here, under an unused name."""

    def render(overlay):
        release = from_dict(Release, record["release"])
        return render_manifests(
            replace(release, overlay=overlay, deployment="tfs-dry-run", export=ExportOptions(on_bad_image="mark")),
            reference=f"{stand['registry']}/digits-vit@{record['digest']}",
            version=record["version"],
            release_id=record["release_id"],
        )

    return render


def pod_of(objects):
    """The pod of the Deployment among these: Pod Security is enforced on pods, and only warns about Deployments."""
    [deployment] = [manifest for manifest in objects if manifest["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    metadata = {"name": "tfs-dry-run", "namespace": deployment["metadata"]["namespace"], **template["metadata"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


@pytest.mark.parametrize("overlay", [None, *overlay_names()])
def test_the_api_server_accepts_every_overlay(overlay, objects_of, dry_run):
    """Every field is valid, and the pods pass the namespace's Pod Security `restricted`."""
    objects = objects_of(overlay)
    accepted = dry_run(objects)
    assert [item["kind"] for item in accepted] == [manifest["kind"] for manifest in objects]
    assert dry_run([pod_of(objects)])[0]["kind"] == "Pod"


def test_the_api_server_accepts_every_component(objects_of, dry_run, overlay):
    """A user's overlay may list all components at once."""
    shipped = sorted((INCLUDE / "manifests" / "components").iterdir())
    overlay(components=[f"../../components/{path.name}" for path in shipped])
    objects = objects_of("mine")
    service = next(item for item in dry_run(objects) if item["kind"] == "Service")
    assert service["spec"]["loadBalancerSourceRanges"] == ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
    assert dry_run([pod_of(objects)])[0]["spec"]["imagePullSecrets"] == [{"name": "registry-credentials"}]
