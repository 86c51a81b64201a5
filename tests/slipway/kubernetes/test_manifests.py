from dataclasses import replace

import pytest
import yaml
from rendering import MARKS, REFERENCE, render, rendered, server_of

from slipway.errors import ManifestError
from slipway.kubernetes.kustomize import render_manifests
from slipway.kubernetes.manifests import KIND_ORDER, apply_rank, check_manifests, name_of, to_yaml

SELECTOR = {"app": "tfs-server", "slipway/model": "digits-vit"}
ALL_LABELS = {**SELECTOR, "slipway/version": "7", "slipway/release": "abcdefabcdef"}


def patch(**spec):
    """A strategic merge patch of the Deployment."""
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "tfs-server"}, "spec": spec}


def pod_patch(**spec):
    """A strategic merge patch of the Deployment's pods."""
    return patch(template={"spec": spec})


def test_objects_in_the_order_in_which_they_are_applied(release):
    """What others need comes first; the HPA comes after what it scales."""
    objects = render_manifests(release, reference=REFERENCE, version=7, release_id="abcdefabcdef")
    assert [name_of(manifest) for manifest in objects] == [
        "service/tfs-server",
        "poddisruptionbudget/tfs-server",
        "deployment/tfs-server",
        "horizontalpodautoscaler/tfs-server",
    ]
    assert {manifest["metadata"]["namespace"] for manifest in objects} == {"shop"}


def test_image_by_digest(release):
    """What was pushed is what runs, by digest."""
    assert server_of(rendered(release))["image"] == REFERENCE


def test_selectors_carry_the_model_and_nothing_that_changes(release):
    """A new release keeps its selectors, which are immutable; another model's pods are never selected."""
    objects = rendered(release)
    assert objects["Deployment"]["spec"]["selector"] == {"matchLabels": SELECTOR}
    assert objects["Service"]["spec"]["selector"] == SELECTOR
    assert objects["PodDisruptionBudget"]["spec"]["selector"] == {"matchLabels": SELECTOR}


def test_labels_of_objects_and_pods_name_version_and_release(release):
    """Every object and pod tells its release."""
    objects = rendered(release)
    for manifest in objects.values():
        assert manifest["metadata"]["labels"] == ALL_LABELS
    assert objects["Deployment"]["spec"]["template"]["metadata"]["labels"] == ALL_LABELS


def test_a_renamed_deployment_takes_its_objects_along(release):
    """The model file's name is everywhere where the base's was, references included."""
    objects = rendered(replace(release, deployment="tfs-digits"))
    assert {manifest["metadata"]["name"] for manifest in objects.values()} == {"tfs-digits"}
    assert objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "tfs-digits",
    }


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe"])
def test_probes_ask_for_the_released_version(release, probe):
    """Only the server of this version answers its probes."""
    said = {"path": "/v1/models/digits-vit/versions/7", "port": "restapi"}
    assert said == server_of(rendered(release))[probe]["httpGet"]


def test_batching_is_refused_if_bad_images_refuse(release):
    """One bad image would fail every request that is joined with it: the graph has to mark it."""
    with pytest.raises(ManifestError, match=r"overlay batching: deployment/tfs-server has --enable_batching.* Next: "):
        render(replace(release, overlay="batching"))


@pytest.mark.parametrize(
    ("argument", "is_refused"),
    [
        ("--enable_batching=true", True),
        ("--enable_batching=false", False),
        ("--enable_batching=0", False),
        ("--enable_batching_of_mine", False),
        ("--batching_parameters_file=/x", False),
    ],
)
def test_batching_is_found_in_an_overlay_of_ones_own(release, argument, is_refused):
    """Whatever overlay turns batching on, in whichever spelling, is refused likewise; one that turns it off is not."""
    objects = rendered(release)
    server_of(objects)["args"].append(argument)
    checked = list(objects.values())
    if not is_refused:
        return check_manifests(checked, release, reference=REFERENCE)
    with pytest.raises(ManifestError, match="has --enable_batching"):
        check_manifests(checked, release, reference=REFERENCE)
    return check_manifests(checked, replace(release, export=MARKS), reference=REFERENCE)


def test_batch_smaller_than_the_warmup_is_refused(release, overlay):
    """The server would refuse its own warmup and not start; with numbers that fit, the same overlay is taken."""
    file = overlay().parent / "batching" / "batching.txt"
    file.write_text(file.read_text().replace("128", "3"))
    asked = replace(release, overlay="batching", export=MARKS)
    with pytest.raises(ManifestError) as refused:
        render(asked)
    assert str(refused.value) == (
        "overlay batching: deployment/tfs-server joins at most 3 images (max_batch_size), and the export's warmup asks for 4 "
        "at once: the server would not start. Next: raise max_batch_size to 4, or set export.warmup_batches to numbers up to 3"
    )
    assert render(replace(asked, export=replace(MARKS, warmup_batches=(1, 3))))


def test_archive_may_be_batched(release):
    """What an archive's graph does with bad images nobody here knows."""
    archive = replace(release, overlay="batching", source=replace(release.source, kind="savedmodel"))
    assert render(archive)


def test_sidecar_leaves_the_server_as_it_is(release, overlay):
    """An overlay may add a container: probes and image stay with the one that serves."""
    sidecar = {"name": "proxy", "image": "proxy:1", "startupProbe": {"httpGet": {"path": "/up", "port": 80}},
               "readinessProbe": {"httpGet": {"path": "/up", "port": 80}}}  # fmt: skip
    overlay(pod_patch(containers=[sidecar]))
    objects = rendered(replace(release, overlay="mine"))
    containers = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert sidecar in containers
    assert server_of(objects)["image"] == REFERENCE
    for probe in ("startupProbe", "readinessProbe"):
        assert server_of(objects)[probe]["httpGet"]["path"] == "/v1/models/digits-vit/versions/7"


SERVER = {"name": "tfs-k8s"}
REFUSED = {
    "replicas": (patch(replicas=3), "deployment/tfs-server: spec.replicas is set"),
    "no container": (
        pod_patch(containers=[{**SERVER, "$patch": "delete"}, {"name": "other", "image": "x"}]),
        "deployment/tfs-server: container tfs-k8s has image None",
    ),
    "another image": (
        pod_patch(containers=[{**SERVER, "image": "elsewhere/serving:1"}]),
        "deployment/tfs-server: container tfs-k8s has image elsewhere/serving:1",
    ),
    "no startup probe": (
        pod_patch(containers=[{**SERVER, "startupProbe": None}]),
        "deployment/tfs-server: container tfs-k8s has no startupProbe by httpGet",
    ),
    "readiness by gRPC": (
        pod_patch(containers=[{**SERVER, "readinessProbe": {"httpGet": None, "grpc": {"port": 8500}}}]),
        "deployment/tfs-server: container tfs-k8s has no readinessProbe by httpGet",
    ),
    "no Service": (
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "tfs-server"}, "$patch": "delete"},
        "overlay mine: renders no Service tfs-server",
    ),
    "no Deployment": (
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "tfs-server"}, "$patch": "delete"},
        "overlay mine: renders 0 Deployments named tfs-server",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED)
def test_refused_if_an_overlay_takes_what_is_ours(release, overlay, change, said):
    """An overlay that sets what is not its own is refused in one line naming object and field."""
    overlay(change)
    with pytest.raises(ManifestError) as refusal:
        rendered(replace(release, overlay="mine"))
    message = str(refusal.value)
    assert "\n" not in message
    assert message.startswith(said)
    assert "Next: " in message


def test_refused_if_another_namespace_is_set(release):
    """An object of another namespace is refused, naming it and the field."""
    objects = list(rendered(release).values())
    objects[0]["metadata"]["namespace"] = "other"
    with pytest.raises(
        ManifestError, match=r"^service/tfs-server: metadata\.namespace is other, the target is shop\. Next: "
    ):
        check_manifests(objects, release, reference=REFERENCE)


def test_refused_if_the_selector_lacks_the_model(release):
    """A selector that would take another model's pods is refused."""
    objects = rendered(release)
    del objects["Deployment"]["spec"]["selector"]["matchLabels"]["slipway/model"]
    with pytest.raises(ManifestError, match=r"^deployment/tfs-server: spec\.selector lacks .*Next: "):
        check_manifests(list(objects.values()), release, reference=REFERENCE)


def test_unknown_kinds_come_before_the_service():
    """What we do not know may be needed by what we do, so it comes before the Service."""
    kinds = ["Deployment", "ServiceMonitor", "Service", "ConfigMap", "HorizontalPodAutoscaler", "Namespace"]
    objects = [{"kind": kind, "metadata": {"name": "x"}} for kind in kinds]
    assert [manifest["kind"] for manifest in sorted(objects, key=apply_rank)] == [
        "Namespace", "ConfigMap", "ServiceMonitor", "Service", "Deployment", "HorizontalPodAutoscaler",
    ]  # fmt: skip
    assert KIND_ORDER.index("Service") < KIND_ORDER.index("Deployment")


def test_yaml_is_a_stream_that_kubectl_takes(release):
    """The kept manifests are the applied ones."""
    objects = list(rendered(release).values())
    assert objects == list(yaml.safe_load_all(to_yaml(objects)))


@pytest.mark.parametrize("release_id", ["12e456789012", "123456789012", "000000000000"])
def test_release_id_that_looks_like_a_number_is_text(release, release_id):
    """Hex digits may all be decimal ones, or have one e among them: kubectl and PyYAML disagree on what is a number then."""
    objects = render_manifests(release, reference=REFERENCE, version=7, release_id=release_id)
    assert {manifest["metadata"]["labels"]["slipway/release"] for manifest in objects} == {release_id}
    assert f"slipway/release: '{release_id}'" in to_yaml(objects)
