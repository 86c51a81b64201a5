"""The emulator of Google as a part of the stand: its addresses, its start, and the environment that makes Airflow use it."""

import http.client
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local import settings as at
from local.builds.environments import environment_path
from local.gke.names import PROJECT, REGISTRY_TOKENS
from local.parts import cluster, shared
from local.parts.checkout import Slot, supervisor
from local.programs.shell import run, wait_until
from local.programs.supervision import Program, start
from local.settings import Settings

DOMAIN = "slipway.localhost"  # gRPC resolves names below localhost to this machine
HOSTS = tuple(  # the hosts of REST APIs, whose clients resolve names with glibc; the same for every checkout
    f"{api}.{DOMAIN}"
    for api in ("artifactregistry", "cloudresourcemanager", "compute", "iamcredentials", "serviceusage")
)
ANSWERS_S = 30
NAME = "gke"
TOKEN_REGISTRY = "gke-registry"  # noqa: S105 - a program's name


def folder(settings: Settings) -> Path:
    """The folder of the emulator's keys and certificates. It exists once `up --gke` ran in this checkout."""
    return settings.home / "gke"


def requested(settings: Settings) -> bool:
    """True if `up --gke` ran in this checkout."""
    return folder(settings).exists()


def emulated(settings: Settings) -> bool:
    """True if `up --gke` ran and the environment names no real project."""
    return requested(settings) and settings.google is None


def universe(slot: Slot) -> str:
    """The universe domain with its port, which is unprivileged and differs for each checkout."""
    return f"{DOMAIN}:{slot.gke_port}"


def group(settings: Settings) -> str:
    """The Kubernetes group of the impersonated account. Its rights in one namespace are those that an IAM role would give."""
    return f"gke:{settings.namespace}"


def deployer(settings: Settings) -> str:
    """The account that the connection impersonates. It may push and apply; the key's own account may not."""
    return f"{settings.namespace}@{PROJECT}.iam.gserviceaccount.com"


def programs(settings: Settings, slot: Slot) -> list[Program]:
    """The supervised programs: the emulator and the registry that requires a token."""
    registry = Program(
        name=TOKEN_REGISTRY, command=("docker-registry", "serve", str(folder(settings) / "registry.json"))
    )
    return [_program(settings, slot), *([registry] if has_token_registry(settings) else [])]


def has_token_registry(settings: Settings) -> bool:
    """True if the registry is the stand's own: only then a second one can serve its blobs."""
    return settings.registry is None


def _program(settings: Settings, slot: Slot) -> Program:
    python = environment_path(settings, "dev") / "bin" / "python"
    words = {
        "folder": folder(settings),
        "universe": universe(slot),
        "kubeconfig": settings.home_kubeconfig,
        "issuers": settings.run / "issuers",
        "name": settings.checkout_id,
        "group": group(settings),
        "control-port": slot.gke_control_port,
        "webhook-port": at.TOKEN_WEBHOOK_PORT,
        "token-port": slot.gke_token_port,
    }
    return Program(
        name=NAME, command=(str(python), "-m", "local.gke", *[f"--{name}={value}" for name, value in words.items()])
    )


def start_emulator(settings: Settings, slot: Slot, kubectl: list[str | Path]) -> str:
    """Start the emulator and give its account the rights in the checkout's namespace. Returns its addresses as text."""
    run(
        [*kubectl, "apply", "--server-side", "--field-manager=slipway-stand", "-f", "-"], stdin=render_binding(settings)
    )
    start(supervisor(settings), NAME)
    wait_until(
        lambda: answers(slot), seconds=ANSWERS_S, what=f"emulator of Google: no answer on {slot.gke_control_port}"
    )
    if has_token_registry(settings):
        _start_token_registry(settings, slot)
    return f"an emulator of Google, container.{universe(slot)}, control http://127.0.0.1:{slot.gke_control_port}"


def _start_token_registry(settings: Settings, slot: Slot) -> None:
    """Start a second registry that serves the blobs of the stand's own and requires a token.

    GKE's nodes have their own login for Artifact Registry. Here containerd pulls from the first registry instead.
    """
    (folder(settings) / "registry.json").write_text(json.dumps(render_token_registry(settings, slot)))
    hosts = settings.shared / "registries" / token_registry(slot)
    hosts.mkdir(parents=True, exist_ok=True)
    (hosts / "hosts.toml").write_text(cluster.render_hosts(f"127.0.0.1:{at.REGISTRY_PORT}"))
    start(supervisor(settings), TOKEN_REGISTRY)
    wait_until(
        lambda: shared.registry_answers(token_registry(slot)),
        seconds=ANSWERS_S,
        what=f"registry {token_registry(slot)}: no answer",
    )


def token_registry(slot: Slot) -> str:
    """The host and port of the registry that requires a token."""
    return f"127.0.0.1:{slot.gke_registry_port}"


def render_token_registry(settings: Settings, slot: Slot) -> dict[str, Any]:
    """Its configuration: that of the stand's registry, with the emulator's token server."""
    service = f"registry.{universe(slot)}"
    auth = render_auth(service=service, token_port=slot.gke_token_port, authority=folder(settings) / "ca.pem")
    http = {"addr": token_registry(slot), "secret": "one registry with tokens"}
    return {**shared.render_registry(settings), "http": http, "auth": auth}


def render_auth(*, service: str, token_port: int, authority: Path) -> dict[str, Any]:
    """The part of Distribution's configuration that names its token server (`local/gke/registry.py`)."""
    realm = f"http://127.0.0.1:{token_port}/v2/token"
    return {"token": {"realm": realm, "service": service, "issuer": REGISTRY_TOKENS, "rootcertbundle": str(authority)}}


def in_token_registry(slot: Slot, image: str) -> str:
    """The name that an image of the stand's registry has in the registry with tokens, so that a push finds its layers there."""
    own = f"127.0.0.1:{at.REGISTRY_PORT}/"
    return f"{token_registry(slot)}/{image.removeprefix(own)}" if image.startswith(own) else image


def share_layers(settings: Settings, serving_image: str) -> None:
    """Link a serving image's layers into the repository of every model, as a cross-repository mount does.

    The engine has not pushed these layers to the registry with tokens yet, so it cannot ask for a mount. Without the
    links a model's first push sends a gigabyte that the registry already has.
    """
    blobs = settings.cache / "registry" / "docker" / "registry" / "v2" / "repositories"
    name = serving_image.partition("/")[2].rpartition(":")[0]
    layers = list((blobs / name / "_layers" / "sha256").glob("*")) if has_token_registry(settings) else []
    for model in (settings.checkout / "include" / "served").glob("*.yaml"):
        links = blobs / settings.namespace / model.stem / "_layers" / "sha256"
        for layer in layers:
            if not (links / layer.name).exists():
                shutil.copytree(layer, links / layer.name)


def render_binding(settings: Settings) -> str:
    """The RoleBinding of the emulator's account in the checkout's namespace."""
    api = "rbac.authorization.k8s.io"
    return json.dumps(
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "gke", "namespace": settings.namespace},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": api, "kind": "Group", "name": group(settings)}],
        }
    )


def answers(slot: Slot) -> bool:
    """True if the emulator responds."""
    connection = http.client.HTTPConnection("127.0.0.1", slot.gke_control_port, timeout=3)
    try:
        connection.request("GET", "/state")
        return connection.getresponse().status == 200  # noqa: PLR2004 - OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def render_environment(
    settings: Settings, slot: Slot, serving_image: str | None, onnx_serving_image: str
) -> dict[str, str]:
    """The variables that make the unmodified provider use the emulator: universe, key, and certificate authorities."""
    where = folder(settings)
    bundle = str(where / "bundle.pem")
    environment = {
        "GOOGLE_CLOUD_UNIVERSE_DOMAIN": universe(slot),
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": bundle,
        "SSL_CERT_FILE": bundle,
        "REQUESTS_CA_BUNDLE": bundle,
        "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": json.dumps(
            {
                "conn_type": "google_cloud_platform",
                "extra": {
                    "key_path": str(where / "key.json"),
                    "impersonation_chain": deployer(settings),
                    "login_hosts": f"{token_registry(slot)},127.0.0.1:{slot.gke_token_port}",
                },
            }
        ),
        "AIRFLOW_VAR_SLIPWAY_NAMESPACE": settings.namespace,
    }
    if has_token_registry(settings):
        environment["AIRFLOW_VAR_SLIPWAY_REGISTRY"] = f"{token_registry(slot)}/{settings.namespace}"
        environment["AIRFLOW_VAR_SLIPWAY_REGISTRY_CONN_ID"] = "google_cloud_default"
        environment["AIRFLOW_VAR_SLIPWAY_ONNX_SERVING_IMAGE"] = in_token_registry(slot, onnx_serving_image)
        if serving_image:
            environment["AIRFLOW_VAR_SLIPWAY_SERVING_IMAGE"] = in_token_registry(slot, serving_image)
    return environment


def facts(settings: Settings, slot: Slot) -> Mapping[str, Any] | None:
    """What `status` reports about Google, or None if `up --gke` did not run."""
    if not requested(settings):
        return None
    if settings.google:
        return {"project": settings.google.project, "registry": None, "emulator": False}
    control = f"http://127.0.0.1:{slot.gke_control_port}"
    registry = f"{token_registry(slot)}/{settings.namespace}" if has_token_registry(settings) else None
    return {"universe": universe(slot), "control": control, "registry": registry, "emulator": True}
