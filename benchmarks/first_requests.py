"""Measure the cost of the first request after a start, and of marking bad images: `make serving-times`.

digits-vit is exported with both settings of `on_bad_image`. The stand-in serves it as a process on this machine, with the
base Deployment's arguments, and is restarted several times. Before a measurement the server gets only status requests. The
first request and those that it is compared with are sent in the same way: each on its own connection, after the same pause.
The figures go into docs/model.md; the exit status is 1 if the first request is too slow.
"""

import argparse
import http.client
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import yaml

from benchmarks.own_stand import PROJECT
from benchmarks.refresh_times import machine, place

PAGE = PROJECT / "docs" / "model.md"
BEGIN, END = (
    "<!-- written by `make serving-times`, which replaces all text between these marks -->",
    "<!-- end -->",
)
MODEL = "digits-vit"
GOLDEN = {"three": "3", "seven": "7", "eight": "8"}
PREDICT = "/tensorflow.serving.PredictionService/Predict"
PAUSE_S = 0.25  # a server that was idle for that long is slower once, whether or not it is new
PAUSED, BUSY = 20, 40  # requests after the first: with that pause before each, and then without
MOST = 1.5  # the first may take this many times the median of the paused requests
START_LIMIT_S = 120
COLUMNS = (
    "request", "first", "later, after a pause", "later, without a pause", "first / later after a pause (least to most)",
    f"first over {MOST}", f"later after a pause over {MOST}",
)  # fmt: skip
COLD = "without warmup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The times after one start, in milliseconds: the first request, and the medians of later ones."""

    first: float
    paused: float  # after a pause, like the first
    busy: float  # without a pause
    slow: int  # how many of those after a pause took over MOST times their median

    @property
    def ratio(self) -> float:
        """The first request's time over the median of those after a pause."""
        return self.first / self.paused


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A stand-in's ports on loopback, and its process."""

    rest: int
    grpc: int
    pid: int = 0


def main(words: Sequence[str]) -> int:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(prog="make serving-times", description=__doc__)
    parser.add_argument("--starts", type=int, default=12, help="starts of each kind (default 12)")
    starts = parser.parse_args(words).starts
    measured: dict[str, list[Start]] = {}
    with tempfile.TemporaryDirectory() as folder:
        exports = {way: export(Path(folder), way) for way in ("refuse", "mark")}
        touch_grpc()
        for number in range(1, starts + 1):
            # All rows in turn, so that a busy minute of the machine affects each of them.
            for row, way, ask, flags in rows_of(exports):
                with served(exports[way], *base_arguments(), *flags) as server:
                    found = measure(lambda ask=ask, server=server: ask(server))  # type: ignore[misc]
                measured.setdefault(row, []).append(found)
                sys.stdout.write(f"start {number} of {starts}, {row}: {found}\n")
                sys.stdout.flush()
    PAGE.write_text(place(PAGE.read_text(), render(measured, machine()), BEGIN, END))
    slow = [row for row, found in measured.items() if COLD not in row and middle(found, "ratio") > MOST]
    sys.stdout.writelines(f"{row}: the first request takes over {MOST} times as long as later ones\n" for row in slow)
    return 1 if slow else 0


def rows_of(exports: Mapping[str, Path]) -> Iterator[tuple[str, str, Callable[[Server], None], tuple[str, ...]]]:
    """Each row's name, its setting of on_bad_image, its request, and the server's flags."""
    case = exports["refuse"] / "golden" / "three"
    [image] = json.loads((case / "rest.json").read_text())["instances"]
    one, four = rest_request([image]), rest_request([image] * 4)
    yield "REST, one image", "refuse", one, ()
    yield "REST, four images", "refuse", four, ()
    yield "gRPC, one image", "refuse", grpc_request((case / "grpc.bin").read_bytes()), ()
    yield f"REST, one image, {COLD}", "refuse", one, ("--enable_model_warmup=false",)
    yield "REST, one image, bad images marked", "mark", one, ()
    yield "REST, four images, bad images marked", "mark", four, ()


def export(folder: Path, way: str, checkpoint: Path | None = None) -> Path:
    """Export digits-vit with this setting of on_bad_image; another checkpoint of it if one is named."""
    source = PROJECT / "include" / "served" / MODEL
    request, out = folder / f"{way}.json", folder / way
    golden = [
        {"name": name, "image": str(source / "golden" / f"{name}.png"), "label": label, "min_confidence": 0.5}
        for name, label in GOLDEN.items()
    ]
    kept = {"kind": "folder", "path": str(checkpoint or source / "checkpoint")}
    settings = {"on_bad_image": way}
    request.write_text(json.dumps({"model": MODEL, "source": kept, "golden": golden, "settings": settings}))
    program = PROJECT / "include" / "model" / "export.py"
    subprocess.run([python_of("model"), program, "--request", request, "--out", out], check=True)
    return out


def python_of(environment: str) -> Path:
    """The interpreter of one of the project's environments."""
    built = subprocess.check_output([sys.executable, "-m", "local", "env", environment], text=True, cwd=PROJECT)
    return Path(built.splitlines()[-1]) / "bin" / "python"


def base_arguments() -> list[str]:
    """The server's arguments in the base Deployment, as the kubelet gives them to it."""
    file = PROJECT / "include" / "manifests" / "base" / "deployment.yaml"
    [container] = yaml.safe_load(file.read_text())["spec"]["template"]["spec"]["containers"]
    cpus = container["resources"]["requests"]["cpu"]
    mounted = next(one["mountPath"] for one in container["volumeMounts"] if "monitoring" in one["mountPath"])
    return [word.replace("$(CPUS)", cpus).replace(mounted, str(file.parent)) for word in container["args"]]


@contextmanager
def served(exported: Path, *flags: str, enter: Sequence[str] = (), version: int = 1) -> Iterator[Server]:
    """Run the stand-in with this export, as this version, until the block ends; it is AVAILABLE when the block begins.

    `enter` is a command that goes before the server's and becomes it.
    """
    with tempfile.TemporaryDirectory() as base:
        shutil.copytree(exported / "savedmodel", Path(base) / str(version))
        rest, grpc_port = free_port(), free_port()
        program = PROJECT / "local" / "serving" / "tensorflow_model_server.py"
        command = [
            *enter, str(python_of("serving")), str(program), f"--port={grpc_port}", f"--rest_api_port={rest}",
            f"--model_name={MODEL}", f"--model_base_path={base}", *flags,
        ]  # fmt: skip
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            server = Server(rest=rest, grpc=grpc_port, pid=process.pid)
            try:
                wait_until_available(server)
                yield server
            finally:
                process.kill()


def free_port() -> int:
    """A free port on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        return int(opened.getsockname()[1])


def wait_until_available(server: Server) -> None:
    """Poll the model's status until it is AVAILABLE; send nothing else."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        try:
            if b"AVAILABLE" in exchange(server, "GET", f"/v1/models/{MODEL}"):
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"the stand-in is not AVAILABLE after {START_LIMIT_S} s")


def exchange(server: Server, method: str, path: str, body: str | None = None) -> bytes:
    """Send one request on a new connection. Returns the body; raises RuntimeError if the status is not 200."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest, timeout=60)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise RuntimeError(content.decode())
    return content


def rest_request(images: Sequence[str]) -> Callable[[Server], None]:
    """A function that calls serving_default over REST."""
    body = json.dumps({"signature_name": "serving_default", "instances": list(images)})
    return lambda server: (exchange(server, "POST", f"/v1/models/{MODEL}:predict", body), None)[1]


def grpc_request(message: bytes) -> Callable[[Server], None]:
    """A function that calls Predict over gRPC, each time on a new connection."""

    def ask(server: Server) -> None:
        own = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc}", options=own) as channel:
            channel.unary_unary(PREDICT)(message, timeout=60)

    return ask


def touch_grpc() -> None:
    """Make this process load its gRPC code; nothing listens at this port."""
    try:
        grpc_request(b"")(Server(rest=0, grpc=free_port()))
    except grpc.RpcError:
        return


def measure(ask: Callable[[], None]) -> Start:
    """Time the first request, later ones after a pause, and later ones without a pause."""
    first, *paused = [milliseconds(ask, after_s=PAUSE_S) for _ in range(1 + PAUSED)]
    busy, usual = [milliseconds(ask) for _ in range(BUSY)], statistics.median(paused)
    slow = sum(one > MOST * usual for one in paused)
    return Start(first=first, paused=usual, busy=statistics.median(busy), slow=slow)


def milliseconds(ask: Callable[[], None], *, after_s: float = 0.0) -> float:
    """The request's time in milliseconds, sent after that pause."""
    time.sleep(after_s)
    began = time.perf_counter()
    ask()
    return (time.perf_counter() - began) * 1000


def middle(found: Sequence[Start], figure: str) -> float:
    """The median of this figure over the starts."""
    return statistics.median(float(getattr(one, figure)) for one in found)


def render(measured: Mapping[str, Sequence[Start]], where: str) -> str:
    """The table: a row per kind of request, with medians over the starts in milliseconds and the ratio of the first."""
    starts = len(next(iter(measured.values())))
    rows = [f"| {' | '.join(COLUMNS)} |", "| --- |" + " ---: |" * (len(COLUMNS) - 1)]
    for row, found in measured.items():
        times = " | ".join(f"{middle(found, figure):.1f}" for figure in ("first", "paused", "busy"))
        ratios = sorted(one.ratio for one in found)
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        first = f"{sum(ratio > MOST for ratio in ratios)} of {starts}"
        others = f"{sum(one.slow for one in found)} of {starts * PAUSED}"
        rows.append(f"| {row} | {times} | {spread} | {first} | {others} |")
    return f"Milliseconds, medians of {starts} starts, on {where}.\n\n" + "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
