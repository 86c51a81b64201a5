"""The addresses, folders and names of the stand: fixed ones for the shared parts, and those of one checkout."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local.google_project import GoogleProject, read_google_project

# Rarely used ports and ranges, so that the stand does not conflict with what a developer's machine already runs.
REGISTRY_PORT = 28500
ETCD_PORT = 28501
ETCD_PEER_PORT = 28502
API_SERVER_PORT = 28443
TOKEN_WEBHOOK_PORT = 28444  # the emulator of one checkout answers here for all checkouts
KUBELET_PORT = 28510
KUBELET_HEALTH_PORT = 28511
CONTROLLER_MANAGER_PORT = 28512
SCHEDULER_PORT = 28513
PROXY_HEALTH_PORT = 28514
PROXY_METRICS_PORT = 28515
METRICS_SERVER_PORT = 28516
AIRFLOW_PORT = 28080  # plus the checkout's slot
GKE_PORT = 28600  # plus the checkout's slot: the emulator of Google, gRPC and REST
GKE_CONTROL_PORT = 28700  # plus the checkout's slot
GKE_REGISTRY_PORT = 28800  # plus the checkout's slot: the registry that requires a token
GKE_TOKEN_PORT = 28900  # plus the checkout's slot: the token server of that registry
SLOTS = range(1, 100)

DOCKER_BRIDGE = "slipway0"
DOCKER_ADDRESS = "172.29.213.1/24"
DOCKER_POOL = "10.215.0.0/16"
POD_BRIDGE = "slipway1"
POD_GATEWAY = "10.213.0.1"
POD_RANGE = "10.213.0.0/24"
SERVICE_RANGE = "10.214.0.0/24"
NODE_NAME = "slipway"

KUBERNETES_VERSION = "v1.34.4"
MARK = "SLIPWAY_STAND"  # an environment variable of every process that the stand starts
SHARED_MARK = "shared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one checkout: its folders, its names, and the user's own parts."""

    checkout: Path
    cache: Path
    state: Path = Path("/var/lib/slipway")
    run: Path = Path("/run/slipway")
    docker_host: str | None = None
    kubeconfig: Path | None = None
    registry: str | None = None
    serving_image: str | None = None
    google: GoogleProject | None = None  # used in place of the emulator

    @property
    def checkout_id(self) -> str:
        """Eight hex digits of the hash of the checkout's path."""
        return hashlib.sha256(str(self.checkout).encode()).hexdigest()[:8]

    @property
    def namespace(self) -> str:
        """The checkout's namespace in the cluster and its repository prefix in the registry."""
        return f"slipway-{self.checkout_id}"

    @property
    def shared(self) -> Path:
        """The folder of the parts that all checkouts share."""
        return self.state / "shared"

    @property
    def home(self) -> Path:
        """The folder of this checkout: database, logs, artifact store, secrets."""
        return self.state / "checkouts" / self.checkout_id

    @property
    def home_run(self) -> Path:
        """The folder of this checkout's sockets and process ids."""
        return self.run / self.checkout_id

    @property
    def admin_kubeconfig(self) -> Path:
        """The kubeconfig with full rights on the stand's own cluster."""
        return self.shared / "kubernetes" / "super-admin.conf"

    @property
    def home_kubeconfig(self) -> Path:
        """The kubeconfig with full rights whose default namespace is that of this checkout."""
        return self.home / "kubeconfig"

    @property
    def airflow_kubeconfig(self) -> Path:
        """The kubeconfig of Airflow's account, which has few rights, in the stand's own cluster."""
        return self.home / "kubeconfig-airflow"

    @property
    def facts(self) -> Path:
        """The file that `up` writes and `status` reads."""
        return self.home / "stand.json"

    @property
    def containerd_socket(self) -> Path:
        """The socket of the stand's own containerd."""
        return self.run / "containerd.sock"

    @property
    def own_docker_host(self) -> str:
        """The address of the stand's own engine, which runs if the machine has none."""
        return f"unix://{self.run / 'docker.sock'}"


def read_settings(environment: Mapping[str, str], checkout: Path) -> Settings:
    """The settings that the environment gives. No other code of the stand reads its settings from the environment."""
    home = Path(environment.get("HOME") or "/root")
    cache_home = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    kubeconfig = environment.get("SLIPWAY_KUBECONFIG")
    return Settings(
        checkout=checkout,
        cache=Path(environment.get("SLIPWAY_CACHE") or cache_home / "slipway").resolve(),
        docker_host=environment.get("SLIPWAY_DOCKER_HOST") or None,
        kubeconfig=Path(kubeconfig).resolve() if kubeconfig else None,
        registry=environment.get("SLIPWAY_REGISTRY") or None,
        serving_image=environment.get("SLIPWAY_SERVING_IMAGE") or None,
        google=read_google_project(environment),
    )


def settings_here() -> Settings:
    """The settings of the checkout that contains this package."""
    return read_settings(os.environ, Path(__file__).resolve().parent.parent)
