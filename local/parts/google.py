"""The emulator as a part of the stand: where it is, how it is started, and what Airflow is told of it."""

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

DOMAIN = "slipway.localhost"  # gRPC knows that names below localhost are this machine
HOSTS = tuple(  # those that are asked over REST, by clients that ask glibc: the same names for every checkout
    f"{api}.{DOMAIN}"
    for api in ("artifactregistry", "cloudresourcemanager", "compute", "iamcredentials", "serviceusage")
)
ANSWERS_S = 30
NAME = "gke"
DOOR = "gke-registry"


def folder(settings: Settings) -> Path:
    """Keys and certificates of the emulator; it is there where an `up` of this checkout was told --gke."""
    return settings.home / "gke"


def asked(settings: Settings) -> bool:
    """True when an `up` of this checkout was told --gke."""
    return folder(settings).exists()


def emulated(settings: Settings) -> bool:
    """True where --gke means the emulator: the environment names no real project."""
    return asked(settings) and settings.google is None


def universe(slot: Slot) -> str:
    """The universe domain, with its port: an unprivileged one, and each checkout's own."""
    return f"{DOMAIN}:{slot.gke_port}"


def group(settings: Settings) -> str:
    """Whom the cluster knows the emulator's service account by: it may do what an IAM role would let it, in one namespace."""
    return f"gke:{settings.namespace}"


def deployer(settings: Settings) -> str:
    """The account that the connection impersonates: it may push and apply, the key's own account neither."""
    return f"{settings.namespace}@{PROJECT}.iam.gserviceaccount.com"


def programs(settings: Settings, slot: Slot) -> list[Program]:
    """The emulator and the registry's door, supervised."""
    door = Program(name=DOOR, command=("docker-registry", "serve", str(folder(settings) / "registry.json")))
    return [_program(settings, slot), *([door] if has_door(settings) else [])]


def has_door(settings: Settings) -> bool:
    """Whether the registry is the stand's own, which alone can have another door."""
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
    """Start it, let its account into the checkout's namespace, and say where it is."""
    run(
        [*kubectl, "apply", "--server-side", "--field-manager=slipway-stand", "-f", "-"], stdin=render_binding(settings)
    )
    start(supervisor(settings), NAME)
    wait_until(
        lambda: answers(slot), seconds=ANSWERS_S, what=f"emulator of Google: no answer on {slot.gke_control_port}"
    )
    if has_door(settings):
        _open_door(settings, slot)
    return f"an emulator of Google, container.{universe(slot)}, control http://127.0.0.1:{slot.gke_control_port}"


def _open_door(settings: Settings, slot: Slot) -> None:
    """Start a second registry on the blobs of the stand's own, which wants a token; nodes go on pulling from the first.

    GKE's nodes have a login of their own for Artifact Registry. This one's are shown the way past the door.
    """
    (folder(settings) / "registry.json").write_text(json.dumps(render_door(settings, slot)))
    hosts = settings.shared / "registries" / door_host(slot)
    hosts.mkdir(parents=True, exist_ok=True)
    (hosts / "hosts.toml").write_text(cluster.render_hosts(f"127.0.0.1:{at.REGISTRY_PORT}"))
    start(supervisor(settings), DOOR)
    wait_until(
        lambda: shared.registry_answers(door_host(slot)),
        seconds=ANSWERS_S,
        what=f"registry {door_host(slot)}: no answer",
    )


def door_host(slot: Slot) -> str:
    """The registry that wants a token."""
    return f"127.0.0.1:{slot.gke_registry_port}"


def render_door(settings: Settings, slot: Slot) -> dict[str, Any]:
    """Its configuration: the stand's registry, and the token server of the emulator before it."""
    service = f"registry.{universe(slot)}"
    auth = render_auth(service=service, token_port=slot.gke_token_port, authority=folder(settings) / "ca.pem")
    return {**shared.render_registry(settings), "http": {"addr": door_host(slot), "secret": "one door"}, "auth": auth}


def render_auth(*, service: str, token_port: int, authority: Path) -> dict[str, Any]:
    """What Distribution's configuration says of its token server (`registry.py`), which is where Artifact Registry has its own."""
    realm = f"http://127.0.0.1:{token_port}/v2/token"
    return {"token": {"realm": realm, "service": service, "issuer": REGISTRY_TOKENS, "rootcertbundle": str(authority)}}


def behind_door(slot: Slot, image: str) -> str:
    """An image of the stand's registry by the name that it has behind the door, so that a push finds its layers there."""
    own = f"127.0.0.1:{at.REGISTRY_PORT}/"
    return f"{door_host(slot)}/{image.removeprefix(own)}" if image.startswith(own) else image


def lend_layers(settings: Settings, serving_image: str) -> None:
    """Let every model's repository have the serving image's layers, as a mount would: an engine knows none by the door's name.

    Without it a model's first push sends a gigabyte to where it is already.
    """
    blobs = settings.cache / "registry" / "docker" / "registry" / "v2" / "repositories"
    name = serving_image.partition("/")[2].rpartition(":")[0]
    for model in (settings.checkout / "include" / "served").glob("*.yaml"):
        lent = blobs / settings.namespace / model.stem / "_layers"
        if has_door(settings) and (blobs / name / "_layers").is_dir() and not lent.exists():
            shutil.copytree(blobs / name / "_layers", lent)


def render_binding(settings: Settings) -> str:
    """What the emulator's account may do in the cluster."""
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
    """True when the emulator serves."""
    connection = http.client.HTTPConnection("127.0.0.1", slot.gke_control_port, timeout=3)
    try:
        connection.request("GET", "/state")
        return connection.getresponse().status == 200  # noqa: PLR2004 - OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def render_environment(settings: Settings, slot: Slot, serving_image: str | None) -> dict[str, str]:
    """What makes the unmodified provider ask the emulator: the universe, its key, and whom to trust besides the machine's own."""
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
                "extra": {"key_path": str(where / "key.json"), "impersonation_chain": deployer(settings)},
            }
        ),
        "AIRFLOW_VAR_SLIPWAY_NAMESPACE": settings.namespace,
    }
    if has_door(settings):
        environment["AIRFLOW_VAR_SLIPWAY_REGISTRY"] = f"{door_host(slot)}/{settings.namespace}"
        environment["AIRFLOW_VAR_SLIPWAY_REGISTRY_CONN_ID"] = "google_cloud_default"
        if serving_image:
            environment["AIRFLOW_VAR_SLIPWAY_SERVING_IMAGE"] = behind_door(slot, serving_image)
    return environment


def facts(settings: Settings, slot: Slot) -> Mapping[str, Any] | None:
    """What `status` says of it; None where it was not asked for."""
    if not asked(settings):
        return None
    if settings.google:
        return {"project": settings.google.project, "registry": None, "emulator": False}
    control = f"http://127.0.0.1:{slot.gke_control_port}"
    door = f"{door_host(slot)}/{settings.namespace}" if has_door(settings) else None
    return {"universe": universe(slot), "control": control, "registry": door, "emulator": True}
