"""Measure what threads and batches cost a server that gets 0.8 CPUs, as the seed's Deployment does: a part of `make overlay-figures`.

The stand-in serves digits-vit as a process of this machine, in a cgroup with the limit that the kubelet would set, in turns with the
seed's numbers of threads and with one. include/load/load.py loads it from outside of the cgroup. The figures go into docs/overlays.md.
Needs root. With --image the same is measured of an image on a Docker engine (DOCKER_HOST), such as tensorflow/serving:2.20.0, and only printed.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.first_requests import MODEL, Server, export, free_port, served, wait_until_available
from benchmarks.load_figures import load, target_of
from benchmarks.own_stand import PROJECT
from benchmarks.refresh_times import machine, place

PAGE = PROJECT / "docs" / "overlays.md"
BEGIN, END = (
    "<!-- written by benchmarks/thread_cost.py, which replaces all text between these marks -->",
    "<!-- end of thread_cost -->",
)
CPUS = 0.8
BATCHING = PROJECT / "include" / "manifests" / "overlays" / "batching" / "batching.txt"
ONE, BATCHED, SEED = "1 and 1", "1 and 1, the batches of the overlay", "2 and 8, the seed's"
THREADS = {ONE: (1, 1), BATCHED: (1, 1), SEED: (2, 8)}  # inter-op and intra-op
RATE_PER_S, USERS = 40, 4
PLAN = {"rates_per_s": [RATE_PER_S], "closed_users": [USERS], "step_s": 20, "settle_s": 5}
TURNS = 5
CGROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 100_000  # the kubelet's


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one load found."""

    p95_ms: float  # at RATE_PER_S
    most_per_s: float  # with USERS that ask again at once
    per_cpu_s: float  # requests for a second of a processor, of both steps


def main(words: Sequence[str]) -> int:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(prog="benchmarks/thread_cost.py", description=__doc__)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--image", help="measure this image instead of the stand-in; the page is not changed")
    options = parser.parse_args(words)
    measured: dict[str, list[Turn]] = {name: [] for name in THREADS}
    with tempfile.TemporaryDirectory() as name:
        exported = export(Path(name), "refuse")
        for number in range(options.turns):
            # Every second turn in reverse order, so that a machine that becomes slower affects all.
            for variant in list(THREADS)[:: -1 if number % 2 else 1]:
                out = Path(name) / f"{number}-{list(THREADS).index(variant)}"
                measured[variant].append(measure(exported, variant, out, options.image))
    if options.image:
        print(render(measured, f"{options.image} served digits-vit in a container", machine()))
        return 0
    text = render(measured, "The stand-in, not TensorFlow Serving, served digits-vit as a process", machine())
    PAGE.write_text(place(PAGE.read_text(), text, BEGIN, END))
    print(text)
    return 0


def measure(exported: Path, variant: str, out: Path, image: str | None) -> Turn:
    """Start a server, load it, end it."""
    with contained(image, exported, variant) if image else process(exported, variant) as (server, used_s):
        before_s = used_s()
        load(exported, target_of(server), out, plan=PLAN)
        spent_s = used_s() - before_s
    answered = len((out / "samples.csv").read_text().splitlines()) - 1
    return turn_of(json.loads((out / "load.json").read_text()), answered / spent_s)


@contextmanager
def process(exported: Path, variant: str) -> Iterator[tuple[Server, Callable[[], float]]]:
    """The stand-in as a process with the limit, and the processor time that it has used."""
    with limited(CPUS) as cgroup, served(exported, *flags_of(variant, BATCHING), enter=entering(cgroup)) as server:
        yield server, lambda: used_s(server.pid)


@contextmanager
def contained(image: str, exported: Path, variant: str) -> Iterator[tuple[Server, Callable[[], float]]]:
    """An image in a container with the limit, and the processor time that the container has used."""
    import docker

    server = Server(rest=free_port(), grpc=free_port())
    with tempfile.TemporaryDirectory() as models:
        shutil.copytree(exported / "savedmodel", Path(models) / MODEL / "1")
        shutil.copy(BATCHING, models)
        container = docker.from_env().containers.run(
            image, command=flags_of(variant, Path("/models") / BATCHING.name), environment={"MODEL_NAME": MODEL}, detach=True,
            volumes={models: {"bind": "/models", "mode": "ro"}}, nano_cpus=round(CPUS * 1e9),
            ports={"8500/tcp": ("127.0.0.1", server.grpc), "8501/tcp": ("127.0.0.1", server.rest)},
        )  # fmt: skip
        try:
            wait_until_available(server)
            yield server, lambda: container.stats(stream=False)["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
        finally:
            container.remove(force=True)


def flags_of(variant: str, batching: Path) -> list[str]:
    """The server's flags; `batching` is where it finds the overlay's parameters."""
    inter_op, intra_op = THREADS[variant]
    threads = [f"--tensorflow_inter_op_parallelism={inter_op}", f"--tensorflow_intra_op_parallelism={intra_op}"]
    return [*threads, "--enable_batching", f"--batching_parameters_file={batching}"] if variant == BATCHED else threads


def turn_of(figures: dict[str, Any], per_cpu_s: float) -> Turn:
    """A turn of the load test's figures. Raises RuntimeError if a request had no answer, or a wrong one."""
    rate, closed = figures["steps"]
    if rate["errors"] or closed["errors"]:
        raise RuntimeError(f"errors under load: {rate['errors']} {closed['errors']}")
    return Turn(p95_ms=rate["p95_ms"], most_per_s=closed["reached_per_s"], per_cpu_s=per_cpu_s)


@contextmanager
def limited(cpus: float) -> Iterator[Path]:
    """The folder of a new cgroup, of version 1 or 2, whose processes together get at most so many CPUs."""
    unified = (CGROUPS / "cgroup.controllers").exists()
    folder = (CGROUPS if unified else CGROUPS / "cpu") / f"slipway-benchmark-{os.getpid()}"
    folder.mkdir()
    try:
        quota = round(cpus * PERIOD_US)
        if unified:
            (folder / "cpu.max").write_text(f"{quota} {PERIOD_US}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (folder / "cpu.cfs_quota_us").write_text(str(quota))
        yield folder
    finally:
        folder.rmdir()


def entering(cgroup: Path) -> list[str]:
    """A command that enters the cgroup and becomes the command that follows it."""
    return ["sh", "-c", f'echo $$ > {cgroup}/cgroup.procs && exec "$@"', "sh"]


def used_s(pid: int) -> float:
    """The processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime of all its threads


def render(measured: Mapping[str, Sequence[Turn]], what: str, where: str) -> str:
    """A row for each pair of numbers of threads: medians, and the least and most of the turns. `what` served, and how."""
    rows = [
        f"| inter-op and intra-op threads | requests for a second of a processor | answers/s to {USERS} users | p95 ms at {RATE_PER_S}/s |",
        "| --- | ---: | ---: | ---: |",
    ]
    for threads, turns in measured.items():
        cells = [_cell([getattr(turn, name) for turn in turns]) for name in ("per_cpu_s", "most_per_s", "p95_ms")]
        rows.append(f"| {threads} | {' | '.join(cells)} |")
    count = len(next(iter(measured.values())))
    said = f"Medians of {count} turns (least to most). {what} that gets {CPUS:g} CPUs, on {where}; the load came from the same machine."
    return "\n".join([*rows, "", said])


def _cell(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
