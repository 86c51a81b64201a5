import re
from dataclasses import replace

import pytest
import yaml
from rendering import MARKS, REFERENCE, render, rendered, server_of

from slipway.errors import ManifestError
from slipway.kubernetes.kustomize import render_manifests
from slipway.kubernetes.manifests import KIND_ORDER, apply_rank, check_manifests, manifest_name, manifests_to_yaml
from slipway.release import Bake, Gate, PrometheusQueries

SELECTOR = {"app": "tfs-server", "slipway/model": "digits-vit"}
ALL_LABELS = {**SELECTOR, "slipway/version": "7", "slipway/release": "abcdefabcdef"}


def unhashed(name):
    """An object's name without the hash that a generated one ends in."""
    return re.sub(r"(?<=-monitoring)-\w+$", "", name)


def patch(**spec):
    """A strategic merge patch of the Deployment."""
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "tfs-server"}, "spec": spec}


def pod_patch(**spec):
    """A strategic merge patch of the Deployment's pods."""
    return patch(template={"spec": spec})


def test_objects_in_the_order_in_which_they_are_applied(release):
    """An object comes after what it needs; the HPA comes after the Deployment."""
    objects = render_manifests(release, reference=REFERENCE, version=7, release_id="abcdefabcdef")
    assert [unhashed(manifest_name(manifest)) for manifest in objects] == [
        "configmap/tfs-server-monitoring",
        "service/tfs-server",
        "poddisruptionbudget/tfs-server",
        "deployment/tfs-server",
        "horizontalpodautoscaler/tfs-server",
    ]
    assert {manifest["metadata"]["namespace"] for manifest in objects} == {"shop"}


def test_image_by_digest(release):
    """The Deployment has the pushed image, by digest."""
    assert server_of(rendered(release))["image"] == REFERENCE


def test_selectors_have_the_model_and_nothing_that_changes(release):
    """Selectors are immutable, so a new release keeps them; they never select another model's pods."""
    objects = rendered(release)
    assert objects["Deployment"]["spec"]["selector"] == {"matchLabels": SELECTOR}
    assert objects["Service"]["spec"]["selector"] == SELECTOR
    assert objects["PodDisruptionBudget"]["spec"]["selector"] == {"matchLabels": SELECTOR}


def test_labels_of_objects_and_pods_name_version_and_release(release):
    """Every object and pod has labels with version and release."""
    objects = rendered(release)
    for manifest in objects.values():
        assert manifest["metadata"]["labels"] == ALL_LABELS
    assert objects["Deployment"]["spec"]["template"]["metadata"]["labels"] == ALL_LABELS


def test_renaming_the_deployment_renames_its_objects(release):
    """The model file's name replaces the base's everywhere, in references too."""
    objects = rendered(replace(release, deployment="tfs-digits"))
    names = {unhashed(manifest["metadata"]["name"]) for manifest in objects.values()}
    assert names == {"tfs-digits", "tfs-digits-monitoring"}
    [volume] = [
        one for one in objects["Deployment"]["spec"]["template"]["spec"]["volumes"] if one["name"] == "monitoring"
    ]
    assert volume["configMap"]["name"] == objects["monitoring"]["metadata"]["name"]
    assert objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "tfs-digits",
    }


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe"])
def test_probes_ask_for_the_released_version(release, probe):
    """Only the server of this version answers its probes."""
    expected = {"path": "/v1/models/digits-vit/versions/7", "port": "restapi"}
    assert expected == server_of(rendered(release))[probe]["httpGet"]


def test_a_bake_is_refused_without_a_page_of_metrics(release, overlay):
    """An overlay's own `args` replace those of the base. A Prometheus may know the servers in another way."""
    overlay(pod_patch(containers=[{"name": "tfs-k8s", "args": ["--tensorflow_inter_op_parallelism=4"]}]))
    baked = replace(release, overlay="mine", gate=Gate(bake=Bake()))
    refused = r"^overlay mine: deployment/tfs-server has no --monitoring_config_file, .* Next: add --monitoring_config_file=/etc/"
    with pytest.raises(ManifestError, match=refused):
        render(baked)
    assert render(replace(release, overlay="mine"))
    asks = Bake(prometheus=PrometheusQueries(conn_id="p", errors="e"))
    assert render(replace(baked, gate=Gate(bake=asks)))
    assert render(replace(baked, overlay=None))


def test_batching_of_onnx_runtime_needs_no_marks(release):
    """Its server decodes images before it joins them: a bad one fails only its own request."""
    objects = render(replace(release, overlay="batching", runtime="onnxruntime"))
    assert "Deployment" in {manifest["kind"] for manifest in objects}


def test_batching_is_refused_unless_bad_images_are_marked(release):
    """One bad image would fail every request that is joined with it, so the graph must mark it."""
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
def test_batching_is_found_in_a_users_overlay(release, argument, is_refused):
    """Any overlay that turns batching on, in any spelling, is refused; one that turns it off is not."""
    objects = rendered(release)
    server_of(objects)["args"].append(argument)
    checked = list(objects.values())
    if not is_refused:
        return check_manifests(checked, release, reference=REFERENCE)
    with pytest.raises(ManifestError, match="has --enable_batching"):
        check_manifests(checked, release, reference=REFERENCE)
    return check_manifests(checked, replace(release, export=MARKS), reference=REFERENCE)


def test_batch_smaller_than_the_warmup_is_refused(release, copied_batching):
    """The server would refuse its own warmup and not start; with numbers that fit, the overlay is accepted."""
    file = copied_batching / "batching.txt"
    file.write_text(file.read_text().replace("max_batch_size { value: 8 }", "max_batch_size { value: 3 }"))
    asked = replace(release, overlay="batching", export=MARKS)
    with pytest.raises(ManifestError) as refused:
        render(asked)
    assert str(refused.value) == (
        "overlay batching: deployment/tfs-server joins at most 3 images (max_batch_size), and the export's warmup asks for 4 "
        "at once: the server would not start. Next: raise max_batch_size to 4, or set export.warmup_batches to numbers up to 3"
    )
    assert render(replace(asked, export=replace(MARKS, warmup_batches=(1, 3))))


def test_archive_may_be_batched(release):
    """What an archive's graph does with bad images is unknown, so it is not refused."""
    archive = replace(release, overlay="batching", source=replace(release.source, kind="savedmodel"))
    assert render(archive)


def test_sidecar_does_not_change_the_server(release, overlay):
    """An overlay may add a container; version probes and image are those of the server only."""
    sidecar = {"name": "proxy", "image": f"proxy@sha256:{'b' * 64}", "startupProbe": {"httpGet": {"path": "/up", "port": 80}},
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
def test_refused_if_an_overlay_changes_what_slipway_sets(release, overlay, change, said):
    """An overlay that changes what Slipway sets is refused in one line with object and field."""
    overlay(change)
    with pytest.raises(ManifestError) as refusal:
        rendered(replace(release, overlay="mine"))
    message = str(refusal.value)
    assert "\n" not in message
    assert message.startswith(said)
    assert "Next: " in message


def test_refused_if_another_namespace_is_set(release):
    """An object of another namespace is refused with its name and the field."""
    objects = rendered(release)
    objects["Service"]["metadata"]["namespace"] = "other"
    with pytest.raises(
        ManifestError, match=r"^service/tfs-server: metadata\.namespace is other, the target is shop\. Next: "
    ):
        check_manifests(list(objects.values()), release, reference=REFERENCE)


def test_refused_if_the_selector_lacks_the_model(release):
    """A selector that would select another model's pods is refused."""
    objects = rendered(release)
    del objects["Deployment"]["spec"]["selector"]["matchLabels"]["slipway/model"]
    with pytest.raises(ManifestError, match=r"^deployment/tfs-server: spec\.selector lacks .*Next: "):
        check_manifests(list(objects.values()), release, reference=REFERENCE)


def test_unknown_kinds_come_before_the_service():
    """Known kinds may need an unknown one, so it comes before the Service."""
    kinds = ["Deployment", "ServiceMonitor", "Service", "ConfigMap", "HorizontalPodAutoscaler", "Namespace"]
    objects = [{"kind": kind, "metadata": {"name": "x"}} for kind in kinds]
    assert [manifest["kind"] for manifest in sorted(objects, key=apply_rank)] == [
        "Namespace", "ConfigMap", "ServiceMonitor", "Service", "Deployment", "HorizontalPodAutoscaler",
    ]  # fmt: skip
    assert KIND_ORDER.index("Service") < KIND_ORDER.index("Deployment")


def test_yaml_stream_has_the_same_objects(release):
    """The stored manifests are the applied ones."""
    objects = list(rendered(release).values())
    assert objects == list(yaml.safe_load_all(manifests_to_yaml(objects)))


@pytest.mark.parametrize("release_id", ["12e456789012", "123456789012", "000000000000"])
def test_release_id_that_looks_like_a_number_is_text(release, release_id):
    """A hash may be all decimal digits, or have one e: kubectl and PyYAML disagree on which of these are numbers."""
    objects = render_manifests(release, reference=REFERENCE, version=7, release_id=release_id)
    assert {manifest["metadata"]["labels"]["slipway/release"] for manifest in objects} == {release_id}
    assert f"slipway/release: '{release_id}'" in manifests_to_yaml(objects)
