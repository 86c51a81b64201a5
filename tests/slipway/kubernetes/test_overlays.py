from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rendering import arguments_of, rendered, rendered_once, server_of

from onnx_server.bounded_rest import ALIVE
from onnx_server.flags import ServerFlags
from slipway.kubernetes.manifests import manifests_to_yaml
from slipway.model.served import overlay_names
from slipway.paths import INCLUDE
from slipway.serving.metrics import PAGE

PROJECT = Path(__file__).parents[3]


@pytest.mark.parametrize("overlay_name", [None, *overlay_names()])
def test_replicas_are_left_to_the_autoscaler(release, overlay_name):
    """Only the HPA sets the number of pods."""
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
def test_pods_meet_pod_security_restricted(release, overlay_name):
    """Every container has the fields that Kubernetes' Pod Security Standard `restricted` requires."""
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
    """A pod terminates only when its successor is ready, and serves until it is out of the endpoints."""
    objects = rendered(replace(release, overlay=overlay_name))
    spec = objects["Deployment"]["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    drain_s = int(server_of(objects)["lifecycle"]["preStop"]["exec"]["command"][1])
    assert 0 < drain_s < spec["template"]["spec"]["terminationGracePeriodSeconds"]
    assert "--max_num_load_retries=0" in server_of(objects)["args"]
    assert server_of(objects)["resources"]["requests"].keys() == {"cpu", "memory"}
    assert objects["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize("overlay_name", [None, *overlay_names()])
def test_pod_lives_until_its_server_has_ended(release, overlay_name):
    """preStop, and then all the time that ONNX Runtime's server takes to end, fit the grace period. `local` has the delay and 2 s."""
    objects = rendered(replace(release, overlay=overlay_name))
    drain_s = int(server_of(objects)["lifecycle"]["preStop"]["exec"]["command"][1])
    flags = ServerFlags()
    running_ms = 2000 if overlay_name == "local" else flags.shutdown_timeout_in_ms
    end_s = drain_s + (flags.shutdown_delay_in_ms + running_ms) / 1000
    assert end_s <= objects["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]


def test_liveness_probe_of_the_page_is_accepted(release, overlay):
    """The patch in docs/runtimes.md gives the server a probe of the path that its program has, and nothing else."""
    text = (PROJECT / "docs" / "runtimes.md").read_text().partition("## A liveness probe")[2]
    overlay(yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0]))
    objects = rendered(replace(release, overlay="mine", runtime="onnxruntime"))
    probe = server_of(objects).pop("livenessProbe")
    assert probe["httpGet"] == {"path": ALIVE.decode(), "port": "restapi"}
    assert objects == rendered(replace(release, runtime="onnxruntime"))


@pytest.mark.parametrize("overlay_name", [None, *overlay_names()])
def test_servers_have_a_page_of_metrics(release, overlay_name):
    """The monitoring file is mounted where the flag looks for it; the page is where a bake looks for it."""
    objects = rendered(replace(release, overlay=overlay_name, deployment="tfs-digits"))
    folder, file = arguments_of(objects)["monitoring_config_file"].rsplit("/", 1)
    [mount] = [one for one in server_of(objects)["volumeMounts"] if one["mountPath"] == folder]
    pods = objects["Deployment"]["spec"]["template"]["spec"]
    [volume] = [one for one in pods["volumes"] if one["name"] == mount["name"]]
    assert mount["readOnly"] is True
    assert volume["configMap"]["name"] == objects["monitoring"]["metadata"]["name"]
    assert f'prometheus_config {{ enable: true, path: "{PAGE}" }}' in objects["monitoring"]["data"][file].splitlines()


@pytest.mark.parametrize("overlay_name", [None, "batching", "inter-op-4", "internal", "local"])
def test_threads_are_the_pods_cpus(release, overlay_name):
    """TensorFlow gets as many threads as the pod requests CPUs; only the experiment has other inter-op threads."""
    objects = rendered(replace(release, overlay=overlay_name))
    [cpus] = [one for one in server_of(objects)["env"] if one["name"] == "CPUS"]
    assert cpus["valueFrom"] == {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1"}}
    inter_op = "4" if overlay_name == "inter-op-4" else "$(CPUS)"
    found = arguments_of(objects)
    assert found["tensorflow_inter_op_parallelism"] == inter_op
    assert found["tensorflow_intra_op_parallelism"] == "$(CPUS)"


def test_seed_overlay_has_the_seeds_numbers(release):
    """The overlay `seed` has the seed's threads, CPU and autoscaler; the seed sets no memory, so that is the base's."""
    objects = rendered(replace(release, overlay="seed"))
    assert arguments_of(objects) == {
        "tensorflow_inter_op_parallelism": "2",
        "tensorflow_intra_op_parallelism": "8",
        "max_num_load_retries": "0",
        "monitoring_config_file": "/etc/tf-monitoring/monitoring.txt",
    }
    assert server_of(objects)["resources"] == {
        "requests": {"cpu": "800m", "memory": "2Gi"},
        "limits": {"cpu": "800m", "memory": "4Gi"},
    }
    assert objects["HorizontalPodAutoscaler"]["spec"] == rendered(release)["HorizontalPodAutoscaler"]["spec"]


def test_inter_op_4_differs_by_one_argument(release):
    """The experiment changes one number only."""
    objects, base = rendered(replace(release, overlay="inter-op-4")), rendered(release)
    assert arguments_of(objects).items() - arguments_of(base).items() == {("tensorflow_inter_op_parallelism", "4")}
    server_of(objects)["args"] = server_of(base)["args"]
    assert objects == base


@pytest.mark.parametrize("name", ["tfs-server", "tfs-digits"])
def test_batching_reads_a_config_map_of_its_own_deployment(release, name):
    """The parameters are mounted read-only; the ConfigMap has the deployment's name, so that two models never share it."""
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
        "max_batch_size { value: 8 }",
        "batch_timeout_micros { value: 0 }",
        "max_enqueued_batches { value: 2 }",
        "num_batch_threads { value: 2 }",
    ]


def test_changed_batching_rolls_the_deployment(release, copied_batching):
    """Other parameters make another ConfigMap; its name is the only change of the pod template."""
    before = rendered(replace(release, overlay="batching"))
    file = copied_batching / "batching.txt"
    file.write_text(file.read_text().replace("max_batch_size { value: 8 }", "max_batch_size { value: 64 }"))
    rendered_once.cache_clear()
    after = rendered(replace(release, overlay="batching"))
    name, changed = (objects["ConfigMap"]["metadata"]["name"] for objects in (before, after))
    assert name != changed
    assert manifests_to_yaml([before["Deployment"]]).replace(name, changed) == manifests_to_yaml([after["Deployment"]])


def test_internal_load_balancer_on_every_cloud(release):
    """There is an annotation for each cloud; nothing else differs from the base."""
    objects = rendered(replace(release, overlay="internal"))
    assert objects["Service"]["metadata"].pop("annotations") == {
        "networking.gke.io/load-balancer-type": "Internal",
        "service.beta.kubernetes.io/azure-load-balancer-internal": "true",
        "service.beta.kubernetes.io/aws-load-balancer-scheme": "internal",
        "service.beta.kubernetes.io/aws-load-balancer-internal": "true",
    }
    assert objects == rendered(release)


def test_components_combine_in_a_users_overlay(release, overlay):
    """An overlay can list all components, and its own patch replaces the ranges of the component."""
    ranges = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "tfs-server"},
              "spec": {"loadBalancerSourceRanges": ["203.0.113.0/24"]}}  # fmt: skip
    names = sorted(path.name for path in (INCLUDE / "manifests" / "components").iterdir())
    overlay(ranges, components=[f"../../components/{name}" for name in names])
    objects = rendered(replace(release, overlay="mine", deployment="tfs-digits"))
    assert names == ["image-pull-secret", "internal", "source-ranges"]
    assert objects["Service"]["spec"]["loadBalancerSourceRanges"] == ["203.0.113.0/24"]
    assert "networking.gke.io/load-balancer-type" in objects["Service"]["metadata"]["annotations"]
    pods = objects["Deployment"]["spec"]["template"]["spec"]
    assert pods["imagePullSecrets"] == [{"name": "registry-credentials"}]


def test_source_ranges_are_private_networks_by_default(release, overlay):
    """The component without a patch allows private networks only."""
    overlay(components=["../../components/source-ranges"])
    service = rendered(replace(release, overlay="mine"))["Service"]
    assert service["spec"]["loadBalancerSourceRanges"] == ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]


@pytest.mark.parametrize("folder", ["overlays", "components"])
def test_every_folder_says_what_it_is_for(folder):
    """Each kustomization begins with a comment that says what it is for."""
    for kustomization in (INCLUDE / "manifests").glob(f"{folder}/*/kustomization.yaml"):
        assert kustomization.read_text().startswith("# "), kustomization


def test_service_offers_both_ports(release):
    """The Service is the seed's: a load balancer with gRPC at 8500 and REST at 8501."""
    spec = rendered(release)["Service"]["spec"]
    assert spec["type"] == "LoadBalancer"
    ports = {port["name"]: (port["port"], port["targetPort"]) for port in spec["ports"]}
    assert ports == {"tf-serving-grpc": (8500, "grpc"), "tf-serving-restapi": (8501, "restapi")}
