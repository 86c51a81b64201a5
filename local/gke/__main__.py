"""The emulator as a program: python -m local.gke --folder … --universe … --kubeconfig … (see `local/parts/google.py`)."""

import argparse
import base64
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from local.gke.clusters import Faults, Google, Kubernetes
from local.gke.control import control, serve_http, serve_when_free, webhook
from local.gke.emulator import serve
from local.gke.identity import make_identity
from local.gke.registry import TokenServer, serve_tokens
from local.gke.tokens import issuer_of, register, registered


def main(words: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT."""
    arguments = _arguments(words)
    kubernetes = read_kubernetes(arguments.kubeconfig)
    identity = make_identity(arguments.folder, arguments.universe, kubernetes.ca)
    issuer = issuer_of(identity, arguments.group)

    def faults_changed(faults: Faults) -> None:
        now = replace(issuer, refuse=faults.refuse_tokens, expired_before=faults.expired_before)
        register(arguments.issuers, arguments.name, now)

    google = Google(kubernetes, time.time)
    faults_changed(google.faults)
    key, certificate = identity.server()
    server = TokenServer(
        service=f"registry.{arguments.universe}",
        key=key.decode(),
        certificate=certificate,
        issuers=lambda: registered(arguments.issuers, arguments.name),
        writers=lambda account: account != issuer.email,
    )
    with serve(google, issuer, identity):
        serve_tokens(server, arguments.token_port)
        serve_http(control(google, faults_changed), arguments.control_port)
        serve_when_free(webhook(arguments.issuers), arguments.webhook_port)
        sys.stdout.write(f"an emulator of Google: container.{arguments.universe}\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        (arguments.issuers / f"{arguments.name}.json").unlink(missing_ok=True)
    return 0


def read_kubernetes(kubeconfig: Path) -> Kubernetes:
    """The API server of the first cluster in a kubeconfig."""
    cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
    ca = cluster.get("certificate-authority-data")
    if ca is None:
        ca = base64.b64encode(Path(cluster["certificate-authority"]).read_bytes()).decode()
    return Kubernetes(endpoint=cluster["server"].removeprefix("https://"), ca=ca)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.gke", description=__doc__)
    for name, kind in {
        "folder": Path,
        "universe": str,
        "kubeconfig": Path,
        "issuers": Path,
        "name": str,
        "group": str,
    }.items():
        parser.add_argument(f"--{name}", type=kind, required=True)
    for name in ("control-port", "webhook-port", "token-port"):
        parser.add_argument(f"--{name}", type=int, required=True)
    return parser.parse_args(words)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    sys.exit(main(sys.argv[1:]))
