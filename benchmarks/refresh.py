"""Compare a refresh by Slipway's DAG with the same steps and checks in a shell script, and with the seed's bare steps: `make bench`.

A copy of the checkout gets its own stand. In each round a new checkpoint, which differs in one weight, is released in all three ways, in
turns; the one that comes first changes from round to round. Then the DAG runs once more, with nothing to do. A round before
the first is not counted: afterwards each way replaces a live release. The figures go into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from benchmarks.own_stand import PROJECT, on_stand, own_stand
from local.commands.refresh import Api, dag_id, log_in
from slipway.release import ExportLimits, ExportOptions

SCRIPTS = PROJECT / "benchmarks" / "scripts"
DIGITS = PROJECT / "include" / "served" / "digits-vit"
OVERLAY = PROJECT / "include" / "manifests" / "overlays" / "local"
LABELS = {"three": "3", "seven": "7", "eight": "8"}
LIMIT_S = 1800
DAG, CHECKED, SEED, IDLE = "the DAG", "the same checks in a script", "the seed's bare steps", "the DAG, nothing to do"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One refresh in one way."""

    whole_s: float
    steps_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Bench:
    """A stand of its own, and the three ways to refresh a model on it."""

    project: Path
    status: Mapping[str, Any]
    scratch: Path
    python: Mapping[str, str]
    rounds: list[dict[str, Measured]] = field(default_factory=list)

    def round(self, number: int) -> dict[str, Measured]:
        """Release the checkpoint of this round in all ways."""
        checkpoint = self.scratch / f"checkpoint-{number}"
        change_one_weight(DIGITS / "checkpoint", checkpoint, number)
        ways = {DAG: self.by_dag, CHECKED: self.by_script, SEED: self.by_script}
        names = list(ways)
        turned = names[number % len(names) :] + names[: number % len(names)]
        found = {name: ways[name](name, checkpoint, number) for name in turned}
        found[IDLE] = self.run_dag()
        return found

    def by_dag(self, _name: str, checkpoint: Path, _number: int) -> Measured:
        """By a run of the model's DAG."""
        served = self.project / "include" / "served"
        shutil.rmtree(served / "bench", ignore_errors=True)
        shutil.copytree(DIGITS, served / "bench")
        shutil.rmtree(served / "bench" / "checkpoint")
        shutil.copytree(checkpoint, served / "bench" / "checkpoint")
        return self.run_dag()

    def run_dag(self) -> Measured:
        """Run the model's DAG once."""
        on_stand(self.project, "refresh", "bench")
        return newest_run(log_in(self.status), dag_id("bench"))

    def by_script(self, name: str, checkpoint: Path, number: int) -> Measured:
        """By a shell script."""
        script = "seed" if name == SEED else "checked"
        work = self.scratch / f"{script}-{number}"
        work.mkdir()
        model = f"bench-{script}"
        request = self.scratch / f"{script}-{number}.json"
        request.write_text(json.dumps(render_request(model, checkpoint)))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        given = {
            "EXPORTER": str(PROJECT / "include" / "model" / "export.py"),
            "EXPORTER_PYTHON": self.python["model"],
            "PYTHON": self.python["dev"],
            "PYTHONPATH": f"{PROJECT / 'plugins'}:{PROJECT}",
            "REQUEST": str(request),
            "WORK": str(work),
            "BASE": self.status["serving_image"],
            "REPOSITORY": f"{self.status['registry']}/{model}",
            "NAMESPACE": self.status["namespace"],
            "OVERLAY": str(OVERLAY),
            "MODEL": model,
            "DEPLOYMENT": model,
            "VERSION": str(number + 1),
            "CHECKPOINT": str(checkpoint),
            "IMAGE": str(DIGITS / "golden" / "three.png"),
            "PROXY_PORT": str(port),
            "KUBECONFIG": self.status["kubeconfig"],
            "DOCKER_HOST": self.status["docker_host"],
            "PATH": f"{Path(self.python['dev']).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(work),
        }
        began = time.monotonic()
        done = subprocess.run(
            [str(SCRIPTS / f"{script}.sh")],
            env=given,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        whole_s = time.monotonic() - began
        if done.returncode != 0:
            raise RuntimeError(f"{script}.sh: {done.stdout}{done.stderr}")
        steps = (line.split() for line in (work / "steps").read_text().splitlines())
        return Measured(whole_s=whole_s, steps_s={step: float(seconds) for step, seconds in steps})


def newest_run(api: Api, dag: str) -> Measured:
    """The DAG's newest run, from the moment at which it was asked for to its end, and its tasks."""
    [run] = api.call("GET", f"/api/v2/dags/{dag}/dagRuns?order_by=-run_after&limit=1")["dag_runs"]
    tasks = api.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run['dag_run_id']}/taskInstances?limit=100")["task_instances"]
    if run["state"] != "success":
        raise RuntimeError(f"{dag}: the run {run['dag_run_id']} is {run['state']}")
    ran = sorted((task for task in tasks if task["state"] == "success"), key=lambda task: str(task["start_date"]))
    steps = {str(task["task_id"]): seconds_between(task["start_date"], task["end_date"]) for task in ran}
    return Measured(whole_s=seconds_between(run["queued_at"], run["end_date"]), steps_s=steps)


def seconds_between(began: str, ended: str) -> float:
    """Seconds between two of Airflow's times."""
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()


def change_one_weight(checkpoint: Path, place: Path, number: int) -> None:
    """Copy a checkpoint, with the least significant byte of one weight changed: other content, the same answers."""
    shutil.copytree(checkpoint, place)
    file = place / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-4] = (content[-4] + number + 1) % 256
    file.write_bytes(content)


def render_request(model: str, checkpoint: Path) -> dict[str, Any]:
    """The exporter's request, as the DAG's task writes it."""
    golden = [
        {"name": name, "image": str(DIGITS / "golden" / f"{name}.png"), "label": label, "min_confidence": 0.8}
        for name, label in LABELS.items()
    ]
    limits = {name: value for name, value in asdict(ExportLimits()).items() if name != "processes"}
    return {
        "model": model,
        "source": {"kind": "folder", "path": str(checkpoint)},
        "golden": golden,
        "settings": asdict(ExportOptions()),
        "limits": limits,
        "without_sandbox": False,
        "origin": {"location": "folder bench/checkpoint", "revision": f"sha256:{'0' * 64}"},
    }


def write_model(project: Path) -> None:
    """Write the model file of the DAG, with a preview."""
    file = yaml.safe_load((project / "include" / "served" / "digits-vit.yaml").read_text())
    del file["load_test"]
    file["source"] = {"folder": "bench/checkpoint"}
    file["target"] |= {"deployment": "bench", "strategy": "preview"}
    for case in file["gate"]["golden"]:
        case["image"] = case["image"].replace("digits-vit/", "bench/")
    (project / "include" / "served" / "bench.yaml").write_text(yaml.safe_dump(file))


def main(words: Sequence[str]) -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    asked = parser.parse_args(words)
    python = {
        name: f"{subprocess.check_output([sys.executable, '-m', 'local', 'env', name], cwd=PROJECT, text=True).strip()}/bin/python"
        for name in ("dev", "model")
    }
    with own_stand() as (project, status), tempfile.TemporaryDirectory(prefix="slipway-bench-") as scratch:
        write_model(project)
        bench = Bench(project, status, Path(scratch), python)
        for number in range(asked.rounds + 1):
            found = bench.round(number)
            told = ", ".join(f"{name} {one.whole_s:.1f} s" for name, one in found.items())
            sys.stdout.write(f"round {number} of {asked.rounds}: {told}\n")
            sys.stdout.flush()
            if number:
                bench.rounds.append(found)
    figures = [{name: asdict(one) for name, one in found.items()} for found in bench.rounds]
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1))
    for name in (DAG, CHECKED, SEED, IDLE):
        values = [found[name].whole_s for found in bench.rounds]
        sys.stdout.write(f"{name}: {statistics.median(values):.1f} s ({min(values):.1f} to {max(values):.1f})\n")
    for name in (CHECKED, SEED):
        ratios = [found[DAG].whole_s / found[name].whole_s for found in bench.rounds]
        sys.stdout.write(
            f"the DAG takes {statistics.median(ratios):.2f} times {name} ({min(ratios):.2f} to {max(ratios):.2f})\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
