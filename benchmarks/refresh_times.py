"""Measure a first run, one with no change, one with new manifests and a forced one, task by task: `make times`.

A copy of the checkout gets its own stand, so that no run came before. Every round releases a new model through scheduler and
triggerer and deletes it again. The medians go into docs/times.md.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from benchmarks.own_stand import PROJECT, on_stand, own_stand
from local.commands.refresh import Api, dag_id, log_in

PAGE = PROJECT / "docs" / "times.md"
BEGIN, END = "<!-- written by `make times`, which replaces all text between these marks -->", "<!-- end -->"
RUNS = ("first", "no change", "new manifests", "forced")

Times = dict[str, float]  # seconds by task, and of the whole run under WHOLE
WHOLE = "the run"


def main(words: Sequence[str]) -> int:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(prog="make times", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="models to release, each by all four runs (default 3)")
    rounds = parser.parse_args(words).rounds
    measured: dict[str, list[Times]] = {run: [] for run in RUNS}
    with own_stand() as (project, status):
        for number in range(1, rounds + 1):
            for run, times in one_round(project, status, f"times-{number}"):
                sys.stdout.write(f"round {number} of {rounds}, {run}: {times[WHOLE]:.1f} s\n")
                sys.stdout.flush()
                measured[run].append(times)
    PAGE.write_text(place(PAGE.read_text(), render(measured, machine())))
    return 0


def one_round(project: Path, status: Mapping[str, Any], model: str) -> Iterator[tuple[str, Times]]:
    """Do the four runs of a new model, one after the other. Yields each run and its times."""
    served, overlay = project / "include" / "served", project / "include" / "manifests" / "overlays" / "local"
    file = yaml.safe_load((served / "digits-vit.yaml").read_text())
    file["target"]["deployment"] = model
    (served / f"{model}.yaml").write_text(yaml.safe_dump(file))
    deployment = overlay / "deployment.yaml"
    before = deployment.read_text()
    for run in RUNS:
        if run == "new manifests":
            deployment.write_text(before.replace("cpu: 100m", "cpu: 110m"))
        on_stand(project, "refresh", model, *(["--force"] if run == "forced" else []))
        yield run, newest_times(log_in(status), dag_id(model))
    deployment.write_text(before)
    kubectl = [str(Path(sys.executable).with_name("kubectl")), "--kubeconfig", status["kubeconfig"]]
    words = ["delete", "deployment,service,hpa,pdb,lease", "-l", f"slipway/model={model}"]
    subprocess.run([*kubectl, *words], check=True, stdout=subprocess.DEVNULL, timeout=120)
    (served / f"{model}.yaml").unlink()


def newest_times(api: Api, dag: str) -> Times:
    """The times of the DAG's newest run."""
    [run] = api.call("GET", f"/api/v2/dags/{dag}/dagRuns?order_by=-run_after&limit=1")["dag_runs"]
    tasks = api.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run['dag_run_id']}/taskInstances")["task_instances"]
    return read_times(run, tasks)


def read_times(run: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]]) -> Times:
    """Seconds from start to end, including deferred time, of each task that succeeded and of the run."""
    done = [task for task in tasks if task["state"] == "success"]
    ordered = sorted(done, key=lambda task: str(task["start_date"]))
    return {**{str(task["task_id"]): _seconds(task) for task in ordered}, WHOLE: _seconds(run)}


def _seconds(span: Mapping[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(span[name]) for name in ("start_date", "end_date"))
    return (ended - began).total_seconds()


def render(measured: Mapping[str, Sequence[Times]], where: str) -> str:
    """The table: a row per task in the order in which they run, a column per kind of run; medians in seconds."""
    tasks = list(dict.fromkeys(task for run in RUNS for times in measured[run] for task in times if task != WHOLE))
    rounds = len(measured[RUNS[0]])
    rows = [f"| {' | '.join(['task', *RUNS])} |", f"| --- |{' ---: |' * len(RUNS)}"]
    rows += [f"| {' | '.join([task, *(_cell(measured[run], task) for run in RUNS)])} |" for task in tasks]
    rows.append(f"| {' | '.join([f'**{WHOLE}**', *(f'**{_cell(measured[run], WHOLE)}**' for run in RUNS)])} |")
    return (
        f"Seconds, medians of {rounds} rounds (last row: least and most of the whole run), on {where}.\n\n"
        + "\n".join([*rows, f"| least to most | {' | '.join(_range(measured[run]) for run in RUNS)} |"])
    )


def _cell(runs: Sequence[Times], task: str) -> str:
    seen = [times[task] for times in runs if task in times]
    return f"{statistics.median(seen):.1f}" if seen else "-"


def _range(runs: Sequence[Times]) -> str:
    whole = [times[WHOLE] for times in runs]
    return f"{min(whole):.1f} to {max(whole):.1f}"


def place(page: str, table: str, begin: str = BEGIN, end: str = END) -> str:
    """Put the table between the marks of the page."""
    head, _, rest = page.partition(begin)
    return f"{head}{begin}\n\n{table}\n\n{end}{rest.partition(end)[2]}"


def machine() -> str:
    """The machine in a few words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {system}, {datetime.now(UTC):%Y-%m-%d}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
