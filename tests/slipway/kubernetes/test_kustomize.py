from dataclasses import replace

import pytest
from rendering import MARKS, REFERENCE, rendered

from slipway.errors import ManifestError
from slipway.kubernetes import kustomize
from slipway.kubernetes.kustomize import overlay_folder, render_manifests
from slipway.kubernetes.manifests import fill_manifests, manifests_to_yaml
from slipway.model.served import overlay_names
from slipway.names import digest_of
from slipway.paths import manifests_folders
from slipway.target import Target


@pytest.mark.parametrize("overlay_name", [None, *overlay_names()])
def test_same_bytes_if_rendered_again(release, overlay_name):
    """The same release gives the same bytes, with the base and with every overlay in the repository."""
    release = replace(release, overlay=overlay_name, export=MARKS)
    first, second = (
        manifests_to_yaml(render_manifests(release, reference=REFERENCE, version=7, release_id="abcdefabcdef"))
        for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("overlay_name", [None, *overlay_names()])
def test_filled_manifests_are_what_kustomize_would_render(release, overlay_name):
    """Image, version and release id, put into blank manifests, give the objects that kustomize renders with them."""
    release = replace(release, overlay=overlay_name, export=MARKS)
    of = {"reference": REFERENCE, "version": 7, "release_id": "12e456789012"}
    assert fill_manifests(render_manifests(release), release, **of) == render_manifests(release, **of)


def test_same_objects_in_every_run(release):
    """The run, its force and the gate's settings are not in the manifests."""
    other = replace(release, run_id="scheduled__x", force=True, gate_passes=9)
    assert rendered(release) == rendered(other)


def test_hash_changes_with_manifests_and_not_with_content(release):
    """The hash of blank manifests changes with manifests only, not with content."""

    def manifests_hash(release):
        return digest_of(render_manifests(release))

    known = manifests_hash(release)
    assert known == manifests_hash(replace(release, run_id="other", repository="elsewhere/x", base_digest="sha256:0"))
    assert known != manifests_hash(replace(release, overlay="local"))
    assert known != manifests_hash(replace(release, deployment="tfs-digits"))
    assert known != manifests_hash(replace(release, target=Target(conn_id="kubernetes_default", namespace="other")))


@pytest.mark.parametrize("name", ["../base", "..", ".", "", "nowhere", "/etc", "local/../local"])
def test_refused_if_the_overlay_does_not_exist(name):
    """An overlay is the name of a folder in overlays/, not a path."""
    with pytest.raises(ManifestError, match=r"^overlay '.*Next: use one of .*local"):
        overlay_folder(name, manifests_folders())


def test_target_namespace_replaces_the_overlays(release, overlay):
    """A namespace in an overlay does not change where a release goes."""
    overlay(namespace="elsewhere")
    objects = rendered(replace(release, overlay="mine"))
    assert {manifest["metadata"]["namespace"] for manifest in objects.values()} == {"shop"}


def test_refused_with_kustomizes_message_if_it_cannot_render(release, overlay):
    """The error has kustomize's message in one line, and the command that shows it again."""
    place = overlay({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "nobody"}})
    with pytest.raises(ManifestError, match=rf"^{place}: .*nobody.*Next: kubectl kustomize {place}$") as refusal:
        rendered(replace(release, overlay="mine"))
    assert "\n" not in str(refusal.value)


def test_refused_if_there_is_no_kubectl(release, monkeypatch):
    """The error on a worker without kubectl names what installs it."""
    monkeypatch.setattr(kustomize, "KUBECTL", "no-such-kubectl")
    with pytest.raises(ManifestError, match=r"^kubectl: not found on this worker\. Next: "):
        render_manifests(release)
