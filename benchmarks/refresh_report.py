"""Writes the figures of `make bench` as tables, and draws them."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.own_stand import PROJECT
from benchmarks.refresh_parts import Fleet
from benchmarks.refresh_times import machine, place

PAGE = PROJECT / "docs" / "benchmarks.md"
PICTURE = PROJECT / "docs" / "benchmarks.png"
BEGIN = "<!-- written by `make bench`, which replaces all text between these marks -->"
DAG, CHECKED, SEED = "the DAG", "the same checks in a script", "the seed's bare steps"
IDLE, DEFERRED = "the DAG, nothing to do", "the DAG, every wait deferred"
GOALS = {CHECKED: 1.0, SEED: None}

Round = Mapping[str, Any]  # by way: a `Measured` as a dict


def render(rounds: Sequence[Round], fleets: Sequence[Fleet], others: Mapping[str, Any]) -> str:
    """All tables."""
    where = f"{machine()}, {processor()}, Airflow {version('apache-airflow')}, Python {platform.python_version()}"
    ways = [way for way in (DAG, CHECKED, SEED, IDLE, DEFERRED) if way in rounds[0]]
    lines = [
        f"{len(rounds)} rounds in one run, on {where}, with nothing beside. Medians (least to most), in seconds.",
        "",
        "| | a refresh | the DAG's time as a multiple |",
        "| --- | ---: | ---: |",
        *(f"| {way} | {spread([one[way]['whole_s'] for one in rounds])} | {ratio(rounds, way)} |" for way in ways),
        "",
        "Each step, in seconds. The DAG's tasks include the start of a process for each.",
        "",
        f"| step | {DAG} | {CHECKED} | {SEED} |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {step} | {' | '.join(cell(rounds, way, step) for way in (DAG, CHECKED, SEED))} |"
            for step in steps_of(rounds)
        ),
        f"| no task runs | {median([one[DAG]['idle_s'] for one in rounds]):.1f} | | |",
        "",
        "| model files | DAGs | parse of the DAG file, s | start of a task, s |",
        "| ---: | ---: | ---: | ---: |",
        *(f"| {fleet.files} | {fleet.dags} | {fleet.parse_s:.2f} | {fleet.task_s:.2f} |" for fleet in fleets),
        "",
        f"Both beyond bare `airflow.sdk`, which takes {fleets[0].sdk_s:.2f} s; the process of a task makes only its own DAG.",
        "",
        *(f"- {what}: {value}" for what, value in others.items()),
    ]
    return "\n".join(lines)


def processor() -> str:
    """The name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def steps_of(rounds: Sequence[Round]) -> list[str]:
    """All steps, in the order in which the DAG's tasks begin."""
    return list(dict.fromkeys(step for way in (DAG, CHECKED, SEED) for one in rounds for step in one[way]["steps_s"]))


def cell(rounds: Sequence[Round], way: str, step: str) -> str:
    """The median of a step, if it is one of the way's."""
    seen = [one[way]["steps_s"][step] for one in rounds if step in one[way]["steps_s"]]
    return f"{median(seen):.1f}" if seen else ""


def ratio(rounds: Sequence[Round], way: str) -> str:
    """How many times as long the DAG takes, in the same round."""
    if way not in GOALS:
        return ""
    found = spread([one[DAG]["whole_s"] / one[way]["whole_s"] for one in rounds], digits=2)
    goal = GOALS[way]
    return found if goal is None else f"{found}; goal {goal:.1f}"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median, least and most."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def write(rounds: Sequence[Round], fleets: Sequence[Fleet], others: Mapping[str, Any], python: str) -> None:
    """Put the tables into the page, and draw the steps with an interpreter that has matplotlib."""
    PAGE.write_text(place(PAGE.read_text(), render(rounds, fleets, others), BEGIN))
    spans = {way: rounds[len(rounds) // 2][way]["spans_s"] for way in (DAG, CHECKED, SEED)}
    plot = PROJECT / "benchmarks" / "refresh_plot.py"
    subprocess.run([python, str(plot), str(PICTURE)], input=json.dumps(spans), text=True, check=True, timeout=300)
