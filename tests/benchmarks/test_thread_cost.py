"""What the table of the threads' cost says, and the limit under which they are measured."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from benchmarks.thread_cost import (
    BATCHED,
    ONE,
    SEED,
    Turn,
    contained,
    entering,
    flags_of,
    limited,
    render,
    turn_of,
    used_s,
)

TURN = Turn(p95_ms=20.0, most_per_s=100.0, per_cpu_s=200.0)
BUSY_S = 2.0
RATE, CLOSED = ({"errors": {}, "p95_ms": 20.0, "reached_per_s": rate} for rate in (40.0, 100.0))


def test_a_row_for_each_number_of_threads():
    """With the median, the least and the most of the turns."""
    slower = replace(TURN, p95_ms=30.4, most_per_s=90.0, per_cpu_s=150.0)
    measured = {ONE: [TURN] * 3, SEED: [slower, TURN, slower]}
    _, _, one, seed, _, said = render(measured, "A server ran as a process", "a machine").splitlines()
    assert one == "| 1 and 1 | 200 (200 to 200) | 100 (100 to 100) | 20 (20 to 20) |"
    assert seed == "| 2 and 8, the seed's | 150 (150 to 200) | 90 (90 to 100) | 30 (20 to 30) |"
    assert said.startswith(
        "Medians of 3 turns (least to most). A server ran as a process that gets 0.8 CPUs, on a machine"
    )


def test_only_the_batched_variant_has_batches():
    """With the parameters that the overlay ships, and the threads of the first variant."""
    one, batched = (flags_of(variant, Path("/models/batching.txt")) for variant in (ONE, BATCHED))
    assert batched == [*one, "--enable_batching", "--batching_parameters_file=/models/batching.txt"]


def test_a_turn_with_an_error_is_none():
    """Refusals are fast, and cost nothing."""
    assert turn_of({"steps": [RATE, CLOSED]}, 200.0) == TURN
    with pytest.raises(RuntimeError, match=r"errors under load: .*HTTP 503"):
        turn_of({"steps": [RATE, {**CLOSED, "errors": {"HTTP 503": 2}}]}, 200.0)


@pytest.mark.stand
@pytest.mark.alongside
@pytest.mark.model
@pytest.mark.slow
def test_an_image_is_measured_in_a_container(stand, digits_export, monkeypatch):
    """With the limit, and its own processor time; the container is removed."""
    monkeypatch.setenv("DOCKER_HOST", stand["docker_host"])
    with contained(stand["serving_image"], digits_export, BATCHED) as (server, used):
        containers = docker.from_env().containers.list(filters={"ancestor": stand["serving_image"]})
        [mine] = [one for one in containers if server.rest in ports_of(one)]
        assert mine.attrs["HostConfig"]["NanoCpus"] == 800_000_000
        assert 0 < used() < 600
    with pytest.raises(docker.errors.NotFound):
        mine.reload()


def ports_of(container):
    """The host's ports of a container."""
    return {int(one["HostPort"]) for found in container.ports.values() for one in found or ()}


@pytest.mark.stand
@pytest.mark.alongside  # it needs root, and cgroups that can be written
def test_a_process_gets_no_more_than_its_limit():
    """A busy process with half a processor uses at most half of the time that passes."""
    with limited(0.5) as cgroup:
        busy = subprocess.Popen([*entering(cgroup), "python3", "-c", "while True: pass"])
        try:
            while used_s(busy.pid) == 0:
                time.sleep(0.01)
            before_s, began_s = used_s(busy.pid), time.monotonic()
            time.sleep(BUSY_S)
            used, passed = used_s(busy.pid) - before_s, time.monotonic() - began_s
        finally:
            busy.kill()
            busy.wait()
    assert used <= 0.5 * passed + 0.1  # a period may have begun before the first look
