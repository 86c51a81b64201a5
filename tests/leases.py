"""A Lease's holders and place in tests, and kubectl for the stand's API server."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from slipway.kubernetes.lease import Holder, Lease, Place
from slipway.target import Target

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
ME = Holder(installation="aaaaaaaaaaaa", dag_id="refresh_digits_vit", run_id="manual__2026-11-24T08:00:00+00:00")
MATE = replace(ME, dag_id="rollback_digits_vit")  # another run of the same installation
OTHER = replace(ME, installation="bbbbbbbbbbbb")
PLACE = Place(
    target=Target(conn_id="kubernetes_default", namespace="shop"), deployment="tfs-server", model="digits-vit"
)


def lease(holder, *, ago_s=10, duration_s=60, **changes):
    """A Lease that was renewed some seconds ago."""
    found = Lease(
        holder=holder if isinstance(holder, str) else holder.identity, acquired="2026-11-24T07:00:00.000000Z",
        renewed=NOW - timedelta(seconds=ago_s), duration_s=duration_s, transitions=3, broke=None, uid="u", version="7",
    )  # fmt: skip
    return replace(found, **changes)


def kubectl(stand, *words, stdin=None):
    """Runs kubectl in the stand's namespace."""
    command = [
        str(Path(sys.executable).parent / "kubectl"),
        "--kubeconfig",
        stand["kubeconfig"],
        "-n",
        stand["namespace"],
        *words,
    ]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True, timeout=600).stdout


def holder_of(stand, place):
    """The Lease's holder, from kubectl."""
    return kubectl(stand, "get", "lease", place.name, "-o", "jsonpath={.spec.holderIdentity}")


@contextmanager
def place_on(stand, monkeypatch):
    """The place of a Lease that only the test uses, in the stand's namespace; deleted afterwards."""
    connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": stand["airflow"]["kubeconfig"]}}
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps(connection))
    target = Target(conn_id="kubernetes_default", namespace=stand["namespace"])
    place = replace(PLACE, target=target, deployment=f"lease-{os.getpid()}")
    yield place
    kubectl(stand, "delete", "lease", place.name, "--ignore-not-found")
