"""The two servers as processes on this machine, and the loads of `make bench-runtimes`."""

import base64
import http.client
import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.first_requests import free_port
from benchmarks.runtime_models import ONNX, PROJECT, TENSORFLOW, python_of

PROGRAMS = {
    TENSORFLOW: ("serving", PROJECT / "local" / "serving" / "tensorflow_model_server.py"),
    ONNX: ("onnx-server", PROJECT / "include" / "onnx_server" / "onnx_model_server.py"),
}
NAME = "model"
START_LIMIT_S, ANSWER_LIMIT_S = 300, 120
LOOK_S = 0.02  # between two requests to a server that does not answer yet
WARM = 12  # requests before the memory of a new server is read
CPUCLOCK_SCHED = 2  # linux/posix-timers.h: a process's clock is ~PID << 3 with this
KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    port: int
    started_s: float  # by time.monotonic()

    def cpu_s(self) -> float:
        """The processor time that it has used."""
        return time.clock_gettime((~self.process.pid << 3) | CPUCLOCK_SCHED)

    def resident_mib(self) -> float:
        """Its resident memory."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        (found,) = [line for line in lines if line.startswith("VmRSS:")]
        return int(found.split()[1]) / KIB


@dataclass(slots=True)
class Load:
    """What a closed loop has measured: the clock's milliseconds of each request, and seconds in all."""

    ms: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_s: float = 0.0


@contextmanager
def started(runtime: str, content: Path, threads: int) -> Iterator[Server]:
    """Run a runtime's server with what it serves until the block ends. It may not be ready when the block begins."""
    environment, program = PROGRAMS[runtime]
    python = python_of(environment)
    with tempfile.TemporaryDirectory() as base:
        shutil.copytree(content, Path(base) / "1", copy_function=link)
        port = free_port()
        command = [
            str(python), str(program), f"--port={free_port()}", f"--rest_api_port={port}", f"--model_name={NAME}",
            f"--model_base_path={base}", f"--tensorflow_intra_op_parallelism={threads}",
            f"--tensorflow_inter_op_parallelism={threads}",
        ]  # fmt: skip
        began = time.monotonic()
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                yield Server(process=process, port=port, started_s=began)
            finally:
                process.kill()


def link(source: str, copy: str) -> None:
    """A second name of a file: copies of a large model would take disk and page cache."""
    try:
        Path(copy).hardlink_to(source)
    except OSError:  # another file system
        shutil.copy(source, copy)


def body_of(image: Path, batch: int) -> bytes:
    """A request to serving_default with the image so many times."""
    text = base64.urlsafe_b64encode(image.read_bytes()).decode()
    return json.dumps({"signature_name": "serving_default", "instances": [text] * batch}).encode()


def first_answer_s(server: Server, body: bytes) -> float:
    """Ask until the first answer. Returns the seconds since the server's start; raises TimeoutError or RuntimeError."""
    while time.monotonic() < server.started_s + START_LIMIT_S:
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.process.returncode}")
        try:
            ask(connect(server), body)
            return time.monotonic() - server.started_s
        except (OSError, http.client.HTTPException, RuntimeError):
            time.sleep(LOOK_S)
    raise TimeoutError(f"the server gives no answer within {START_LIMIT_S} s")


def warm_resident_mib(server: Server, body: bytes) -> float:
    """The server's resident memory after some requests, one at a time."""
    load(server, body, connections=1, requests=WARM)
    return server.resident_mib()


def load(server: Server, body: bytes, *, connections: int, requests: int) -> Load:
    """Send so many requests in all over these kept-alive connections, each in a closed loop. Raises RuntimeError for an error."""
    found, failed = Load(), []

    def loop() -> None:
        try:
            connection = connect(server)
            for _ in range(requests // connections):
                found.ms.append(ask(connection, body))
        except Exception as error:  # of any kind: it is raised in the caller's thread
            failed.append(error)

    loops = [threading.Thread(target=loop) for _ in range(connections)]
    began, cpu = time.monotonic(), server.cpu_s()
    for one in loops:
        one.start()
    for one in loops:
        one.join()
    found.wall_s, found.cpu_s = time.monotonic() - began, server.cpu_s() - cpu
    if failed:
        raise RuntimeError(f"the load ended early: {failed[0]}") from failed[0]
    return found


def connect(server: Server) -> http.client.HTTPConnection:
    """A connection to the REST port, opened with its first request."""
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_LIMIT_S)


def ask(connection: http.client.HTTPConnection, body: bytes) -> float:
    """Send a prediction. Returns the milliseconds until its answer; raises RuntimeError if it is an error."""
    began = time.perf_counter()
    connection.request("POST", f"/v1/models/{NAME}:predict", body)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != http.HTTPStatus.OK:
        raise RuntimeError(content.decode(errors="replace"))
    return (time.perf_counter() - began) * 1000
