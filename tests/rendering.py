"""Renders the manifests of the tests' release, once for all tests that read the same ones."""

from copy import deepcopy
from dataclasses import replace
from functools import cache

from slipway.kubernetes.kustomize import render_manifests
from slipway.paths import manifests_folders
from slipway.release import ExportOptions

REFERENCE = f"127.0.0.1:5000/shop/digits-vit@sha256:{'d' * 64}"
MARKS = ExportOptions(on_bad_image="mark")


@cache
def rendered_once(release, _manifests):
    """The objects of a release; kubectl runs once for all tests with the same release."""
    return render_manifests(release, reference=REFERENCE, version=7, release_id="abcdefabcdef")


def rendered(release):
    """The objects of a release by kind; the base's ConfigMap as `monitoring`. Its graph marks bad images, which batching requires."""
    objects = rendered_once(replace(release, store="", export=MARKS), manifests_folders())
    return deepcopy(by_kind(objects))


def by_kind(objects):
    """Objects by kind; the base's ConfigMap as `monitoring`."""
    return {"monitoring" if "-monitoring-" in one["metadata"]["name"] else one["kind"]: one for one in objects}


def render(release):
    """The objects of a release as they would be applied, or ManifestError."""
    return render_manifests(release, reference=REFERENCE, version=7, release_id="abcdefabcdef")


def server_of(objects):
    """The container that serves."""
    containers = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    return next(container for container in containers if container["name"] == "tfs-k8s")


def arguments_of(objects):
    """The server's arguments by their names."""
    return dict(argument.removeprefix("--").partition("=")[::2] for argument in server_of(objects)["args"])
