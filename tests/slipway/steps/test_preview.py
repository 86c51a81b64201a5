import logging
import re
from copy import deepcopy
from dataclasses import replace

import pytest
import yaml

from slipway.errors import ManifestError
from slipway.facts import ObjectRef, Plan, Pushed
from slipway.kubernetes.kustomize import render_manifests
from slipway.model.served import overlay_names
from slipway.records.history import History, preview_objects_of_record, read_history, read_records
from slipway.records.record import new_record, record_with_preview, utc_now, write_record
from slipway.release import ExportOptions
from slipway.steps.preview import (
    check_preview_apart,
    plan_preview,
    preview_manifests,
    remove_previews,
    why_no_preview,
)
from slipway.steps.rendering import render_release
from slipway.target import Target

OF = {"reference": f"127.0.0.1:5000/shop/digits-vit@sha256:{'d' * 64}", "version": 7, "release_id": "abcdefabcdef"}
PREFIXES = (r"shop-vit-monitoring-preview-\w+$", r"shop-vit-preview-\w+$")
MARKS = ExportOptions(on_bad_image="mark")
SELECTOR = {"app": "tfs-server-preview", "slipway/model": "digits-vit"}
LABELS = {**SELECTOR, "slipway/version": "7", "slipway/release": "abcdefabcdef-preview"}


def previewed(release):
    """The objects of a release's preview, as they are applied."""
    pushed = Pushed(digest=OF["reference"].partition("@")[2], **OF)
    return preview_manifests(render_release(replace(release, strategy="preview")), pushed)


@pytest.fixture
def preview(release):
    """The preview's objects, by kind."""
    return {manifest["kind"]: manifest for manifest in previewed(release)}


def labels_of(objects):
    """The labels of the Deployment's pods."""
    return objects["Deployment"]["spec"]["template"]["metadata"]["labels"]


def selectors_of(objects):
    """The labels by which the live objects select pods."""
    specs = {manifest["kind"]: manifest["spec"] for manifest in objects if manifest["kind"] != "ConfigMap"}
    return {
        "Service": specs["Service"]["selector"],
        "Deployment": specs["Deployment"]["selector"]["matchLabels"],
        "PodDisruptionBudget": specs["PodDisruptionBudget"]["selector"]["matchLabels"],
    }


@pytest.mark.parametrize("overlay", [None, *overlay_names()])
def test_no_live_selector_matches_the_preview(release, overlay):
    """In every shipped overlay, the live Service, Deployment and budget do not select the preview's pods."""
    release = replace(release, overlay=overlay, export=MARKS)
    objects = {manifest["kind"]: manifest for manifest in previewed(release)}
    live = render_manifests(release, **OF)
    for selector in selectors_of(live).values():
        assert not selector.items() <= labels_of(objects).items()
    pods = next(one for one in live if one["kind"] == "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert not objects["Service"]["spec"]["selector"].items() <= pods.items()


def test_preview_has_its_own_deployment_and_service(preview):
    """It has one pod, no autoscaler, no budget, no external address; all objects have the model's label."""
    assert set(preview) == {"ConfigMap", "Deployment", "Service"}
    assert {preview[kind]["metadata"]["name"] for kind in ("Deployment", "Service")} == {"tfs-server-preview"}
    assert "replicas" not in preview["Deployment"]["spec"]  # the default is one
    assert preview["Deployment"]["spec"]["selector"] == {"matchLabels": SELECTOR}
    assert labels_of(preview) == LABELS
    assert preview["Service"]["spec"] == {
        "type": "ClusterIP",
        "selector": SELECTOR,
        "ports": [
            {"name": "tf-serving-grpc", "port": 8500, "targetPort": "grpc"},
            {"name": "tf-serving-restapi", "port": 8501, "targetPort": "restapi"},
        ],
    }
    assert all(manifest["metadata"]["labels"]["slipway/model"] == "digits-vit" for manifest in preview.values())


@pytest.mark.parametrize("overlay", [None, "local", "seed", "internal"])
def test_preview_has_the_same_pods_as_the_live_release(release, overlay):
    """The pods differ only in their labels and the name of their ConfigMap, the Deployment also in its name and selector."""
    release = replace(release, overlay=overlay)
    preview, live = (
        next(one for one in objects if one["kind"] == "Deployment")
        for objects in (previewed(release), render_manifests(release, **OF))
    )
    pods = preview["spec"]["template"]["spec"]
    [volume] = [one for one in pods["volumes"] if one["name"] == "monitoring"]
    volume["configMap"]["name"] = volume["configMap"]["name"].replace("-preview", "")
    assert pods == live["spec"]["template"]["spec"]
    assert {**preview["spec"], "selector": None, "template": None} == {
        **live["spec"],
        "selector": None,
        "template": None,
    }


def test_preview_mounts_its_own_configmap(release):
    """Its ConfigMaps, the base's and the overlay's, have other names, so that the live ones are not changed."""
    release = replace(release, overlay="batching", export=MARKS, deployment="shop-vit")
    (*configs, _, deployment) = previewed(release)
    names = [config["metadata"]["name"] for config in configs if config["kind"] == "ConfigMap"]
    mounted = [
        one["configMap"]["name"] for one in deployment["spec"]["template"]["spec"]["volumes"] if "configMap" in one
    ]
    assert sorted(mounted) == sorted(names)
    assert all(re.match(prefix, name) for prefix, name in zip(PREFIXES, sorted(names), strict=True))
    assert not set(names) & {one["metadata"]["name"] for one in render_manifests(release, **OF)}


def test_preview_requests_no_load_balancer(release):
    """A Service of type LoadBalancer keeps only its selector and ports."""
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


def test_preview_has_only_what_its_pods_need(release):
    """An Ingress, another Service or another Deployment of an overlay is not previewed."""
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
def test_refused_if_a_live_object_selects_the_previews_pods(release, preview, kind, spec):
    """A selector without the label app matches the preview's pods too: it would get users' requests, or count in a budget."""
    live = [{"kind": kind, "metadata": {"name": "mine"}, "spec": spec}]
    with pytest.raises(
        ManifestError, match=rf"^overlay None: {kind.lower()}/mine selects pods by .*Next: select by the label app"
    ):
        check_preview_apart(list(preview.values()), live, release)


@pytest.mark.parametrize(
    "spec", [{}, {"selector": {}}, {"selector": {"app": "tfs-server"}}, {"selector": {"app": "other"}}]
)
def test_passes_if_no_live_object_selects_the_previews_pods(release, preview, spec):
    """A Service without a selector selects no pod."""
    check_preview_apart(
        list(preview.values()), [{"kind": "Service", "metadata": {"name": "mine"}, "spec": spec}], release
    )


def test_overlay_is_refused_before_the_build_if_it_cannot_be_previewed(release, overlay):
    """Rendering finds an overlay's Service that selects by the model only."""
    place = overlay(resources=["../../base", "service.yaml"])
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "every-pod"},
        "spec": {"selector": {"slipway/model": "digits-vit"}},
    }
    (place / "service.yaml").write_text(yaml.safe_dump(service))
    with pytest.raises(ManifestError, match="overlay mine: service/every-pod selects pods by"):
        render_release(replace(release, overlay="mine", strategy="preview"))


PREVIEWED_REFS = (
    ObjectRef(api_version="v1", kind="Service", name="tfs-server-preview", namespace="shop"),
    ObjectRef(api_version="apps/v1", kind="Deployment", name="tfs-server-preview", namespace="shop"),
)
REASONS = {
    "a new image": ("everything", "preview", "new", None),
    "the same image, forced": ("everything", "preview", "abcdefabcdef", None),
    "changed manifests": ("manifests", "preview", "new", None),
    "a proven release, applied again": ("manifests", "preview", "abcdefabcdef", "was proven live before"),
    "a proven release with a changed gate": ("gate", "preview", "abcdefabcdef", None),
    "a proven release with changed golden cases": ("cases", "preview", "abcdefabcdef", None),
    "a good release instead of a bad one": ("restore", "preview", "abcdefabcdef", "is restored unchanged"),
    "a rolling update": ("everything", "rolling", "new", "target.strategy is rolling"),
}  # fmt: skip


@pytest.mark.parametrize("case", REASONS)
def test_previewed_unless_the_release_is_known_to_be_good(release, export, pushed, record_of, case):
    """A new image and new manifests are previewed; a proven release that is applied again is not."""
    action, strategy, release_id, words = REASONS[case]
    plan = Plan(action=action, reasons=(), export=export, pushed=replace(pushed, release_id=release_id))
    why = why_no_preview(replace(release, strategy=strategy), plan, History((record_of("good"),)))
    assert (why is None) if words is None else words in why


@pytest.fixture
def leave(store, release, export, pushed):
    """Writes the record of a run that was killed while its preview existed."""

    def write(run_id, **changes):
        record = new_record(replace(release, run_id=run_id, **changes), now=utc_now())
        write_record(store, record_with_preview(record, objects=PREVIEWED_REFS, export=export, pushed=pushed))

    return write


def test_every_preview_at_the_target_is_deleted(store, release, leave, monkeypatch, caplog):
    """A run deletes its own preview and those of killed runs, and updates their records; it names one at another target."""
    leave("killed")
    leave("mine")
    leave("moved", target=Target(conn_id="gone", namespace="old"))
    deleted = []
    monkeypatch.setattr("slipway.steps.preview.remove_objects", lambda *arguments: deleted.append(arguments))
    with caplog.at_level(logging.WARNING):
        assert remove_previews(release, read_records(store, "digits-vit").records) == PREVIEWED_REFS * 2
    assert deleted == [(release.target, "digits-vit", PREVIEWED_REFS)] * 2
    records = {
        record["run_id"]: preview_objects_of_record(record) for record in read_records(store, "digits-vit").records
    }
    assert records == {"killed": (), "mine": (), "moved": PREVIEWED_REFS}
    assert "Next: kubectl -n old delete deployment/tfs-server-preview service/tfs-server-preview" in caplog.text


def test_preview_is_not_in_the_history(store, leave, pushed):
    """After a failed preview there is nothing to roll back; the record still has the image."""
    leave("failed")
    [record] = read_records(store, "digits-vit").records
    assert (record["digest"], record["version"], record["objects"]) == (pushed.digest, 7, [])
    assert read_history(store, "digits-vit").newest is None


def test_rendering_a_preview_does_not_change_the_live_manifests(release):
    """The live objects are rendered as before."""
    before = deepcopy(render_manifests(release, **OF))
    previewed(release)
    assert render_manifests(release, **OF) == before
