"""Test a model server under load: constant rates one after another, then users that ask again at once. Every answer is checked.

REQUEST.json:
  {"target": {"rest": "http://127.20.1.1:8501" or null, "grpc": "127.20.1.1:8500" or null, "model": "digits-vit", "version": 3},
   "questions": [{"name": "three", "rest_body": "…", "grpc_request": "base64 of a PredictRequest",
                  "labels": ["3"], "confidence": 0.98, "tolerance": 0.01}], the last three optional: else the server's first answer counts
   "descriptors": "base64 of a FileDescriptorSet with TF Serving's messages",
   "plan": {"rates_per_s": [5, 10, 20], "closed_users": [4], "step_s": 20, "settle_s": 5},
   "beside": another target or null: needs "rounds" in the plan, in each of which every rate is asked of both, one after the other
   "objective": {"p95_ms": 200, "least_share": 0.95}, optional
   "grpc_share": 0.5, optional: of the users
   "elsewhere": true, optional: the server is not the live release, whose test --before is
   "keep_s": 5}, optional: a user opens a new connection after so many seconds, so that pods that are added get requests too

OUT, only after the test: load.json, load.png, report.html and locust_*.csv (Locust's own), samples.csv, request.json.
Status 0: the test ran, whatever its figures. 1: refused, or Locust failed.
It ends by itself after the last step, and at once when standard input ends (--end-with-stdin) or it is stopped.
On several machines: one runs it with --listen HOST:PORT --workers N, the N others with --worker HOST:PORT and the same request.
This program runs in its own environment, made from requirements.txt in this folder.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from load_errors import LoadRefused
from load_request import Request, read_request
from plot import draw
from samples import Sample, holds_up_to, step_figures

HERE = Path(__file__).parent
LOCUST = [
    sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--skip-log-setup", "--exit-code-on-error", "0",
]  # fmt: skip
ARRIVE_S = 120  # how long a master waits for its workers: a node may have to pull their image
GRACE_S = 90.0  # beyond the steps: start, questions before the load, answers that are still awaited, reports


def main(arguments: list[str] | None = None) -> int:
    """Test as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--request", type=Path, required=True, metavar="REQUEST.json")
    parser.add_argument("--out", type=Path, metavar="OUT", help="folder to make; must not exist yet")
    parser.add_argument("--workers", type=int, default=0, help="processes that send requests; 0: this one does")
    parser.add_argument("--listen", metavar="HOST:PORT", help="start no workers; they run elsewhere and connect here")
    parser.add_argument("--worker", metavar="HOST:PORT", help="only send requests, for the one that listens there")
    parser.add_argument("--print-figures", action="store_true", help="print load.json as the last line")
    parser.add_argument("--before", type=Path, metavar="load.json", help="another test's figures, for the same picture")
    parser.add_argument("--end-with-stdin", action="store_true", help="end everything when standard input ends")
    options = parser.parse_args(arguments)
    if options.out is None and not options.worker:
        parser.error("--out is missing")
    if options.listen and not options.workers:
        parser.error("--listen needs --workers")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        request = read_request(options.request)
        if options.worker:
            os.execve(sys.executable, worker_command(options.worker), environment_of(options.request))  # noqa: S606
        figures = run(request, options)
    except LoadRefused as refused:
        print(" ".join(str(refused).split()), file=sys.stderr)
        return 1
    print(summary(figures), flush=True)
    if options.print_figures:
        print(json.dumps(figures), flush=True)
    return 0


def run(request: Request, options: argparse.Namespace) -> dict[str, Any]:
    """Run the test and write the folder. Raises LoadRefused."""
    if options.out.exists():
        raise LoadRefused(f"{options.out}: exists already. Next: name a new folder with --out.")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{options.out.name}.", dir=options.out.parent) as name:
        partial = Path(name) / "out"
        partial.mkdir()
        began = time.time()
        samples = run_locust(request, options, partial)
        before = json.loads(options.before.read_text()) if options.before else None
        figures = describe(request, samples, began, before, workers=options.workers)
        write(partial, request, figures, samples, before)
        shutil.copyfile(options.request, partial / "request.json")
        partial.rename(options.out)
    return figures


def run_locust(request: Request, options: argparse.Namespace, partial: Path) -> list[Sample]:
    """Run Locust and its workers to their end. Raises LoadRefused with the last line that it printed on stderr."""
    samples = partial.parent / "samples.json"
    environment = {**environment_of(options.request), "SLIPWAY_LOAD_SAMPLES": str(samples)}
    head = [*LOCUST, "--headless", "--stop-timeout", "20", "--only-summary"]
    head += ["--html", str(partial / "report.html"), "--csv", str(partial / "locust")]
    listen = options.listen or f"127.0.0.1:{free_port()}"
    if options.workers:
        head += master_arguments(listen, options.workers)
    started: list[subprocess.Popen[str]] = []
    try:
        for number in range(0 if options.listen else options.workers):
            log = (partial.parent / f"worker-{number}").open("w")
            words = worker_command(listen)
            started.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log, text=True))
        process = subprocess.Popen(
            head, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, bufsize=1
        )
        started.insert(0, process)
        if options.end_with_stdin:
            threading.Thread(target=end_with_stdin, args=(started,), daemon=True).start()
        try:
            grace_s = GRACE_S + (ARRIVE_S if options.workers else 0)
            _, said = process.communicate(timeout=request.seconds + grace_s)
        except subprocess.TimeoutExpired as slow:
            raise LoadRefused(
                f"the test did not end {grace_s:g} s after its steps. Next: look at the server and this machine."
            ) from slow
    finally:
        for process in started:
            end(process)
    if "Gave up waiting for workers" in said:
        raise LoadRefused(f"{listen}: not {options.workers} workers within {ARRIVE_S} s. Next: look at their output.")
    if process.returncode or not samples.exists():
        raise LoadRefused(last_line(said) or f"Locust ended with status {process.returncode}. Next: run it by hand.")
    return [Sample(*one) for one in json.loads(samples.read_text())]


def environment_of(request: Path) -> dict[str, str]:
    """The environment of each of Locust's processes."""
    return {**os.environ, "SLIPWAY_LOAD": str(request), "PYTHONPATH": str(HERE)}


def master_arguments(listen: str, workers: int) -> list[str]:
    """Locust's arguments of a master that waits at HOST:PORT for so many workers."""
    host, _, port = listen.rpartition(":")
    waits = ["--expect-workers", str(workers), "--expect-workers-max-wait", str(ARRIVE_S)]
    return ["--master", "--master-bind-host", host, "--master-bind-port", port, *waits]


def worker_command(master: str) -> list[str]:
    """A worker of the master that listens at HOST:PORT. It tries to connect for five minutes."""
    host, _, port = master.rpartition(":")
    return [*LOCUST, "--worker", "--master-host", host, "--master-port", port]


def last_line(said: str) -> str:
    """The message of a refusal in what Locust printed, or its last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    refusals = [line.partition("LoadRefused: ")[2] for line in lines if "LoadRefused: " in line]
    return (refusals or lines or [""])[-1]


def end(process: subprocess.Popen[str]) -> None:
    """End a process that may have ended."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_with_stdin(started: list[subprocess.Popen[str]]) -> None:
    """End everything as soon as standard input ends."""
    while os.read(0, 4096):
        pass
    for process in started:
        process.kill()
    os._exit(143)


def free_port() -> int:
    """A port of the loopback address that is free now."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def describe(
    request: Request, samples: list[Sample], began: float, before: dict[str, Any] | None, *, workers: int
) -> dict[str, Any]:
    """The figures of the test, as load.json has them; and which test is in the same picture."""
    steps = [
        step_figures(step, (one for one in samples if one.step == number), request.objective)
        for number, step in enumerate(request.steps)
    ]
    other = request.targets[1:]
    return {
        "model": request.target.model,
        "version": request.target.version,
        "address": request.target.rest or request.target.grpc,
        "began": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
        "beside": {"address": other[0].rest or other[0].grpc, "version": other[0].version} if other else None,
        "elsewhere": request.elsewhere,
        "workers": max(1, workers),
        "before": {name: before[name] for name in ("version", "began")} if before else None,
        "questions": len(request.questions),
        "grpc_share": request.grpc_share,
        "keep_s": request.keep_s,
        "objective": {"p95_ms": request.objective.p95_ms, "least_share": request.objective.least_share},
        "steps": steps,
        "holds_up_to_per_s": holds_up_to(steps),
        "errors": sum(sum(step["errors"].values()) for step in steps),
        "tools": {name: version(name) for name in ("locust", "grpcio")},
    }


def write(
    folder: Path, request: Request, figures: dict[str, Any], samples: list[Sample], before: dict[str, Any] | None
) -> None:
    """Write the figures, the picture and every sample."""
    (folder / "load.json").write_text(json.dumps(figures, indent=1) + "\n")
    draw(figures, before, folder / "load.png", names=request.names)
    with (folder / "samples.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "began_s", "ms", "protocol", "wrong"])
        for one in samples:
            if one.step >= 0:
                name = request.steps[one.step].name
                writer.writerow([name, f"{one.began_s:.3f}", f"{one.ms:.2f}", one.protocol, one.wrong])


def summary(figures: dict[str, Any]) -> str:
    """A line for each step, and what it comes to."""
    lines = []
    for step in figures["steps"]:
        wrong = ", ".join(f"{count} times {kind}" for kind, count in step["errors"].items())
        times = f"p50 {step['p50_ms']} ms, p95 {step['p95_ms']} ms, p99 {step['p99_ms']} ms"
        said = f"errors: {wrong}" if wrong else times if step["p95_ms"] is not None else "no answer was measured"
        lines.append(f"{step['name']:>10}: {step['reached_per_s']:g}/s reached, {said}")
    best = figures["holds_up_to_per_s"]
    lines.append(
        "the objective held at no rate" if best is None else f"the objective held up to {best:g} requests a second"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
