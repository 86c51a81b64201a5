"""Measure what threads cost a server that gets 0.8 CPUs, as the seed's Deployment does: a part of `make overlay-figures`.

The stand-in serves digits-vit as a process of this machine, in a cgroup with the limit that the kubelet would set, in turns with the
seed's numbers of threads and with one. include/load/load.py loads it from outside of the cgroup. The figures go into docs/overlays.md.
Needs root.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.first_requests import export, served
from benchmarks.load_figures import load, target_of
from benchmarks.own_stand import PROJECT
from benchmarks.refresh_times import machine, place

PAGE = PROJECT / "docs" / "overlays.md"
BEGIN, END = (
    "<!-- written by benchmarks/thread_cost.py, which replaces all text between these marks -->",
    "<!-- end of thread_cost -->",
)
CPUS = 0.8
THREADS = {"1 and 1": (1, 1), "2 and 8, the seed's": (2, 8)}  # inter-op and intra-op
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
    turns = parser.parse_args(words).turns
    measured: dict[str, list[Turn]] = {name: [] for name in THREADS}
    with tempfile.TemporaryDirectory() as name:
        exported = export(Path(name), "refuse")
        for number in range(turns):
            # Every second turn in reverse order, so that a machine that becomes slower affects both.
            for threads in list(THREADS)[:: -1 if number % 2 else 1]:
                measured[threads].append(measure(exported, threads, Path(name) / f"{number}-{THREADS[threads][1]}"))
    text = render(measured, machine())
    PAGE.write_text(place(PAGE.read_text(), text, BEGIN, END))
    print(text)
    return 0


def measure(exported: Path, threads: str, out: Path) -> Turn:
    """Start a server with these threads, load it, end it."""
    inter_op, intra_op = THREADS[threads]
    flags = (f"--tensorflow_inter_op_parallelism={inter_op}", f"--tensorflow_intra_op_parallelism={intra_op}")
    with limited(CPUS) as cgroup, served(exported, *flags, enter=entering(cgroup)) as server:
        before_s = used_s(server.pid)
        load(exported, target_of(server), out, plan=PLAN)
        spent_s = used_s(server.pid) - before_s
    answered = len((out / "samples.csv").read_text().splitlines()) - 1
    return turn_of(json.loads((out / "load.json").read_text()), answered / spent_s)


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


def render(measured: Mapping[str, Sequence[Turn]], where: str) -> str:
    """A row for each pair of numbers of threads: medians, and the least and most of the turns."""
    rows = [
        f"| inter-op and intra-op threads | requests for a second of a processor | answers/s to {USERS} users | p95 ms at {RATE_PER_S}/s |",
        "| --- | ---: | ---: | ---: |",
    ]
    for threads, turns in measured.items():
        cells = [_cell([getattr(turn, name) for turn in turns]) for name in ("per_cpu_s", "most_per_s", "p95_ms")]
        rows.append(f"| {threads} | {' | '.join(cells)} |")
    count = len(next(iter(measured.values())))
    said = (
        f"Medians of {count} turns (least to most). The stand-in, not TensorFlow Serving, served digits-vit as a process that gets "
        f"{CPUS:g} CPUs, on {where}; the load came from the same machine."
    )
    return "\n".join([*rows, "", said])


def _cell(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
