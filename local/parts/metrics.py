"""metrics-server, which tells the HorizontalPodAutoscaler what each pod uses. It runs if `up --metrics` asked for it.

Without it no autoscaler changes a number of pods: most tests count on one pod, and two cores are soon busy.
"""

import base64
import json
import socket
from pathlib import Path
from typing import Any

from local import settings as at
from local.builds.binary import program_path
from local.parts import cluster
from local.programs.shell import run, wait_until
from local.programs.supervision import Program, Supervisor, start, stop
from local.settings import Settings

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
API_SERVICE = f"{VERSION}.{GROUP}"
NAME, NAMESPACE, _ = cluster.METRICS_SERVER_HOST.split(".")  # those of its Service
RESOLUTION_S = 15  # metrics-server's own default; the autoscaler asks as often
ANSWERS_S = 60


def program(settings: Settings) -> Program:
    """The supervised program, on loopback. It asks the kubelet as the cluster's administrator."""
    pki, admin = cluster.folder(settings) / "pki", settings.admin_kubeconfig
    return Program(name=NAME, command=(
        str(program_path(settings, NAME)), "--bind-address=127.0.0.1", f"--secure-port={at.METRICS_SERVER_PORT}",
        f"--kubeconfig={admin}", f"--authentication-kubeconfig={admin}", f"--authorization-kubeconfig={admin}",
        f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key",  # it names this Service too
        "--kubelet-use-node-status-port", "--kubelet-preferred-address-types=InternalIP",
        "--kubelet-insecure-tls",  # the kubelet made its certificate itself, and is this machine's
        f"--metric-resolution={RESOLUTION_S}s",
    ))  # fmt: skip


def render_api(authority: bytes) -> list[dict[str, Any]]:
    """The Service and the APIService by which the API server reaches the program.

    Kubernetes refuses loopback addresses in Endpoints. It accepts one as an external name.
    """
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {"type": "ExternalName", "externalName": "127.0.0.1"},
    }
    api = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": API_SERVICE},
        "spec": {
            "group": GROUP,
            "version": VERSION,
            "service": {"name": NAME, "namespace": NAMESPACE, "port": at.METRICS_SERVER_PORT},
            "caBundle": base64.b64encode(authority).decode(),
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    }
    return [service, api]


def requested(settings: Settings) -> bool:
    """True if an `up --metrics` asked for it since the shared parts started."""
    return _mark(settings).exists()


def request(settings: Settings) -> None:
    """Have it started with the shared parts from now on."""
    settings.shared.mkdir(parents=True, exist_ok=True)
    _mark(settings).touch()


def _mark(settings: Settings) -> Path:
    return settings.shared / "metrics"


def start_metrics(settings: Settings, supervisor: Supervisor, kubectl: list[str | Path]) -> None:
    """Start it and register its API. The first metrics are there after two rounds of RESOLUTION_S."""
    start(supervisor, NAME)
    wait_until(_answers, seconds=ANSWERS_S, what=f"{NAME}: no answer on 127.0.0.1:{at.METRICS_SERVER_PORT}")
    authority = (cluster.folder(settings) / "pki" / "ca.crt").read_bytes()
    objects = {"apiVersion": "v1", "kind": "List", "items": render_api(authority)}
    run(
        [*kubectl, "apply", "--server-side", "--field-manager=slipway-stand", "-f", "-"],
        stdin=json.dumps(objects),
        timeout_s=60,
    )
    run([*kubectl, "wait", "--for=condition=Available", f"apiservice/{API_SERVICE}", f"--timeout={ANSWERS_S}s"])


def stop_metrics(settings: Settings, supervisor: Supervisor, kubectl: list[str | Path]) -> None:
    """Stop it and unregister its API first: a registered API that does not answer stops the deletion of namespaces."""
    _mark(settings).unlink(missing_ok=True)
    run([*kubectl, "delete", f"apiservice/{API_SERVICE}", "--ignore-not-found"], timeout_s=60)
    stop(supervisor, NAME)


def _answers() -> bool:
    try:
        socket.create_connection(("127.0.0.1", at.METRICS_SERVER_PORT), timeout=1).close()
    except OSError:
        return False
    return True
