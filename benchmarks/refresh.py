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
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from benchmarks.own_stand import PROJECT, on_stand, own_stand
from benchmarks.refresh_parts import blocked_s, layers_sent, measure_fleets, task_memory
from benchmarks.refresh_report import CHECKED, DAG, DEFERRED, IDLE, SEED, render, write
from local.commands.refresh import Api, dag_id, log_in
from slipway.release import ExportLimits, ExportOptions

SCRIPTS = PROJECT / "benchmarks" / "scripts"
DIGITS = PROJECT / "include" / "served" / "digits-vit"
OVERLAY = PROJECT / "include" / "manifests" / "overlays" / "local"
LABELS = {"three": "3", "seven": "7", "eight": "8"}
LIMIT_S = 1800
BLOCKED_S = 0.1  # Airflow's threshold, without its own sleep


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One refresh in one way."""

    whole_s: float
    spans_s: Mapping[str, tuple[float, float]]  # by step: its beginning and its end, in seconds since it was asked for

    @property
    def steps_s(self) -> dict[str, float]:
        """How long each step took."""
        return {step: end - begin for step, (begin, end) in self.spans_s.items()}

    @property
    def idle_s(self) -> float:
        """Seconds in which no step ran."""
        busy_s, until_s = 0.0, 0.0
        for begin, end in sorted(self.spans_s.values()):
            busy_s += max(0.0, end - max(begin, until_s))
            until_s = max(until_s, end)
        return self.whole_s - busy_s

    def told(self) -> dict[str, Any]:
        """All figures, for JSON."""
        return {"whole_s": self.whole_s, "steps_s": self.steps_s, "spans_s": dict(self.spans_s), "idle_s": self.idle_s}


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
        with self.deferring():
            self.use(self.scratch / f"deferred-{number}", number + 100)
            found[DEFERRED] = self.run_dag()
        return found

    def by_dag(self, _name: str, checkpoint: Path, _number: int) -> Measured:
        """By a run of the model's DAG."""
        self.use(checkpoint)
        return self.run_dag()

    def use(self, checkpoint: Path, change: int | None = None) -> None:
        """Make a checkpoint the model's source; with a `change`, make the checkpoint first."""
        if change is not None:
            change_one_weight(DIGITS / "checkpoint", checkpoint, change)
        served = self.project / "include" / "served"
        shutil.rmtree(served / "bench", ignore_errors=True)
        shutil.copytree(DIGITS, served / "bench")
        shutil.rmtree(served / "bench" / "checkpoint")
        shutil.copytree(checkpoint, served / "bench" / "checkpoint")

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Every wait defers at once during the block."""
        api, path = log_in(self.status), "/api/v2/variables"
        api.call("POST", path, {"key": "slipway_look_s", "value": "0"})
        try:
            yield
        finally:
            api.call("DELETE", f"{path}/slipway_look_s")

    def sent(self) -> int:
        """Bytes of the newest image that its base does not have."""
        found = max(
            (Path(self.status["store"].removeprefix("file://")) / "records" / "bench").glob("*.json"),
            key=lambda path: path.stat().st_mtime,
        )
        record = json.loads(found.read_text())
        base = f"{self.status['serving_image'].rpartition(':')[0]}@{record['release']['base_digest']}"
        manifests = [
            subprocess.check_output(
                ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{image}"], text=True, timeout=LIMIT_S
            )
            for image in (record["pushed"]["reference"], base)
        ]
        return layers_sent(*manifests)

    def triggerer_log(self) -> Path:
        """The log of the stand's triggerer."""
        return Path(self.status["airflow"]["password_file"]).parent / "logs" / "triggerer.log"

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
        spans, at_s = {}, 0.0
        for step, seconds in (line.split() for line in (work / "steps").read_text().splitlines()):
            spans[step] = (at_s, at_s + float(seconds))
            at_s += float(seconds)
        return Measured(whole_s=whole_s, spans_s=spans)


def newest_run(api: Api, dag: str) -> Measured:
    """The DAG's newest run, from the moment at which it was asked for to its end, and its tasks."""
    [run] = api.call("GET", f"/api/v2/dags/{dag}/dagRuns?order_by=-run_after&limit=1")["dag_runs"]
    tasks = api.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run['dag_run_id']}/taskInstances?limit=100")["task_instances"]
    if run["state"] != "success":
        raise RuntimeError(f"{dag}: the run {run['dag_run_id']} is {run['state']}")
    ran = sorted((task for task in tasks if task["state"] == "success"), key=lambda task: str(task["start_date"]))
    asked = run["queued_at"]
    spans = {
        str(task["task_id"]): (seconds_between(asked, task["start_date"]), seconds_between(asked, task["end_date"]))
        for task in ran
    }
    return Measured(whole_s=seconds_between(asked, run["end_date"]), spans_s=spans)


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
    parser.add_argument(
        "--short",
        action="store_true",
        help="one round without one before it, which proves that the benchmark works; print the figures, and leave docs/benchmarks.md as it is",
    )
    asked = parser.parse_args(words)
    python = {
        name: f"{subprocess.check_output([sys.executable, '-m', 'local', 'env', name], cwd=PROJECT, text=True).strip()}/bin/python"
        for name in ("dev", "load", "model")
    }
    with own_stand() as (project, status), tempfile.TemporaryDirectory(prefix="slipway-bench-") as scratch:
        write_model(project)
        bench = Bench(project, status, Path(scratch), python)
        with task_memory() as memory:
            last = 0 if asked.short else asked.rounds
            for number in range(last + 1):
                found = bench.round(number)
                sys.stdout.write(
                    f"round {number} of {last}: {', '.join(f'{way} {one.whole_s:.1f} s' for way, one in found.items())}\n"
                )
                sys.stdout.flush()
                if number or asked.short:
                    bench.rounds.append(found)
        rounds = [{way: one.told() for way, one in found.items()} for found in bench.rounds]
        if asked.json:  # at once: what follows may fail
            asked.json.write_text(json.dumps(rounds, indent=1))
        others = {
            "memory of the largest task's process": f"{memory.most_mib:.0f} MiB, most of it shared with the scheduler; the exporter, a program of its own, not counted",
            "sent to the registry in a refresh": f"{bench.sent():,} bytes: the model's compressed layer and the image's configuration",
            "the triggerer's loop with every wait deferred": describe_blocked(bench.triggerer_log()),
        }
        fleets = measure_fleets(Path(scratch))
    if asked.short:
        sys.stdout.write(render(rounds, fleets, others) + "\n")
    else:
        write(rounds, fleets, others, python["load"])
    return 0


def describe_blocked(log: Path) -> str:
    """What the triggerer noticed of its own loop."""
    times_s = blocked_s(log)
    if not times_s:
        return f"never blocked for more than {BLOCKED_S} s"
    return f"blocked {len(times_s)} times for more than {BLOCKED_S} s, at most {max(times_s):.2f} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
