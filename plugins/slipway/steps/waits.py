"""What a wait that failed says, and what a gate has to judge. No Airflow here."""

from __future__ import annotations

import logging
from dataclasses import replace
from shlex import quote

from slipway.errors import InputRefused, one_line
from slipway.facts import JsonObject, Previewed
from slipway.names import LABEL_MODEL, LABEL_RELEASE, dag_id
from slipway.records.history import read_history
from slipway.records.record import Record
from slipway.records.store import Store
from slipway.release import Release

NO_GRPC_TO_PREVIEW = "requests to a preview go through the API server, which proxies only REST"

log = logging.getLogger(__name__)


def preview_pods(release: Release, previewed: Previewed) -> dict[str, str]:
    """The labels of a preview's pods."""
    return {LABEL_MODEL: release.model, LABEL_RELEASE: previewed.release_id}


def check_newest(release: Release) -> None:
    """Refuse to prove what another run has replaced. Raises InputRefused, StoreError."""
    newest = find_newest(release)
    if newest is not None and newest["run_id"] != release.run_id:
        raise InputRefused(
            f"deployment/{release.deployment} in {release.target.namespace}: run {newest['run_id']} has replaced what this run "
            f"applied. Next: clear apply, or trigger {dag_id(release.model)}"
        )


def find_newest(release: Release) -> Record | None:
    """The record of what was applied last at the release's target; None if there is none. Raises StoreError."""
    return read_history(Store(release.store), release.model).at(release.target, release.deployment).newest


def explain_rollout(release: Release, release_id: str, reason: str) -> str:
    """The reason, what pods and events say, and the next command; the pods' last lines go to the log."""
    from slipway.kubernetes.client import cluster_client
    from slipway.kubernetes.diagnosis import diagnose_rollout, most_telling_line, next_pod_command

    try:
        with cluster_client(release.target) as client:
            found = diagnose_rollout(client, release, release_id)
    except Exception as error:  # a diagnosis that fails must not hide the verdict
        words = getattr(error, "reason", None) or str(error)  # an API server's reason, not its headers
        found = [f"no diagnosis: {one_line(words, full_stop=True)}"]
    for line in found:
        log.error("rollout: %s", line)
    detail = most_telling_line(found, reason)
    shown = f" ({detail})" if detail else ""
    return f"{reason}{shown}. Next: {next_pod_command(release, release_id, reason)}"


def explain_address(release: Release, reason: str) -> str:
    """The reason and the next command."""
    return f"{reason}. Next: {release.target.kubectl(f'describe service {release.service}')}"


def explain_gate(release: Release, url: str, version: int, reason: str) -> str:
    """Where the requests went, what was promised and answered, and the next command unless the reason names one.

    A URL that is a path means the API server's proxy.
    """
    asked = f"{url}{release.version_path(version)}"
    command = release.target.kubectl(f"get --raw {quote(asked)}") if asked.startswith("/") else f"curl {quote(asked)}"
    what, _, next_step = reason.partition(". Next: ")
    return f"{asked}: {what}. Next: {next_step or command}"


def fixed_address(release: Release) -> dict[str, str | None] | None:
    """The address that the model file fixes, as the wait for an address finds one; None if it fixes none."""
    if not release.address:
        return None
    return {"url": release.address.rstrip("/"), "grpc": release.grpc_address}


def why_no_grpc(release: Release) -> str:
    """Why the gate knows no address for gRPC, if it knows none."""
    if release.address:
        return "the model file gives target.address without target.grpc_address"
    return f"service/{release.service} has no port tf-serving-grpc"


def public_gate(
    release: Release, *, previewed: bool, preview_verdict: JsonObject | None = None, restored: bool = False
) -> Release:
    """The release with the limits that its public gate applies. `preview_verdict` is that of the preview's gate, if it counts.

    A restored release was judged in full when it was new, so only its golden cases and garbage are judged. The same is true of a
    release without a preview although the model file asks for one: it is known to be good. If the same image has classified the
    labelled set as a preview, it is not sent again. A gate that passed, or was inconclusive, had sent the whole set.
    """
    if restored:
        return replace(release, gate=release.gate.promises_only)
    if release.strategy == "rolling":
        return release
    if not previewed:
        return replace(release, gate=release.gate.promises_only)
    classified = (preview_verdict or {}).get("outcome") in {"pass", "inconclusive"}
    return replace(release, gate=replace(release.gate, quality=None)) if classified else release
