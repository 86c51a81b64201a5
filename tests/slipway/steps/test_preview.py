import logging
import shutil
from copy import deepcopy
from dataclasses import replace

import pytest
import yaml

from slipway.errors import ManifestError
from slipway.facts import ObjectRef, Plan
from slipway.kubernetes import kustomize
from slipway.kubernetes.kustomize import render_manifests
from slipway.model.served import overlay_names
from slipway.records.history import History, previewed_in, read_history, read_records
from slipway.records.record import new_record, previewed, utc_now, write_record
from slipway.release import ExportOptions
from slipway.steps.preview import (
    check_apart,
    check_preview,
    plan_preview,
    remove_previews,
    render_preview,
    why_no_preview,
)
from slipway.target import Target

OF = {"reference": f"127.0.0.1:5000/shop/digits-vit@sha256:{'d' * 64}", "version": 7, "release_id": "abcdefabcdef"}
MARKS = ExportOptions(on_bad_image="mark")
SELECTOR = {"app": "tfs-server-preview", "slipway/model": "digits-vit"}
LABELS = {**SELECTOR, "slipway/version": "7", "slipway/release": "abcdefabcdef-preview"}


@pytest.fixture
def beside(release):
    """The preview's objects by kind."""
    return {manifest["kind"]: manifest for manifest in render_preview(release, **OF)}


def labels_of(objects):
    """What the Deployment's pods bear."""
    return objects["Deployment"]["spec"]["template"]["metadata"]["labels"]


def selectors_of(objects):
    """What the live objects select pods by."""
    specs = {manifest["kind"]: manifest["spec"] for manifest in objects if manifest["kind"] != "ConfigMap"}
    return {
        "Service": specs["Service"]["selector"],
        "Deployment": specs["Deployment"]["selector"]["matchLabels"],
        "PodDisruptionBudget": specs["PodDisruptionBudget"]["selector"]["matchLabels"],
    }


@pytest.mark.parametrize("overlay", [None, *overlay_names()])
def test_no_live_selector_means_a_preview(release, overlay):
    """With every overlay that ships, neither Service nor Deployment nor budget of the live release selects the preview's pods."""
    release = replace(release, overlay=overlay, export=MARKS)
    preview = {manifest["kind"]: manifest for manifest in render_preview(release, **OF)}
    live = render_manifests(release, **OF)
    for selector in selectors_of(live).values():
        assert not selector.items() <= labels_of(preview).items()
    pods = next(one for one in live if one["kind"] == "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert not preview["Service"]["spec"]["selector"].items() <= pods.items()


def test_a_preview_has_a_deployment_and_a_service_of_its_own(beside):
    """One pod, no autoscaler, no budget, no address from outside; all of it the model's by its label."""
    assert set(beside) == {"Deployment", "Service"}
    assert {manifest["metadata"]["name"] for manifest in beside.values()} == {"tfs-server-preview"}
    assert "replicas" not in beside["Deployment"]["spec"]  # one, where nothing else says
    assert beside["Deployment"]["spec"]["selector"] == {"matchLabels": SELECTOR}
    assert labels_of(beside) == LABELS
    assert beside["Service"]["spec"] == {
        "type": "ClusterIP",
        "selector": SELECTOR,
        "ports": [
            {"name": "tf-serving-grpc", "port": 8500, "targetPort": "grpc"},
            {"name": "tf-serving-restapi", "port": 8501, "targetPort": "restapi"},
        ],
    }
    assert all(manifest["metadata"]["labels"]["slipway/model"] == "digits-vit" for manifest in beside.values())


@pytest.mark.parametrize("overlay", [None, "local", "seed", "internal"])
def test_a_previews_pods_are_the_live_ones(release, overlay):
    """What is proven is what is brought: the pods differ in their labels alone, the Deployment in names besides."""
    release = replace(release, overlay=overlay)
    preview, live = (
        next(one for one in objects if one["kind"] == "Deployment")
        for objects in (render_preview(release, **OF), render_manifests(release, **OF))
    )
    assert preview["spec"]["template"]["spec"] == live["spec"]["template"]["spec"]
    assert {**preview["spec"], "selector": None, "template": None} == {
        **live["spec"],
        "selector": None,
        "template": None,
    }


def test_a_preview_mounts_a_configmap_of_its_own(release):
    """What the pods mount is there under another name, so that the live pods' is left alone."""
    release = replace(release, overlay="batching", export=MARKS, deployment="shop-vit")
    (config, _, deployment) = render_preview(release, **OF)
    [volume] = [one for one in deployment["spec"]["template"]["spec"]["volumes"] if one["name"] == "batching"]
    assert config["kind"] == "ConfigMap"
    assert config["metadata"]["name"].startswith("shop-vit-preview-")
    assert volume["configMap"] == {"name": config["metadata"]["name"]}
    assert config["metadata"]["name"] not in {one["metadata"]["name"] for one in render_manifests(release, **OF)}


def test_an_address_is_not_ordered_for_a_preview(release):
    """Of a Service that orders a load balancer nothing stays but its ports."""
    service = {
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "tfs-server-preview", "namespace": "shop", "annotations": {"internal": "true"}},
        "spec": {
            "type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"], "externalTrafficPolicy": "Local", "selector": SELECTOR,
            "ports": [{"name": "rest", "port": 8501, "targetPort": "restapi", "nodePort": 30001}],
        },
    }  # fmt: skip
    assert plan_preview([service], release.preview) == [
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "tfs-server-preview", "namespace": "shop"},
            "spec": {"type": "ClusterIP", "selector": SELECTOR, "ports": [{"name": "rest", "port": 8501, "targetPort": "restapi"}]},
        }
    ]  # fmt: skip


def test_what_exposes_or_scales_the_live_pods_has_no_preview(release):
    """An Ingress, another Service or another Deployment of an overlay is not made twice; what pods need is."""
    names = {
        "Ingress": "tfs-server-preview", "Service": "metrics-preview", "Deployment": "cache-preview", "NetworkPolicy": "x-preview",
        "HorizontalPodAutoscaler": "tfs-server-preview", "Secret": "s-preview", "ServiceAccount": "a-preview",
    }  # fmt: skip
    objects = [{"kind": kind, "metadata": {"name": name}} for kind, name in names.items()]
    assert [one["kind"] for one in plan_preview(objects, release.preview)] == ["Secret", "ServiceAccount"]


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Service", {"selector": {"slipway/model": "digits-vit"}}),
        ("PodDisruptionBudget", {"selector": {}}),
        ("PodDisruptionBudget", {"selector": {"matchLabels": {"slipway/version": "7"}}}),
    ],
)
def test_refused_if_a_live_object_would_take_the_preview_for_its_own(release, beside, kind, spec):
    """A selector without the label app means the preview's pods too: users would reach it, or a budget count it."""
    live = [{"kind": kind, "metadata": {"name": "mine"}, "spec": spec}]
    with pytest.raises(
        ManifestError, match=rf"^overlay None: {kind.lower()}/mine selects pods by .*Next: select by the label app"
    ):
        check_apart(list(beside.values()), live, release)


@pytest.mark.parametrize(
    "spec", [{}, {"selector": {}}, {"selector": {"app": "tfs-server"}}, {"selector": {"app": "other"}}]
)
def test_a_service_that_means_others_is_let_be(release, beside, spec):
    """A Service without a selector means no pod at all."""
    check_apart(list(beside.values()), [{"kind": "Service", "metadata": {"name": "mine"}, "spec": spec}], release)


def test_overlay_that_cannot_be_previewed_is_refused_before_there_is_an_image(release, monkeypatch, tmp_path):
    """A Service of an overlay's own that selects by the model alone is found by rendering it."""
    folder = tmp_path / "manifests"
    shutil.copytree(kustomize.MANIFESTS, folder)
    monkeypatch.setattr(kustomize, "MANIFESTS", folder)
    place = folder / "overlays" / "mine"
    place.mkdir()
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "every-pod"},
        "spec": {"selector": {"slipway/model": "digits-vit"}},
    }
    (place / "service.yaml").write_text(yaml.safe_dump(service))
    (place / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["../../base", "service.yaml"]}))
    with pytest.raises(ManifestError, match="overlay mine: service/every-pod selects pods by"):
        check_preview(replace(release, overlay="mine"))


PREVIEWED_REFS = (
    ObjectRef(api_version="v1", kind="Service", name="tfs-server-preview", namespace="shop"),
    ObjectRef(api_version="apps/v1", kind="Deployment", name="tfs-server-preview", namespace="shop"),
)
WHY = {
    "a new image": ("everything", "preview", "new", None),
    "an image that is forced again": ("everything", "preview", "abcdefabcdef", None),
    "changed manifests": ("manifests", "preview", "new", None),
    "what was proven and comes back": ("manifests", "preview", "abcdefabcdef", "was proven live before"),
    "a good release instead of a bad one": ("restore", "preview", "abcdefabcdef", "is restored unchanged"),
    "a rolling update": ("everything", "rolling", "new", "target.strategy is rolling"),
}  # fmt: skip


@pytest.mark.parametrize("case", WHY)
def test_previewed_unless_it_is_known_to_be_good(release, export, pushed, record_of, case):
    """What is new is previewed, also new manifests; what only comes back is not kept waiting."""
    action, strategy, release_id, words = WHY[case]
    plan = Plan(action=action, reasons=(), export=export, pushed=replace(pushed, release_id=release_id))
    why = why_no_preview(replace(release, strategy=strategy), plan, History((record_of("good"),)))
    assert (why is None) if words is None else words in why


@pytest.fixture
def leave(store, release, export, pushed):
    """Writes the record of a run that was killed while its preview was there."""

    def write(run_id, **changes):
        record = new_record(replace(release, run_id=run_id, **changes), now=utc_now())
        write_record(store, previewed(record, objects=PREVIEWED_REFS, export=export, pushed=pushed))

    return write


def test_every_preview_at_the_target_is_removed_and_the_records_say_so(store, release, leave, monkeypatch, caplog):
    """A run deletes its own and what killed ones left; one elsewhere is named, with the command."""
    leave("killed")
    leave("mine")
    leave("moved", target=Target(conn_id="gone", namespace="old"))
    deleted = []
    monkeypatch.setattr("slipway.steps.preview.remove_objects", lambda *words: deleted.append(words))
    with caplog.at_level(logging.WARNING):
        assert remove_previews(release, read_records(store, "digits-vit").records) == PREVIEWED_REFS * 2
    assert deleted == [(release.target, "digits-vit", PREVIEWED_REFS)] * 2
    records = {record["run_id"]: previewed_in(record) for record in read_records(store, "digits-vit").records}
    assert records == {"killed": (), "mine": (), "moved": PREVIEWED_REFS}
    assert "Next: kubectl -n old delete deployment/tfs-server-preview service/tfs-server-preview" in caplog.text


def test_record_of_a_preview_is_no_change_of_what_is_live(store, leave, pushed):
    """A run whose preview failed is not in the history: a rollback has nothing to undo. Its image is known all the same."""
    leave("failed")
    [record] = read_records(store, "digits-vit").records
    assert (record["digest"], record["version"], record["objects"]) == (pushed.digest, 7, [])
    assert read_history(store, "digits-vit").newest is None


def test_render_changes_nothing_of_the_live_manifests(release):
    """The live objects are rendered as if there were no preview."""
    before = deepcopy(render_manifests(release, **OF))
    render_preview(release, **OF)
    assert render_manifests(release, **OF) == before
