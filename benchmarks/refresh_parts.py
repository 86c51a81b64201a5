"""What else a fleet's operator asks: how long a parse and the start of a task take with many model files, and what a task needs."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.own_stand import PROJECT

FLEETS = (1, 10, 100)
ROUNDS = 5
PARSE = """
import sys, time
began = time.perf_counter()
import airflow.sdk
from airflow.sdk import DAG, Asset, BaseOperator, BaseSensorOperator, Param, chain
sdk = time.perf_counter()
import runpy
made = runpy.run_path(sys.argv[1])
print(time.perf_counter() - sdk, sdk - began, sum(isinstance(one, DAG) for one in made.values()))
"""
MODEL = """
source: {{hub: someone/model-{number}}}
schedule: "{schedule}"
target: {{deployment: model-{number}, namespace: shop, overlay: local}}
gate: {{golden: [{{name: cat, image: cat.png, label: cat}}]}}
"""
BLOCKED = re.compile(r"async thread was blocked for ([0-9.]+) seconds")
WORKING = re.compile(rb"LocalExecutor: [0-9a-f]{8}-")
LOOK_S = 0.2
OWN_SLEEP_S = 0.1  # Airflow's threshold of 0.2 s is a block of 0.1 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The figures of a number of model files, in seconds, medians."""

    files: int
    parse_s: float  # of the DAG file, beyond bare airflow.sdk
    task_s: float  # the same in the process of one task, which makes only its own DAG
    sdk_s: float  # bare airflow.sdk
    dags: int


def measure_fleets(scratch: Path) -> list[Fleet]:
    """How long parses take, in processes of their own, in turns."""
    runs: dict[tuple[int, bool], list[tuple[float, float, int]]] = {}
    for _ in range(ROUNDS):
        for files in FLEETS:
            folder = write_fleet(scratch, files)
            for one_task in (False, True):
                runs.setdefault((files, one_task), []).append(parse_once(folder, one_task=one_task))
    return [
        Fleet(
            files=files,
            parse_s=statistics.median(run[0] for run in runs[files, False]),
            task_s=statistics.median(run[0] for run in runs[files, True]),
            sdk_s=statistics.median(run[1] for run in runs[files, False]),
            dags=runs[files, False][0][2],
        )
        for files in FLEETS
    ]


def write_fleet(scratch: Path, files: int, schedule: str = "@daily") -> Path:
    """A folder with this number of model files, each with a Deployment and this schedule."""
    folder = scratch / f"fleet-{files}"
    served = folder / "served"
    if not served.exists():
        served.mkdir(parents=True)
        for number in range(files):
            (served / f"model-{number}.yaml").write_text(MODEL.format(number=number, schedule=schedule))
    return folder


def parse_once(folder: Path, *, one_task: bool) -> tuple[float, float, int]:
    """Seconds for the DAG file, seconds for bare airflow.sdk before it, and the number of DAGs."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT / "plugins"),
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__SLIPWAY__FOLDER": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        **(
            {"_AIRFLOW_PARSING_CONTEXT_DAG_ID": "refresh_model_0", "_AIRFLOW_PARSING_CONTEXT_TASK_ID": "resolve"}
            if one_task
            else {}
        ),
    }
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(PROJECT / "dags" / "models.py")],
        env=environment, capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    parse_s, sdk_s, dags = done.stdout.split()[-3:]
    return float(parse_s), float(sdk_s), int(dags)


@dataclass(slots=True)
class Memory:
    """The most memory that a process of a task had while it was watched, in MiB."""

    most_mib: float = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Look at all processes until it is ended."""
        while not self.ended.wait(LOOK_S):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    if WORKING.search((folder / "cmdline").read_bytes()):
                        pages = int((folder / "statm").read_text().split()[1])
                        self.most_mib = max(self.most_mib, pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
                except (OSError, ValueError):  # it has ended
                    continue


@contextmanager
def task_memory() -> Iterator[Memory]:
    """Watches the tasks' own processes during the block; the exporter, which is a program of its own, is none of them."""
    memory = Memory()
    thread = threading.Thread(target=memory.watch, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        memory.ended.set()
        thread.join()


def blocked_s(log: Path) -> list[float]:
    """For how long the triggerer's loop was blocked, each time that it noticed: it sleeps OWN_SLEEP_S, and counts that too."""
    return [float(seconds) - OWN_SLEEP_S for seconds in BLOCKED.findall(log.read_text(errors="replace"))]


def layers_sent(manifest: str, base: str) -> int:
    """Bytes of the layers that an image has beyond its base, and of its configuration, from both manifests."""
    made, held = json.loads(manifest), {layer["digest"] for layer in json.loads(base)["layers"]}
    sizes: Sequence[int] = [layer["size"] for layer in made["layers"] if layer["digest"] not in held]
    return sum(sizes) + int(made["config"]["size"])
