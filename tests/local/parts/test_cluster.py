"""The configuration of the cluster's programs."""

import tomllib
from pathlib import Path

import yaml

from local.parts.cluster import (
    programs,
    render_containerd,
    render_kubeadm,
    render_kubelet,
    render_namespace,
    render_network,
    render_proxy,
    render_webhook,
)
from local.settings import read_settings

SETTINGS = read_settings({"SLIPWAY_CACHE": "/cache"}, Path(__file__).resolve().parents[3])


def flags(name):
    """The flags of one of the cluster's programs."""
    return next(program.command for program in programs(SETTINGS, Path("/bin")) if program.name == name)


def test_containerd_keeps_to_its_own_folders():
    """It shares no folder with another containerd on the machine. Sandboxes keep the parent's OOM score."""
    config = tomllib.loads(render_containerd(SETTINGS))
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert (config["root"], config["state"], config["grpc"]["address"]) == (
        "/cache/containerd",
        "/run/slipway/containerd",
        "/run/slipway/containerd.sock",
    )
    assert cri["restrict_oom_score_adj"] is True
    assert cri["sandbox_image"].startswith("slipway.stand/pause:")
    assert cri["registry"]["config_path"] == "/var/lib/slipway/shared/registries"


def test_kubeadm_reads_two_documents():
    """Certificates are for loopback. The version is named, so that kubeadm does not look it up on the internet."""
    node, cluster = yaml.safe_load_all(render_kubeadm(SETTINGS))
    assert node["nodeRegistration"] == {"name": "slipway", "criSocket": "unix:///run/slipway/containerd.sock"}
    assert (cluster["kubernetesVersion"], cluster["controlPlaneEndpoint"]) == ("v1.34.4", "127.0.0.1:28443")
    assert cluster["apiServer"]["certSANs"] == ["127.0.0.1", "localhost", "metrics-server.kube-system.svc"]


def test_kubelet_runs_on_any_cgroup_version():
    """The kubelet accepts a node with cgroup v1 or swap, and refuses anonymous callers."""
    config = render_kubelet(SETTINGS)
    assert (config["failCgroupV1"], config["failSwapOn"], config["cgroupDriver"]) == (False, False, "cgroupfs")
    assert config["authentication"]["anonymous"] == {"enabled": False}


def test_network_and_proxy_agree_on_the_pods_range():
    """kube-proxy recognises pods by the range from which the network assigns addresses."""
    ipam = render_network(SETTINGS)["plugins"][0]["ipam"]
    assert ipam["ranges"] == [[{"subnet": render_proxy(SETTINGS)["clusterCIDR"]}]]


def test_api_server_knows_the_token_webhook_and_the_nodes_address():
    """A checkout can register issuers later. `kubectl logs` reaches the kubelet by its address."""
    given = flags("api-server")
    assert "--authentication-token-webhook-config-file=/var/lib/slipway/shared/kubernetes/token-webhook.json" in given
    assert "--kubelet-preferred-address-types=InternalIP" in given
    assert "--bind-address=127.0.0.1" in given
    assert render_webhook()["clusters"][0]["cluster"]["server"] == "http://127.0.0.1:28444/token"


def test_namespace_admits_restricted_pods_only():
    """Pod Security enforces the `restricted` standard, as a hardened cluster does."""
    assert (
        render_namespace("slipway-1", Path("/srv"))["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )
