"""The emulator as a part of the stand: where it is, how it is started, and what Airflow is told of it."""

import http.client
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local import settings as at
from local.checkout import Slot, supervisor
from local.commands import run, wait_until
from local.environments import environment_path
from local.settings import Settings
from local.supervision import Program, start

DOMAIN = "slipway.localhost"  # gRPC knows that names below localhost are this machine
HOSTS = tuple(  # those that are asked over REST, by clients that ask glibc: the same names for every checkout
    f"{api}.{DOMAIN}" for api in ("cloudresourcemanager", "compute", "iamcredentials", "serviceusage")
)
ANSWERS_S = 30
NAME = "gke"


def folder(settings: Settings) -> Path:
    """Keys and certificates of the emulator; it is there where this checkout was asked for the emulator."""
    return settings.home / "gke"


def asked(settings: Settings) -> bool:
    """True when an `up` of this checkout was told --gke."""
    return folder(settings).exists()


def universe(slot: Slot) -> str:
    """The universe domain, with its port: an unprivileged one, and each checkout's own."""
    return f"{DOMAIN}:{slot.gke_port}"


def group(settings: Settings) -> str:
    """Whom the cluster knows the emulator's service account by: it may do what an IAM role would let it, in one namespace."""
    return f"gke:{settings.namespace}"


def program(settings: Settings, slot: Slot) -> Program:
    """The emulator, supervised."""
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
    return f"an emulator of Google, container.{universe(slot)}, control http://127.0.0.1:{slot.gke_control_port}"


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


def render_environment(settings: Settings, slot: Slot) -> dict[str, str]:
    """What makes the unmodified provider ask the emulator: the universe, its key, and whom to trust besides the machine's own."""
    where = folder(settings)
    bundle = str(where / "bundle.pem")
    return {
        "GOOGLE_CLOUD_UNIVERSE_DOMAIN": universe(slot),
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": bundle,
        "SSL_CERT_FILE": bundle,
        "REQUESTS_CA_BUNDLE": bundle,
        "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": json.dumps(
            {"conn_type": "google_cloud_platform", "extra": {"key_path": str(where / "key.json")}}
        ),
        "AIRFLOW_VAR_SLIPWAY_NAMESPACE": settings.namespace,
    }


def facts(settings: Settings, slot: Slot) -> Mapping[str, Any] | None:
    """What `status` says of it; None where it was not asked for."""
    if not asked(settings):
        return None
    return {"universe": universe(slot), "control": f"http://127.0.0.1:{slot.gke_control_port}", "emulator": True}
