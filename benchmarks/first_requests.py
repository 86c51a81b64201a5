"""What the first request after a start costs, and what marking bad images costs: `make serving-times`.

digits-vit is exported in both ways of meeting a bad image, and served by the stand-in as processes on this machine, started
anew several times. A server is asked nothing but its status before it is measured. The medians go into docs/model.md.
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

from benchmarks.own_stand import PROJECT
from benchmarks.refresh_times import machine, place

PAGE = PROJECT / "docs" / "model.md"
BEGIN, END = (
    "<!-- measured by `make serving-times`; what stands between these marks is written over -->",
    "<!-- end -->",
)
MODEL = "digits-vit"
GOLDEN = {"three": "3", "seven": "7", "eight": "8"}
PREDICT = "/tensorflow.serving.PredictionService/Predict"
REQUESTS = 60
PAUSES, PAUSE_S = 3, 1.0  # a server that has rested that long is slower once, whether or not it is new
START_LIMIT_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What was measured after one start, in milliseconds."""

    first: float
    rested: float  # the median of those after a pause
    median: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A stand-in's ports on loopback."""

    rest: int
    grpc: int


def main(words: Sequence[str]) -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(prog="make serving-times", description=__doc__)
    parser.add_argument("--starts", type=int, default=5, help="starts of each kind (default 5)")
    starts = parser.parse_args(words).starts
    measured: dict[str, list[Start]] = {}
    with tempfile.TemporaryDirectory() as folder:
        exports = {way: export(Path(folder), way) for way in ("refuse", "mark")}
        touch_grpc()
        for row, way, ask, flags in rows_of(exports):
            measured[row] = []
            for number in range(1, starts + 1):
                with served(exports[way], *flags) as server:
                    measured[row].append(measure(lambda ask=ask, server=server: ask(server)))  # type: ignore[misc]
                sys.stdout.write(f"{row}, start {number} of {starts}: {measured[row][-1]}\n")
                sys.stdout.flush()
    PAGE.write_text(place(PAGE.read_text(), render(measured, machine()), BEGIN, END))
    return 0


def rows_of(exports: Mapping[str, Path]) -> Iterator[tuple[str, str, Callable[[Server], None], tuple[str, ...]]]:
    """What is measured: the row's name, the way of meeting bad images, the request, and the server's flags."""
    case = exports["refuse"] / "golden" / "three"
    [image] = json.loads((case / "rest.json").read_text())["instances"]
    one, four = rest_request([image]), rest_request([image] * 4)
    yield "REST, one image", "refuse", one, ()
    yield "REST, four images", "refuse", four, ()
    yield "gRPC, one image", "refuse", grpc_request((case / "grpc.bin").read_bytes()), ()
    yield "REST, one image, records not replayed", "refuse", one, ("--enable_model_warmup=false",)
    yield "REST, one image, bad ones marked", "mark", one, ()
    yield "REST, four images, bad ones marked", "mark", four, ()


def export(folder: Path, way: str) -> Path:
    """digits-vit's export."""
    source = PROJECT / "include" / "served" / MODEL
    request, out = folder / f"{way}.json", folder / way
    golden = [
        {"name": name, "image": str(source / "golden" / f"{name}.png"), "label": label, "min_confidence": 0.5}
        for name, label in GOLDEN.items()
    ]
    checkpoint = {"kind": "folder", "path": str(source / "checkpoint")}
    settings = {"on_bad_image": way}
    request.write_text(json.dumps({"model": MODEL, "source": checkpoint, "golden": golden, "settings": settings}))
    program = PROJECT / "include" / "model" / "export.py"
    subprocess.run([python_of("model"), program, "--request", request, "--out", out], check=True)
    return out


def python_of(environment: str) -> Path:
    """The interpreter of one of the project's environments."""
    built = subprocess.check_output([sys.executable, "-m", "local", "env", environment], text=True, cwd=PROJECT)
    return Path(built.splitlines()[-1]) / "bin" / "python"


@contextmanager
def served(exported: Path, *flags: str) -> Iterator[Server]:
    """The stand-in with that export, AVAILABLE; killed afterwards."""
    with tempfile.TemporaryDirectory() as base:
        shutil.copytree(exported / "savedmodel", Path(base) / "1")
        server = Server(rest=free_port(), grpc=free_port())
        program = PROJECT / "local" / "serving" / "tensorflow_model_server.py"
        command = [
            str(python_of("serving")), str(program), f"--port={server.grpc}", f"--rest_api_port={server.rest}",
            f"--model_name={MODEL}", f"--model_base_path={base}", *flags,
        ]  # fmt: skip
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                wait_until_available(server)
                yield server
            finally:
                process.kill()


def free_port() -> int:
    """A port of loopback that nobody listens on right now."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        return int(opened.getsockname()[1])


def wait_until_available(server: Server) -> None:
    """Ask for the model's status until it is AVAILABLE; nothing else is asked."""
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
    """One request on a connection of its own; the answer's body. Raises RuntimeError where it is not 200."""
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
    """Asks serving_default over REST."""
    body = json.dumps({"signature_name": "serving_default", "instances": list(images)})
    return lambda server: (exchange(server, "POST", f"/v1/models/{MODEL}:predict", body), None)[1]


def grpc_request(message: bytes) -> Callable[[Server], None]:
    """Asks over gRPC, each time on a connection of its own."""

    def ask(server: Server) -> None:
        own = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc}", options=own) as channel:
            channel.unary_unary(PREDICT)(message, timeout=60)

    return ask


def touch_grpc() -> None:
    """Have this process load what it needs for gRPC: nobody listens there."""
    try:
        grpc_request(b"")(Server(rest=0, grpc=free_port()))
    except grpc.RpcError:
        return


def measure(ask: Callable[[], None]) -> Start:
    """The first request, many without a pause, and some after one."""
    first = milliseconds(ask)
    median = statistics.median(milliseconds(ask) for _ in range(REQUESTS - 1))
    rested = []
    for _ in range(PAUSES):
        time.sleep(PAUSE_S)
        rested.append(milliseconds(ask))
    return Start(first=first, rested=statistics.median(rested), median=median)


def milliseconds(ask: Callable[[], None]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    ask()
    return (time.perf_counter() - began) * 1000


def render(measured: Mapping[str, Sequence[Start]], where: str) -> str:
    """The table: a row for what is asked; medians over the starts, in milliseconds, and how the first compares."""
    starts = len(next(iter(measured.values())))
    rows = [
        "| asked | first | after a pause | without a pause | first to the last (least to most) |",
        "| --- |" + " ---: |" * 4,
    ]
    for row, found in measured.items():
        ratios = [one.first / one.median for one in found]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        columns = [[one.first for one in found], [one.rested for one in found], [one.median for one in found]]
        rows.append(f"| {row} | {' | '.join(f'{statistics.median(column):.1f}' for column in columns)} | {ratio} |")
    return f"Milliseconds, the medians of {starts} starts, on {where}.\n\n" + "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
