"""The stand's own Kubernetes: certificates, configuration, and the programs of one node."""

import hashlib
import io
import json
import platform
import re
import tarfile
from pathlib import Path
from typing import Any

from local import settings as at
from local.builds.environments import content_id
from local.builds.packages import CNI_PLUGINS
from local.errors import StandError
from local.programs.shell import run, wait_until
from local.programs.supervision import Program
from local.settings import Settings

READY_S = 120
METRICS_SERVER_HOST = "metrics-server.kube-system.svc"  # it serves with the API server's certificate (metrics.py)


def pause_image(settings: Settings) -> str:
    """The image that holds a pod's namespaces, tagged with the hash of its source."""
    return f"slipway.stand/pause:{content_id((settings.checkout / 'local/kubernetes/pause/main.go').read_bytes())}"


def folder(settings: Settings) -> Path:
    """The folder of the cluster's certificates and configuration."""
    return settings.shared / "kubernetes"


def kubectl(settings: Settings, *words: str, binary: Path, stdin: str | None = None) -> str:
    """The output of kubectl with full rights on the stand's own cluster."""
    return run([*kubectl_command(settings, binary), *words], stdin=stdin, timeout_s=120)


def kubectl_command(settings: Settings, binary: Path) -> list[str | Path]:
    """The first words of such a command."""
    return [binary / "kubernetes", "kubectl", "--kubeconfig", settings.admin_kubeconfig]


def render_kubeadm(settings: Settings) -> str:
    """The configuration with which kubeadm writes certificates and kubeconfigs."""
    return f"""apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {{advertiseAddress: {at.POD_GATEWAY}, bindPort: {at.API_SERVER_PORT}}}
nodeRegistration: {{name: {at.NODE_NAME}, criSocket: "unix://{settings.containerd_socket}"}}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: {at.KUBERNETES_VERSION}
certificatesDir: {folder(settings)}/pki
controlPlaneEndpoint: "127.0.0.1:{at.API_SERVER_PORT}"
networking: {{podSubnet: {at.POD_RANGE}, serviceSubnet: {at.SERVICE_RANGE}, dnsDomain: cluster.local}}
apiServer: {{certSANs: [127.0.0.1, localhost, {METRICS_SERVER_HOST}]}}
"""


def render_containerd(settings: Settings) -> str:
    """Containerd's configuration: its own folders, no OOM score below the parent's, the local registry over HTTP."""
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "{settings.cache}/containerd"
state = "{settings.run}/containerd"
oom_score = 0

[grpc]
address = "{settings.containerd_socket}"

[plugins."io.containerd.internal.v1.opt"]
path = "{settings.cache}/containerd-opt"

[{cri}]
sandbox_image = "{pause_image(settings)}"
restrict_oom_score_adj = true
stream_server_address = "127.0.0.1"

[{cri}.cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{settings.shared}/cni"

[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[{cri}.containerd.runtimes.runc.options]
SystemdCgroup = false

[{cri}.registry]
config_path = "{settings.shared}/registries"
"""


def render_network(settings: Settings) -> dict[str, Any]:
    """The pods' network: one bridge, addresses assigned from files, host ports mapped."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": at.POD_RANGE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": f"{settings.run}/cni",
    }
    bridge = {
        "type": "bridge",
        "bridge": at.POD_BRIDGE,
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": ipam,
    }
    return {
        "cniVersion": "0.4.0",
        "name": "slipway",
        "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }


def render_kubelet(settings: Settings) -> dict[str, Any]:
    """The kubelet's configuration. The node may be a container, or have cgroup v1 or swap."""
    shared = settings.shared
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": at.POD_GATEWAY,
        "port": at.KUBELET_PORT,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": at.KUBELET_HEALTH_PORT,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{folder(settings)}/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{settings.containerd_socket}",
        "clusterDomain": "cluster.local",
        "podLogsDir": f"{shared}/pod-logs",
        "volumePluginDir": f"{shared}/volume-plugins",
        "serializeImagePulls": False,
        "imageGCHighThresholdPercent": 100,  # no garbage collection: a developer's disk may be fuller than a server's
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "shutdownGracePeriod": "0s",
    }


def render_proxy(settings: Settings) -> dict[str, Any]:
    """kube-proxy's configuration. It keeps the machine's limits of connection tracking."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": at.POD_RANGE,
        "hostnameOverride": at.NODE_NAME,
        "bindAddress": "127.0.0.1",
        "healthzBindAddress": f"127.0.0.1:{at.PROXY_HEALTH_PORT}",
        "metricsBindAddress": f"127.0.0.1:{at.PROXY_METRICS_PORT}",
        "nodePortAddresses": ["127.0.0.0/8"],
        "clientConnection": {"kubeconfig": str(settings.admin_kubeconfig)},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
    }


def render_webhook() -> dict[str, Any]:
    """The webhook to which the API server sends tokens that it does not know. It may be down."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "issuers", "cluster": {"server": f"http://127.0.0.1:{at.TOKEN_WEBHOOK_PORT}/token"}}],
        "users": [{"name": "api-server", "user": {}}],
        "contexts": [{"name": "issuers", "context": {"cluster": "issuers", "user": "api-server"}}],
        "current-context": "issuers",
    }


def containerd_program(settings: Settings) -> Program:
    """The stand's own containerd, for the kubelet and for the stand's own engine."""
    return Program(name="containerd", command=("containerd", "--config", str(settings.shared / "containerd.toml")))


def programs(settings: Settings, binary: Path) -> list[Program]:
    """The cluster's programs, in the order in which they start."""
    kubernetes = str(binary / "kubernetes")
    where = folder(settings)
    pki = where / "pki"
    return [
        Program(name="etcd", command=("etcd", *_etcd_flags(settings))),
        Program(name="api-server", command=(kubernetes, "kube-apiserver", *_api_server_flags(settings))),
        Program(name="controller-manager", command=(
            kubernetes, "kube-controller-manager", f"--kubeconfig={where}/controller-manager.conf", "--leader-elect=false",
            f"--root-ca-file={pki}/ca.crt", f"--service-account-private-key-file={pki}/sa.key",
            f"--cluster-signing-cert-file={pki}/ca.crt", f"--cluster-signing-key-file={pki}/ca.key",
            "--use-service-account-credentials=true", "--bind-address=127.0.0.1", f"--secure-port={at.CONTROLLER_MANAGER_PORT}",
            f"--cert-dir={where}/controller-manager",
        )),
        Program(name="scheduler", command=(
            kubernetes, "kube-scheduler", f"--kubeconfig={where}/scheduler.conf", "--leader-elect=false",
            "--bind-address=127.0.0.1", f"--secure-port={at.SCHEDULER_PORT}", f"--cert-dir={where}/scheduler",
        )),
        Program(name="kubelet", command=(
            kubernetes, "kubelet", f"--config={where}/kubelet.json", f"--kubeconfig={where}/kubelet.conf",
            f"--hostname-override={at.NODE_NAME}", f"--node-ip={at.POD_GATEWAY}", f"--root-dir={settings.shared}/kubelet",
            f"--cert-dir={where}/kubelet",
        )),
        Program(name="kube-proxy", command=(kubernetes, "kube-proxy", f"--config={where}/proxy.json")),
    ]  # fmt: skip


def _etcd_flags(settings: Settings) -> list[str]:
    pki = folder(settings) / "pki"
    return [
        "--name=slipway", f"--data-dir={settings.shared}/etcd", "--unsafe-no-fsync", "--logger=zap", "--log-level=warn",
        "--experimental-watch-progress-notify-interval=1s",  # otherwise a watch of unchanged objects fails: "Too large resource version"
        f"--listen-client-urls=https://127.0.0.1:{at.ETCD_PORT}", f"--advertise-client-urls=https://127.0.0.1:{at.ETCD_PORT}",
        f"--listen-peer-urls=http://127.0.0.1:{at.ETCD_PEER_PORT}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{at.ETCD_PEER_PORT}",
        f"--initial-cluster=slipway=http://127.0.0.1:{at.ETCD_PEER_PORT}",
        f"--cert-file={pki}/etcd/server.crt", f"--key-file={pki}/etcd/server.key",
        "--client-cert-auth", f"--trusted-ca-file={pki}/etcd/ca.crt",
    ]  # fmt: skip


def _api_server_flags(settings: Settings) -> list[str]:
    pki = folder(settings) / "pki"
    return [
        "--bind-address=127.0.0.1", f"--secure-port={at.API_SERVER_PORT}", f"--advertise-address={at.POD_GATEWAY}",
        f"--service-cluster-ip-range={at.SERVICE_RANGE}", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
        f"--etcd-servers=https://127.0.0.1:{at.ETCD_PORT}", f"--etcd-cafile={pki}/etcd/ca.crt",
        f"--etcd-certfile={pki}/apiserver-etcd-client.crt", f"--etcd-keyfile={pki}/apiserver-etcd-client.key",
        f"--client-ca-file={pki}/ca.crt", f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/sa.pub", f"--service-account-signing-key-file={pki}/sa.key",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt", f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",  # nothing resolves the node's name
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt", "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki}/front-proxy-client.crt", f"--proxy-client-key-file={pki}/front-proxy-client.key",
        f"--authentication-token-webhook-config-file={folder(settings)}/token-webhook.json",
        "--authentication-token-webhook-cache-ttl=5s",  # so that a newly registered issuer is accepted soon
    ]  # fmt: skip


def render_hosts(registry: str) -> str:
    """Containerd's configuration of the registry: plain HTTP, which is enough on loopback."""
    return f'server = "http://{registry}"\n[host."http://{registry}"]\ncapabilities = ["pull", "resolve"]\n'


def write_configuration(settings: Settings, binary: Path, registry: str) -> None:
    """Write all files that the cluster's programs read. Certificates and kubeconfigs are written once."""
    where = folder(settings)
    for path in (where, settings.shared / "cni", settings.shared / "registries"):
        path.mkdir(parents=True, exist_ok=True)
    (where / "kubeadm.yaml").write_text(render_kubeadm(settings))
    (settings.shared / "cni" / "10-slipway.conflist").write_text(json.dumps(render_network(settings), indent=1))
    if registry.startswith(("127.", "localhost")):
        hosts = settings.shared / "registries" / registry
        hosts.mkdir(parents=True, exist_ok=True)
        (hosts / "hosts.toml").write_text(render_hosts(registry))
    for name, content in {
        "kubelet.json": render_kubelet(settings),
        "proxy.json": render_proxy(settings),
        "token-webhook.json": render_webhook(),
    }.items():
        (where / name).write_text(json.dumps(content, indent=1))
    _make_certificates(settings, binary)


def _make_certificates(settings: Settings, binary: Path) -> None:
    where = folder(settings)
    if settings.admin_kubeconfig.exists():
        return
    kubeadm: list[str | Path] = [binary / "kubernetes", "kubeadm", "init", "phase"]
    run([*kubeadm, "certs", "all", "--config", where / "kubeadm.yaml"])
    # super-admin is last: its file marks that all are complete.
    for name in ("admin", "controller-manager", "scheduler", "kubelet", "super-admin"):
        run([*kubeadm, "kubeconfig", name, "--config", where / "kubeadm.yaml", "--kubeconfig-dir", where])
        path = where / f"{name}.conf"
        path.write_text(
            re.sub(r"server: https://\S+", f"server: https://127.0.0.1:{at.API_SERVER_PORT}", path.read_text())
        )


def import_pause_image(settings: Settings, binary: Path) -> None:
    """Import into containerd the image that holds a pod's namespaces."""
    ctr: list[str | Path] = ["ctr", "--address", str(settings.containerd_socket), "-n", "k8s.io", "images"]
    image = pause_image(settings)
    if image in run([*ctr, "ls", "-q"]):
        return
    archive = settings.shared / "pause.tar"
    archive.write_bytes(render_image(image, (binary / "pause").read_bytes()))
    run([*ctr, "import", archive])
    archive.unlink()


def render_image(name: str, program: bytes) -> bytes:
    """An image with the one file `/pause`, in the format of `docker save`."""
    layer = _tar({"pause": program})
    digest = _sha256(layer)
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    return _tar(
        {"layer.tar": layer, "config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    )


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def api_server_answers(settings: Settings, binary: Path) -> bool:
    """True if the API server reports that it is ready."""
    try:
        return kubectl(settings, "get", "--raw", "/readyz", "--request-timeout=3s", binary=binary) == "ok"
    except StandError:
        return False


def node_ready(settings: Settings, binary: Path) -> bool:
    """True if the node reports that it is ready."""
    path = '{.status.conditions[?(@.type=="Ready")].status}'
    try:
        return kubectl(settings, "get", "node", at.NODE_NAME, "-o", f"jsonpath={path}", binary=binary) == "True"
    except StandError:
        return False


def wait_ready(settings: Settings, binary: Path) -> None:
    """Wait until the node is ready. Binds the API server's certificate to cluster-admin, which `kubectl logs` needs."""
    wait_until(lambda: api_server_answers(settings, binary), seconds=READY_S, what="Kubernetes API server: not ready")
    kubectl(settings, "apply", "-f", "-", binary=binary, stdin=ADMIN_BINDING)
    wait_until(lambda: node_ready(settings, binary), seconds=READY_S, what=f"node {at.NODE_NAME}: not ready")


ADMIN_BINDING = """apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "kubeadm:cluster-admins"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "kubeadm:cluster-admins"}]
"""


def render_namespace(name: str, checkout: Path) -> dict[str, Any]:
    """A checkout's namespace. It admits only pods that meet the restricted standard."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": {
                "pod-security.kubernetes.io/enforce": "restricted",
                "app.kubernetes.io/managed-by": "slipway-stand",
            },
            "annotations": {"slipway.stand/checkout": str(checkout)},
        },
    }
