"""Compare TensorFlow and ONNX Runtime, in process and through the servers: `make bench-runtimes`.

ViT-B/16 with random weights and digits-vit are exported for both runtimes from the same checkpoints. Each runtime runs in a process of
its own environment and is asked in turns; the others wait meanwhile. So do the servers, which are loaded over loopback only. OpenVINO
runs the same ONNX file, for information. The tables and the goals go into docs/runtimes.md; the exit status is 1 if a goal is missed.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from benchmarks.graph_speed import processor_name
from benchmarks.own_stand import PROJECT
from benchmarks.refresh_times import machine, place
from benchmarks.runtime_figures import (
    BARE,
    ONNX_FLOAT16,
    ONNX_FLOAT32,
    ONNX_INT8,
    ONNX_SERVER,
    SQUARE,
    STAND_IN,
    TENSORFLOW_GRAPH,
    Figures,
    Footprint,
    InProcess,
    Served,
    plan_goals,
    products_gflop,
    render,
)  # fmt: skip
from benchmarks.runtime_models import (
    FLOAT16_WEIGHTS,
    FLOAT32,
    INT8,
    ONNX,
    TENSORFLOW,
    Model,
    digits,
    exported,
    int8_of,
    python_of,
    vit_b16,
)
from benchmarks.runtime_servers import Server, body_of, first_answer_s, load, started, warm_resident_mib

PAGE = PROJECT / "docs" / "runtimes.md"
BEGIN, END = (
    "<!-- written by `make bench-runtimes`, which replaces all text between these marks -->",
    "<!-- end of make bench-runtimes -->",
)
ROUNDS, WARM = 7, 1
BATCHES, CONNECTIONS = (1, 8), (1, 4, 8)
THREADS = 1  # of the runs whose processor time is compared; the servers have a thread for each processor
SERVERS = {STAND_IN: TENSORFLOW, ONNX_SERVER: ONNX}
QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_USE_LEGACY_KERAS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
WORKER = Path(__file__).with_name("runtime_worker.py")
PACKAGES = {
    "model": ("tensorflow-cpu",), "onnx-server": ("onnxruntime",), "onnx": ("torch", "transformers"), "openvino": ("openvino",),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How a runtime is run in process: the interpreter's environment, and what runtime_worker.py calls it."""

    environment: str
    word: str
    precision: str = FLOAT32


RUNTIMES = {
    TENSORFLOW_GRAPH: Kind(environment="model", word="tensorflow"),
    ONNX_FLOAT32: Kind(environment="onnx-server", word="onnx"),
    BARE: Kind(environment="onnx-server", word="session"),
    ONNX_FLOAT16: Kind(environment="onnx-server", word="onnx", precision=FLOAT16_WEIGHTS),
    ONNX_INT8: Kind(environment="onnx-server", word="onnx", precision=INT8),
    "OpenVINO": Kind(environment="openvino", word="openvino"),
    "OpenVINO, its own precision": Kind(environment="openvino", word="openvino_own"),
}


class Worker:
    """A process that measures when it is asked, and waits otherwise."""

    def __init__(self, kind: Kind, folder: Path, threads: int, image: Path) -> None:
        """Start it."""
        command: list[str | Path] = [python_of(kind.environment), WORKER, kind.word, folder, str(threads), image]
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process: what libraries print, if it fails)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True, env=os.environ | QUIET
        )
        self._questions, self._answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)

    def ask(self, batch: int, calls: int) -> dict[str, Any]:
        """Measure so many calls. Raises RuntimeError if the process has ended."""
        with contextlib.suppress(BrokenPipeError):
            self._questions.write(json.dumps({"batch": batch, "calls": calls}) + "\n")
            self._questions.flush()
        line = self._answers.readline()
        if not line:
            self._said.seek(0)
            raise RuntimeError(f"{self._process.args!r} ended with status {self._process.wait()}: {self._said.read()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self._questions.close()
        self._process.wait()
        self._said.close()


def in_turn(names: Sequence[str], number: int) -> Sequence[str]:
    """The names in the order of this round."""
    return names if number % 2 == 0 else names[::-1]


def measure_in_process(
    model: Model, folders: Mapping[str, Path], threads: int, rounds: int
) -> tuple[list[InProcess], float]:
    """Ask all runtimes in turns, and the processor in between. Returns also the GFLOP for a second of one processor."""
    with ExitStack() as stack:

        def start(kind: Kind, folder: Path) -> Worker:
            worker = Worker(kind, folder, threads, model.image)
            stack.callback(worker.end)
            return worker

        workers = {name: start(RUNTIMES[name], folder) for name, folder in folders.items()}
        rate = start(Kind(environment="model", word="product"), Path())
        found: dict[tuple[str, int], list[dict[str, Any]]] = {
            (name, batch): [] for batch in BATCHES for name in workers
        }
        products = []
        for number in range(rounds + WARM):
            for batch in BATCHES:
                for name in in_turn(list(workers), number):
                    found[name, batch].append(workers[name].ask(batch, model.calls[batch]))
            products.append(rate.ask(1, 1)["cpu_ms"])
            say(f"{model.name}, {threads} threads, round {number + 1} of {rounds + WARM}")
    series = [
        InProcess(
            runtime=name, threads=threads, batch=batch, ms=tuple(tuple(one["ms"]) for one in seen[WARM:]),
            cpu_ms=tuple(one["cpu_ms"] for one in seen[WARM:]), answer=tuple(seen[-1]["answer"]) if seen[-1]["answer"] else None,
        )
        for (name, batch), seen in found.items()
    ]  # fmt: skip
    return series, 2 * SQUARE**3 / sorted(products[WARM:])[len(products[WARM:]) // 2] / 1e6


def measure_served(
    model: Model, contents: Mapping[str, Path], threads: int, rounds: int
) -> tuple[list[Served], dict[str, float]]:
    """Load both servers in turns. Returns also their resident memory afterwards, in MiB."""
    found: dict[tuple[str, int, int], list[Any]] = {
        (server, batch, count): [] for batch in BATCHES for count in CONNECTIONS for server in contents
    }
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for name, content in contents.items():
            servers[name] = stack.enter_context(started(SERVERS[name], content, threads))
            first_answer_s(servers[name], body_of(model.image, 1))
        for number in range(rounds + WARM):
            for batch in BATCHES:
                for count in CONNECTIONS:
                    for name in in_turn(list(servers), number):
                        requests = model.requests[batch] * count
                        one = load(servers[name], body_of(model.image, batch), connections=count, requests=requests)
                        found[name, batch, count].append(one)
            say(f"{model.name}, servers, round {number + 1} of {rounds + WARM}")
        resident = {name: server.resident_mib() for name, server in servers.items()}
    served = [
        Served(
            server=name, batch=batch, connections=count, ms=tuple(tuple(one.ms) for one in seen[WARM:]),
            cpu_ms=tuple(one.cpu_s * 1000 / len(one.ms) / batch for one in seen[WARM:]),
            per_s=tuple(len(one.ms) / one.wall_s for one in seen[WARM:]),
        )
        for (name, batch, count), seen in found.items()
    ]  # fmt: skip
    return served, resident


def measure_starts(
    model: Model, contents: Mapping[str, Path], threads: int, rounds: int
) -> Iterator[tuple[str, float, float]]:
    """By server and round: the seconds from the start to the first answer, and the resident memory after some more, in MiB."""
    body = body_of(model.image, 1)
    for number in range(rounds):
        for name in in_turn(list(contents), number):
            with started(SERVERS[name], contents[name], threads) as server:
                found = first_answer_s(server, body), warm_resident_mib(server, body)
            say(f"{model.name}, start {number + 1} of {rounds}: {name}, {found[0]:.1f} s, {found[1]:.0f} MiB")
            yield name, *found


def measure(model: Model, folder: Path, rounds: int, *, with_openvino: bool) -> Figures:
    """All figures of a model; exports it into the folder if that was not done."""
    folders = {
        name: exported(model, TENSORFLOW if kind.word == "tensorflow" else ONNX, folder, kind.precision)
        for name, kind in RUNTIMES.items()
        if with_openvino or kind.environment != "openvino"
    }
    int8 = int8_of(model, folder)  # before minutes of measuring
    contents = {STAND_IN: folders[TENSORFLOW_GRAPH], ONNX_SERVER: folders[ONNX_FLOAT32]}
    cores = len(os.sched_getaffinity(0))
    in_process, rates = [], {}
    for threads in sorted({THREADS, cores}):
        series, rates[threads] = measure_in_process(model, folders, threads, rounds)
        in_process += series
    served, resident = measure_served(model, contents, cores, rounds)
    starts = list(measure_starts(model, contents, cores, rounds))
    footprints = [
        Footprint(
            server=name, first_answer_s=tuple(seconds for one, seconds, _ in starts if one == name),
            warm_mib=tuple(mib for one, _, mib in starts if one == name), loaded_mib=resident[name],
        )
        for name in contents
    ]  # fmt: skip
    loaded = (name for name, kind in RUNTIMES.items() if kind.word in {"tensorflow", "onnx"})
    sizes = {name: megabytes(folders[name]) for name in loaded}
    return Figures(
        model=model.name, gflop=products_gflop(model.config, len(model.config["id2label"])), threads=cores,
        in_process=tuple(in_process), gflop_per_s=rates, served=tuple(served), footprints=tuple(footprints), file_mb=sizes,
        int8=int8,
    )  # fmt: skip


def megabytes(folder: Path) -> float:
    """The size of a folder's files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def versions(*, with_openvino: bool) -> str:
    """The versions of what is compared."""
    found = []
    for environment, names in PACKAGES.items():
        if environment != "openvino" or with_openvino:
            program = f"import importlib.metadata as m; print(*(n + ' ' + m.version(n) for n in {names!r}), sep=', ')"
            found.append(subprocess.check_output([python_of(environment), "-c", program], text=True).strip())
    return ", ".join(found)


def say(line: str) -> None:
    """Show how far it is."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(words: Sequence[str]) -> int:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(prog="make bench-runtimes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"(default {ROUNDS})")
    parser.add_argument(
        "--exports", type=Path, metavar="FOLDER", help="keep the exports there, or use those that are there"
    )
    parser.add_argument(
        "--short", action="store_true", help="one round of digits-vit without OpenVINO; the page is not changed"
    )
    parser.add_argument("--note", default="", help="a sentence for the page, such as what else the machine did")
    options = parser.parse_args(words)
    rounds = 1 if options.short else options.rounds
    with ExitStack() as stack:
        folder = options.exports or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        models: list[Figures] = []
        for name, model in (("vit", vit_b16), ("digits", digits)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            if name == "vit" and options.short:
                continue
            models.append(measure(model(folder / name), folder / name, rounds, with_openvino=not options.short))
    goals = plan_goals(models)
    text = render(
        models, goals, where=f"{processor_name()}, {machine()}", versions=versions(with_openvino=not options.short),
        note=options.note,
    )  # fmt: skip
    if not options.short:
        PAGE.write_text(place(PAGE.read_text(encoding="utf-8"), text, BEGIN, END), encoding="utf-8")
    say(text)
    return 0 if options.short or all(goal.is_met for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
