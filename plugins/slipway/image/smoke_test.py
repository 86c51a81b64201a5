"""The smoke test: runs the image on the worker's engine as the cluster will, and checks its answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from slipway.errors import SmokeTestFailed, SmokeTestUnfinished
from slipway.facts import Export, Image, JsonObject, Proof
from slipway.image.docker_errors import smoke_test_unfinished
from slipway.image.engine import closed_network, engine_host, publish_address, remove_container, throwaway_container
from slipway.names import REST_PORT
from slipway.records.store import read_bytes, read_json
from slipway.release import Release
from slipway.serving.client import send_grpc_request, send_request
from slipway.serving.golden import (
    GARBAGE_BODY,
    GoldenCase,
    cases_from,
    judge_answer,
    judge_garbage,
    judge_grpc_answer,
    judge_round,
    judge_status,
)
from slipway.verdict import Verdict

SMOKE_TIMEOUT_S = 300  # enough to start TensorFlow and load a large model on a busy worker
SMOKE_POLL_S = 0.5
SMOKE_FLAGS = ["--max_num_load_retries=0", "--tensorflow_inter_op_parallelism=1", "--tensorflow_intra_op_parallelism=2"]
GRPC_PORT = 8500
FROM_OUTSIDE = frozenset({137, 143})  # SIGKILL and SIGTERM, which only the machine, the engine or a person sends
LAST_LOG_LINES = 15
NOWHERE = "192.0.2.1"  # an address that belongs to nobody (RFC 5737)
MIB = 1024 * 1024

log = logging.getLogger(__name__)


def smoke_test(client: Any, release: Release, export: Export, image: Image) -> Proof:
    """Run the image on the engine as the cluster will, and check its answers over REST and gRPC.

    Raises SmokeTestFailed, and logs the server's last lines. No container is left behind.
    """
    from docker.errors import DockerException

    try:
        remove_container(client, release.smoke_container)  # a killed task may have left it on the network
        with (
            closed_network(client, release.smoke_container) as network,
            throwaway_container(
                client, release.smoke_container, **_smoke_config(client, release, image, network)
            ) as container,
        ):
            client.start(container)
            try:
                verdicts = _run_checks(client, container, release, export)
            except SmokeTestFailed as error:
                lines = client.logs(container, tail=LAST_LOG_LINES).decode(errors="replace").strip()
                log.error("smoke test: the server's last lines:\n%s", lines)  # noqa: TRY400 - the server's lines, not ours
                last = lines.splitlines()[-1] if lines else "none"
                raise type(error)(f"image {image.reference}: {error}. The server's last line: {last}") from error
    except DockerException as error:
        raise smoke_test_unfinished(image.reference, error) from error
    return Proof(image=image, verdicts=verdicts)


def _smoke_config(client: Any, release: Release, image: Image, network: str) -> dict[str, Any]:
    """A container with the Deployment's security context and the export's limits, its ports published by the engine."""
    memory = release.limits.memory_mib * MIB
    address = publish_address(release)
    return {
        "image": image.image_id,
        "command": SMOKE_FLAGS,
        "user": "1000:1000",
        "ports": [GRPC_PORT, REST_PORT],
        "host_config": client.create_host_config(
            port_bindings={GRPC_PORT: (address,), REST_PORT: (address,)},
            read_only=True,
            tmpfs={"/tmp": ""},  # noqa: S108 - inside the container
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            network_mode=network,
            dns=[NOWHERE],  # the engine's own resolver would ask for the container, from the host
            mem_limit=memory,
            memswap_limit=memory,
            pids_limit=release.limits.processes,
        ),
    }


def _run_checks(client: Any, container: str, release: Release, export: Export) -> tuple[Verdict, ...]:
    """The verdicts of all checks. Raises SmokeTestFailed for the first that did not pass."""
    host = engine_host(release)
    rest, grpc_port = server_ports(client.inspect_container(container), version=export.version)
    base_url, path = f"http://{host}:{rest}", release.version_path(export.version)
    available = _await_available(client, container, export.version, lambda: send_request(base_url, path))
    cases = cases_from(read_json(export.golden_uri))
    answers = [judge_answer(case, send_request(base_url, f"{path}:predict", case.rest_body)) for case in cases]
    garbage = judge_garbage(send_request(base_url, f"{path}:predict", GARBAGE_BODY), marks=release.marks_garbage)
    descriptors = read_bytes(export.descriptors_uri)
    over_grpc = ask_over_grpc(f"{host}:{grpc_port}", cases, descriptors, version=export.version)
    verdicts = (available, *answers, garbage, *over_grpc)
    if any(verdict.outcome == "wait" for verdict in verdicts):
        check_running(client.inspect_container(container))  # a request may have ended the server
    return check_verdicts(verdicts)


def server_ports(found: JsonObject, *, version: int) -> tuple[str, str]:
    """The engine's ports for REST and for gRPC, from what the engine says of a container.

    Raises SmokeTestFailed or SmokeTestUnfinished if the server has ended: its container has no ports.
    """
    check_running(found, when=f" before version {version} was AVAILABLE")
    ports = found["NetworkSettings"]["Ports"] or {}
    rest, over_grpc = (ports.get(f"{port}/tcp") for port in (REST_PORT, GRPC_PORT))
    if not rest or not over_grpc:
        raise SmokeTestUnfinished("the engine published no ports of the container")
    return str(rest[0]["HostPort"]), str(over_grpc[0]["HostPort"])


def check_running(found: JsonObject, *, when: str = "") -> None:
    """Raise SmokeTestFailed if the server exited by itself, SmokeTestUnfinished if it was killed from outside."""
    state = found["State"]
    if state["Running"]:
        return
    if state["ExitCode"] in FROM_OUTSIDE:
        raise SmokeTestUnfinished(f"the server was ended from outside, with status {state['ExitCode']}{when}")
    raise SmokeTestFailed(f"the server ended with status {state['ExitCode']}{when}")


def ask_over_grpc(address: str, cases: Iterable[GoldenCase], descriptors: bytes, *, version: int) -> list[Verdict]:
    """The verdicts on the answers to all golden cases over gRPC; as over REST, no answer means wait."""
    return [judge_grpc_answer(case, version, send_grpc_request(address, descriptors, case, version)) for case in cases]


def _await_available(client: Any, container: str, version: int, ask_status: Callable[[], Any]) -> Verdict:
    """Poll until the version is AVAILABLE or its load failed. Raises SmokeTestFailed, SmokeTestUnfinished."""
    deadline = time.monotonic() + SMOKE_TIMEOUT_S
    while True:
        verdict = judge_status(version, ask_status())
        if verdict.outcome != "wait":
            return verdict
        check_running(client.inspect_container(container), when=f" before version {version} was AVAILABLE")
        if time.monotonic() > deadline:
            raise SmokeTestUnfinished(f"{verdict.reason} after {SMOKE_TIMEOUT_S} s")
        time.sleep(SMOKE_POLL_S)


def check_verdicts(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """The verdicts, if all passed. Raises SmokeTestFailed for the first that failed, else SmokeTestUnfinished."""
    for verdict in verdicts:
        log.info("smoke test: %s", verdict)
    together = judge_round(verdicts)
    if together.outcome != "pass":
        raise (SmokeTestFailed if together.outcome == "fail" else SmokeTestUnfinished)(together.reason)
    return tuple(verdicts)
