"""The smoke test: runs the image on the worker's engine as the cluster will, and checks its answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from slipway.errors import SmokeTestFailed, SmokeTestUnfinished, one_line
from slipway.facts import Export, Image, Proof
from slipway.image.docker_errors import smoke_test_unfinished
from slipway.image.engine import engine_host, throwaway_container
from slipway.names import REST_PORT
from slipway.records.store import read_bytes, read_json
from slipway.release import Release
from slipway.serving.client import grpc_client, send_request
from slipway.serving.golden import (
    GARBAGE_BODY,
    GoldenCase,
    cases_from,
    judge_answer,
    judge_garbage,
    judge_prediction,
    judge_status,
    judge_version,
)
from slipway.verdict import Verdict

SMOKE_TIMEOUT_S = 300  # enough to start TensorFlow and load a large model on a busy worker
SMOKE_POLL_S = 0.5
SMOKE_FLAGS = ["--max_num_load_retries=0", "--tensorflow_inter_op_parallelism=1", "--tensorflow_intra_op_parallelism=2"]
GRPC_PORT = 8500
LAST_LOG_LINES = 15

log = logging.getLogger(__name__)


def smoke_test(client: Any, release: Release, export: Export, image: Image) -> Proof:
    """Run the image on the engine as the cluster will, and check its answers over REST and gRPC.

    Raises SmokeTestFailed, and logs the server's last lines. No container is left behind.
    """
    from docker.errors import DockerException

    try:
        with throwaway_container(client, release.smoke_container, **_smoke_config(client, release, image)) as container:
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


def _smoke_config(client: Any, release: Release, image: Image) -> dict[str, Any]:
    """A container with the Deployment's security context, its ports published by the engine."""
    address = "127.0.0.1" if engine_host(release) == "127.0.0.1" else "0.0.0.0"  # noqa: S104 - the worker must reach a remote engine's ports
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
        ),
    }


def _run_checks(client: Any, container: str, release: Release, export: Export) -> tuple[Verdict, ...]:
    """The verdicts of all checks. Raises SmokeTestFailed for the first that did not pass."""
    ports = client.inspect_container(container)["NetworkSettings"]["Ports"]
    host = engine_host(release)
    rest, grpc_port = (ports[f"{port}/tcp"][0]["HostPort"] for port in (REST_PORT, GRPC_PORT))
    base_url, path = f"http://{host}:{rest}", release.version_path(export.version)
    available = _await_available(client, container, export.version, lambda: send_request(base_url, path))
    cases = cases_from(read_json(export.golden_uri))
    answers = [judge_answer(case, send_request(base_url, f"{path}:predict", case.rest_body)) for case in cases]
    garbage = judge_garbage(send_request(base_url, f"{path}:predict", GARBAGE_BODY), marks=release.marks_garbage)
    grpc_verdicts = _check_grpc(f"{host}:{grpc_port}", cases, export)
    return _all_passed([available, *answers, garbage, *grpc_verdicts])


def _check_grpc(address: str, cases: Iterable[GoldenCase], export: Export) -> list[Verdict]:
    import grpc

    verdicts: list[Verdict] = []
    with grpc_client(address, read_bytes(export.descriptors_uri)) as client:
        for case in cases:
            try:
                answer = client.predict(case, export.version)
            except grpc.RpcError as error:
                return [*verdicts, Verdict.failed(f"golden case {case.name!r} over gRPC: {one_line(error)}")]
            verdicts += [
                judge_prediction(case, answer.label, answer.confidence),
                judge_version(export.version, answer.version),
            ]
    return verdicts


def _await_available(client: Any, container: str, version: int, ask_status: Callable[[], Any]) -> Verdict:
    """Poll until the version is AVAILABLE, its load failed, or the container ended. Raises SmokeTestUnfinished when time is up."""
    deadline = time.monotonic() + SMOKE_TIMEOUT_S
    while True:
        verdict = judge_status(version, ask_status())
        state = client.inspect_container(container)["State"]
        if verdict.outcome == "wait" and not state["Running"]:
            verdict = Verdict.failed(
                f"the server ended with status {state['ExitCode']} before version {version} was AVAILABLE"
            )
        if verdict.outcome == "wait" and time.monotonic() > deadline:
            raise SmokeTestUnfinished(f"{verdict.reason} after {SMOKE_TIMEOUT_S} s")
        if verdict.outcome != "wait":
            return verdict
        time.sleep(SMOKE_POLL_S)


def _all_passed(verdicts: list[Verdict]) -> tuple[Verdict, ...]:
    for verdict in verdicts:
        log.info("smoke test: %s", verdict)
    for verdict in verdicts:
        if verdict.outcome != "pass":
            raise (SmokeTestFailed if verdict.outcome == "fail" else SmokeTestUnfinished)(verdict.reason)
    return tuple(verdicts)
