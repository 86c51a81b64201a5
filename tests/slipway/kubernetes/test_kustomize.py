from dataclasses import replace

import pytest
from rendering import MARKS, REFERENCE, rendered

from slipway.errors import ManifestError
from slipway.kubernetes import kustomize
from slipway.kubernetes.kustomize import manifests_hash, overlay_folder, render_manifests
from slipway.kubernetes.manifests import to_yaml
from slipway.model.served import overlay_names
from slipway.target import Target


@pytest.mark.parametrize("overlay_name", [None, *overlay_names()])
def test_same_bytes_if_rendered_again(release, overlay_name):
    """The same release gives the same bytes, for the base and for every overlay that ships."""
    release = replace(release, overlay=overlay_name, export=MARKS)
    first, second = (
        to_yaml(render_manifests(release, reference=REFERENCE, version=7, release_id="abcdefabcdef")) for _ in range(2)
    )
    assert first == second


def test_same_bytes_whatever_run_rendered_them(release):
    """Who ran, and whether by force, is not in the manifests."""
    other = replace(release, run_id="scheduled__x", force=True, gate_passes=9)
    assert rendered(release) == rendered(other)


def test_hash_changes_with_manifests_and_not_with_content(release):
    """The manifests' hash tells a change of manifests from a change of content."""
    known = manifests_hash(release)
    assert known == manifests_hash(replace(release, run_id="other", repository="elsewhere/x", base_digest="sha256:0"))
    assert known != manifests_hash(replace(release, overlay="local"))
    assert known != manifests_hash(replace(release, deployment="tfs-digits"))
    assert known != manifests_hash(replace(release, target=Target(conn_id="kubernetes_default", namespace="other")))


@pytest.mark.parametrize("name", ["../base", "..", ".", "", "nowhere", "/etc", "local/../local"])
def test_refused_if_the_overlay_is_none_of_ours(name):
    """An overlay is a folder of ours by its name, and nothing else."""
    with pytest.raises(ManifestError, match=r"^overlay '.*Next: use one of .*local"):
        overlay_folder(name)


def test_namespace_of_an_overlay_gives_way_to_the_target(release, overlay):
    """A namespace in an overlay cannot lead a release elsewhere."""
    overlay(namespace="elsewhere")
    objects = rendered(replace(release, overlay="mine"))
    assert {manifest["metadata"]["namespace"] for manifest in objects.values()} == {"shop"}


def test_refused_in_kustomizes_words_if_it_cannot_render(release, overlay):
    """What kustomize says reaches the person, in one line with the command to try."""
    place = overlay(nonsense=True)
    with pytest.raises(ManifestError, match=rf"^{place}: .*nonsense.*Next: kubectl kustomize {place}$") as refusal:
        rendered(replace(release, overlay="mine"))
    assert "\n" not in str(refusal.value)


def test_refused_if_there_is_no_kubectl(release, monkeypatch):
    """A worker without kubectl is told what brings it."""
    monkeypatch.setattr(kustomize, "KUBECTL", "kubectl-of-nowhere")
    with pytest.raises(ManifestError, match=r"^kubectl: not found on this worker\. Next: "):
        manifests_hash(release)
