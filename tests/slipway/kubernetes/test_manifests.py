import shutil
from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import yaml

from slipway.errors import ManifestError
from slipway.kubernetes import manifests
from slipway.kubernetes.manifests import (
    KIND_ORDER,
    apply_rank,
    check_manifests,
    manifests_hash,
    name_of,
    overlay_folder,
    render_manifests,
    to_yaml,
)
from slipway.model.served import overlay_names
from slipway.release import ExportOptions
from slipway.target import Target

REFERENCE = f"127.0.0.1:5000/shop/digits-vit@sha256:{'d' * 64}"
SELECTOR = {"app": "tfs-server", "slipway/model": "digits-vit"}
MARKS = ExportOptions(on_bad_image="mark")
ALL_LABELS = {**SELECTOR, "slipway/version": "7", "slipway/release": "abcdefabcdef"}


@cache
def rendered_once(release, _manifests):
    """The objects of a release; kubectl runs once for all tests that look at the same ones."""
    return render_manifests(release, reference=REFERENCE, version=7, release_id="abcdefabcdef")


def rendered(release):
    """The objects of a release by kind, which does not know its store; its graph marks bad images, as batching needs it."""
    objects = rendered_once(replace(release, store="", export=MARKS), manifests.MANIFESTS)
    return {manifest["kind"]: deepcopy(manifest) for manifest in objects}


def server_of(objects):
    """The container that serves."""
    containers = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    return next(container for container in containers if container["name"] == "tfs-k8s")


@pytest.fixture
def overlay(monkeypatch, tmp_path):
    """Writes an overlay beside a copy of the real ones; kustomize renders it as it renders those."""
    folder = tmp_path / "manifests"
    shutil.copytree(manifests.MANIFESTS, folder)
    monkeypatch.setattr(manifests, "MANIFESTS", folder)

    def write(*patches, **fields):
        place = folder / "overlays" / "mine"
        place.mkdir()
        kustomization = {
            "resources": ["../../base"],
            "patches": [{"patch": yaml.safe_dump(patch)} for patch in patches],
            **fields,
        }
        (place / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return place

    return write


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


@pytest.mark.parametrize("overlay_name", [None, *overlay_names()])
def test_replicas_are_left_to_the_autoscaler(release, overlay_name):
    """Nobody but the HPA says how many pods there are."""
    objects = rendered(replace(release, overlay=overlay_name))
    assert "replicas" not in objects["Deployment"]["spec"]
    autoscaler = objects["HorizontalPodAutoscaler"]["spec"]
    least = 2 if overlay_name == "batching" else 1
    assert (autoscaler["minReplicas"], autoscaler["maxReplicas"]) == (least, 3)
    assert autoscaler["metrics"][0]["resource"] == {
        "name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 80},
    }


@pytest.mark.parametrize("overlay_name", [None, *overlay_names()])
def test_pods_are_as_restricted_pod_security_demands(release, overlay_name):
    """The fields of Kubernetes' Pod Security Standard `restricted`, in every container."""
    pods = rendered(replace(release, overlay=overlay_name))["Deployment"]["spec"]["template"]["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pods.keys()
    assert pods["securityContext"]["runAsNonRoot"] is True
    assert pods["securityContext"]["runAsUser"] > 0
    assert pods["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    assert all(volume.keys() - {"name"} <= allowed for volume in pods["volumes"])
    for container in pods["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["readOnlyRootFilesystem"] is True
        assert not any("hostPort" in port for port in container["ports"])


@pytest.mark.parametrize("overlay_name", [None, *overlay_names()])
def test_deployment_serves_without_a_gap(release, overlay_name):
    """No pod goes before its successor is ready, and a pod that goes serves until it is out of the endpoints."""
    objects = rendered(replace(release, overlay=overlay_name))
    spec = objects["Deployment"]["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    drain_s = int(server_of(objects)["lifecycle"]["preStop"]["exec"]["command"][1])
    assert 0 < drain_s < spec["template"]["spec"]["terminationGracePeriodSeconds"]
    assert "--max_num_load_retries=0" in server_of(objects)["args"]
    assert server_of(objects)["resources"]["requests"].keys() == {"cpu", "memory"}
    assert objects["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def arguments_of(objects):
    """The server's arguments by their names."""
    return dict(argument.removeprefix("--").partition("=")[::2] for argument in server_of(objects)["args"])


def test_the_seeds_own_numbers(release):
    """The overlay `seed` has the seed's threads, CPU and autoscaler, and the base's memory, which the seed left open."""
    objects = rendered(replace(release, overlay="seed"))
    assert arguments_of(objects) == {
        "tensorflow_inter_op_parallelism": "2",
        "tensorflow_intra_op_parallelism": "8",
        "max_num_load_retries": "0",
    }
    assert server_of(objects)["resources"] == {
        "requests": {"cpu": "800m", "memory": "2Gi"},
        "limits": {"cpu": "800m", "memory": "4Gi"},
    }
    assert objects["HorizontalPodAutoscaler"]["spec"] == rendered(release)["HorizontalPodAutoscaler"]["spec"]


def test_inter_op_4_differs_by_one_argument(release):
    """The experiment changes one number, so that it tells what that number does."""
    objects, base = rendered(replace(release, overlay="inter-op-4")), rendered(release)
    assert arguments_of(objects).items() - arguments_of(base).items() == {("tensorflow_inter_op_parallelism", "4")}
    server_of(objects)["args"] = server_of(base)["args"]
    assert objects == base


def render(release):
    """The objects of a release as they would be applied, or the refusal."""
    return render_manifests(release, reference=REFERENCE, version=7, release_id="abcdefabcdef")


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


@pytest.mark.parametrize("name", ["tfs-server", "tfs-digits"])
def test_batching_reads_a_config_map_of_its_own_deployment(release, name):
    """The parameters are mounted read-only; the ConfigMap bears the deployment's name, so two models never share one."""
    objects = rendered(replace(release, overlay="batching", deployment=name))
    [volume] = [v for v in objects["Deployment"]["spec"]["template"]["spec"]["volumes"] if v["name"] == "batching"]
    [mount] = [m for m in server_of(objects)["volumeMounts"] if m["name"] == "batching"]
    assert objects["ConfigMap"]["metadata"]["name"].startswith(f"{name}-")
    assert volume["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    assert mount["readOnly"] is True
    assert "enable_batching" in arguments_of(objects)
    folder, file = arguments_of(objects)["batching_parameters_file"].rsplit("/", 1)
    assert folder == mount["mountPath"]
    numbers = [line for line in objects["ConfigMap"]["data"][file].splitlines() if not line.startswith("#")]
    assert numbers == [
        "max_batch_size { value: 128 }",
        "batch_timeout_micros { value: 0 }",
        "max_enqueued_batches { value: 2 }",
        "num_batch_threads { value: 2 }",
    ]


def test_changed_batching_rolls_the_deployment(release, overlay):
    """Another content is another ConfigMap, and a pod template that differs in nothing but its name."""
    before = rendered(replace(release, overlay="batching"))
    file = overlay().parent / "batching" / "batching.txt"
    file.write_text(file.read_text().replace("128", "64"))
    rendered_once.cache_clear()
    after = rendered(replace(release, overlay="batching"))
    name, changed = (objects["ConfigMap"]["metadata"]["name"] for objects in (before, after))
    assert name != changed
    assert to_yaml([before["Deployment"]]).replace(name, changed) == to_yaml([after["Deployment"]])


def test_internal_load_balancer_on_every_cloud(release):
    """Each cloud finds its own annotation; nothing else differs from the base."""
    objects = rendered(replace(release, overlay="internal"))
    assert objects["Service"]["metadata"].pop("annotations") == {
        "networking.gke.io/load-balancer-type": "Internal",
        "service.beta.kubernetes.io/azure-load-balancer-internal": "true",
        "service.beta.kubernetes.io/aws-load-balancer-scheme": "internal",
        "service.beta.kubernetes.io/aws-load-balancer-internal": "true",
    }
    assert objects == rendered(release)


def test_components_combine_in_a_users_overlay(release, overlay):
    """All components on one overlay, whose own patch puts its ranges in place of the component's."""
    ranges = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "tfs-server"},
              "spec": {"loadBalancerSourceRanges": ["203.0.113.0/24"]}}  # fmt: skip
    names = sorted(path.name for path in (manifests.MANIFESTS / "components").iterdir())
    overlay(ranges, components=[f"../../components/{name}" for name in names])
    objects = rendered(replace(release, overlay="mine", deployment="tfs-digits"))
    assert names == ["image-pull-secret", "internal", "source-ranges"]
    assert objects["Service"]["spec"]["loadBalancerSourceRanges"] == ["203.0.113.0/24"]
    assert "networking.gke.io/load-balancer-type" in objects["Service"]["metadata"]["annotations"]
    pods = objects["Deployment"]["spec"]["template"]["spec"]
    assert pods["imagePullSecrets"] == [{"name": "registry-credentials"}]


def test_source_ranges_are_private_networks_unless_said_otherwise(release, overlay):
    """The component alone keeps the internet out."""
    overlay(components=["../../components/source-ranges"])
    service = rendered(replace(release, overlay="mine"))["Service"]
    assert service["spec"]["loadBalancerSourceRanges"] == ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]


@pytest.mark.parametrize("folder", ["overlays", "components"])
def test_every_folder_says_what_it_is_for(folder):
    """A kustomization begins with a comment for whoever chooses among them."""
    for kustomization in manifests.MANIFESTS.glob(f"{folder}/*/kustomization.yaml"):
        assert kustomization.read_text().startswith("# "), kustomization


def test_service_offers_both_ports(release):
    """The seed's Service: a load balancer with gRPC at 8500 and REST at 8501."""
    spec = rendered(release)["Service"]["spec"]
    assert spec["type"] == "LoadBalancer"
    ports = {port["name"]: (port["port"], port["targetPort"]) for port in spec["ports"]}
    assert ports == {"tf-serving-grpc": (8500, "grpc"), "tf-serving-restapi": (8501, "restapi")}


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
    monkeypatch.setattr(manifests, "KUBECTL", "kubectl-of-nowhere")
    with pytest.raises(ManifestError, match=r"^kubectl: not found on this worker\. Next: "):
        manifests_hash(release)


def test_unknown_kinds_come_before_the_service():
    """What we do not know may be needed by what we do, so it comes before the Service."""
    kinds = ["Deployment", "ServiceMonitor", "Service", "ConfigMap", "HorizontalPodAutoscaler", "Namespace"]
    manifests_ = [{"kind": kind, "metadata": {"name": "x"}} for kind in kinds]
    assert [manifest["kind"] for manifest in sorted(manifests_, key=apply_rank)] == [
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
