"""The servers that the conformance suite asks: the stand-in as a process, or an image on a Docker engine.

With SLIPWAY_CONFORMANCE_IMAGE the same cases run against that image (DOCKER_HOST names the engine): the real
`tensorflow/serving:2.20.0`, or the stand-in's own.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
IMAGE = os.environ.get("SLIPWAY_CONFORMANCE_IMAGE")
LIMIT_S = 1200
IN_IMAGE = Path("/models")  # where the suite's folder is in a container


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The stand-in as a process of this machine; it sees the suite's folder where it is."""

    popen: subprocess.Popen
    log_file: Path
    rest: tuple[str, int]
    grpc: str
    root: Path

    def exit_code(self):
        """Its exit status, or None while it runs."""
        return self.popen.poll()

    def log(self):
        """What it said."""
        return self.log_file.read_text()

    def end(self):
        """Kill it."""
        self.popen.kill()
        self.popen.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """An image in a container; it sees the suite's folder at /models."""

    container: object
    rest: tuple[str, int]
    grpc: str
    root: Path = IN_IMAGE

    def exit_code(self):
        """Its exit status, or None while it runs."""
        self.container.reload()
        return self.container.attrs["State"]["ExitCode"] if self.container.status == "exited" else None

    def log(self):
        """What it said."""
        return self.container.logs().decode()

    def end(self):
        """Remove it."""
        self.container.remove(force=True)


def start_process(python, root, log_file, model, flags):
    """The stand-in with these flags on free ports."""
    rest, grpc = free_port(), free_port()
    command = [
        python, PROJECT / "local" / "serving" / "tensorflow_model_server.py", f"--port={grpc}", f"--rest_api_port={rest}",
        f"--model_name={model}", f"--model_base_path={root / model}", *flags,
    ]  # fmt: skip
    with log_file.open("w") as file:
        popen = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    return Process(popen=popen, log_file=log_file, rest=("127.0.0.1", rest), grpc=f"127.0.0.1:{grpc}", root=root)


def start_container(root, model, flags):
    """The image with these flags, reached by its address on the engine's bridge."""
    import docker

    container = docker.from_env().containers.run(
        IMAGE,
        command=list(flags),
        environment={"MODEL_NAME": model},
        volumes={str(root): {"bind": str(IN_IMAGE), "mode": "rw"}},
        detach=True,
    )
    container.reload()
    network = container.attrs["NetworkSettings"]
    address = network.get("IPAddress") or next(iter(network["Networks"].values()))["IPAddress"]
    return Container(container=container, rest=(address, 8501), grpc=f"{address}:8500")


def free_port():
    """A port of loopback that nobody listens on right now."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        return opened.getsockname()[1]


def wait_until(condition, server, limit_s=LIMIT_S):
    """Return when the condition holds; the server's log is the reason when it never does."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.05)


def is_open(server):
    """Whether the server's REST port is open."""
    with contextlib.suppress(OSError), socket.create_connection(server.rest, timeout=5):
        return True
    return False


def wait_until_open(server):
    """Return when the server's REST port is open."""

    def opened():
        assert server.exit_code() is None, server.log()
        return is_open(server)

    wait_until(opened, server)


@pytest.fixture(scope="session")
def root(model_python, tmp_path_factory):
    """The suite's folder: models that can be served and models that cannot, and configuration files."""
    folder = tmp_path_factory.mktemp("conformance")
    subprocess.run(
        [model_python, Path(__file__).with_name("savedmodels.py"), folder],
        check=True,
        capture_output=True,
        timeout=LIMIT_S,
    )
    (folder / "monitoring.txt").write_text("prometheus_config { enable: true }\n")
    (folder / "batching.txt").write_text(
        "max_batch_size { value: 2 }\nbatch_timeout_micros { value: 30000000 }\n"
        "max_enqueued_batches { value: 1 }\nnum_batch_threads { value: 1 }\nallowed_batch_sizes: 2\n"
    )
    (folder / "unknown-field.txt").write_text("max_batch_sizes { value: 2 }\n")
    return folder


@pytest.fixture(scope="session")
def start(root, request, tmp_path_factory):
    """Starts a server of that model; in flags, `{root}` is the suite's folder as the server sees it."""
    started = []

    def run(model, *flags):
        given = [flag.format(root=IN_IMAGE if IMAGE else root) for flag in flags]
        if IMAGE:
            server = start_container(root, model, given)
        else:
            python = request.getfixturevalue("serving_python")
            server = start_process(python, root, tmp_path_factory.mktemp("server") / "log", model, given)
        started.append(server)
        return server

    yield run
    for server in started:
        server.end()


@pytest.fixture(scope="session")
def sample(start):
    """The server of `sample` with metrics and a short REST time limit, open."""
    server = start("sample", "--monitoring_config_file={root}/monitoring.txt", "--rest_api_timeout_in_ms=2000")
    wait_until_open(server)
    return server


@pytest.fixture(scope="session")
def batching(start):
    """A server that merges two rows into a batch and waits half a minute for the second."""
    server = start(
        "plain", "--enable_batching", "--batching_parameters_file={root}/batching.txt",
        "--monitoring_config_file={root}/monitoring.txt",
    )  # fmt: skip
    wait_until_open(server)
    return server


@pytest.fixture(scope="session")
def refused(start):
    """Servers that cannot start, by name; all are on their way at once, since each takes seconds."""
    once = "--max_num_load_retries=0"
    wanted = {
        "broken": ("broken", once),
        "warmup-unreadable": ("warmup-unreadable", once),
        "warmup-no-tfrecord": ("warmup-no-tfrecord", once),
        "warmup-failing": ("warmup-failing", once),
        "warmup-too-many": ("warmup-too-many", once),
        "warmup-large": ("warmup-large", once, "--enable_batching", "--batching_parameters_file={root}/batching.txt"),
        "no number": ("plain", "--grpc_max_threads=many"),
        "batching file alone": ("plain", "--batching_parameters_file={root}/batching.txt"),
        "no batching file": ("plain", "--enable_batching", "--batching_parameters_file={root}/nowhere.txt"),
        "unknown field": ("plain", "--enable_batching", "--batching_parameters_file={root}/unknown-field.txt"),
    }
    return {name: start(*arguments) for name, arguments in wanted.items()}


@pytest.fixture
def mend(root):
    """Makes a version of that model out of `plain`'s files, complete at once."""

    def copy(model, version):
        there = root / model / version
        shutil.copytree(root / "plain" / "00007", there.with_name(f"arriving-{version}"))
        shutil.rmtree(there, ignore_errors=True)
        there.with_name(f"arriving-{version}").rename(there)

    return copy
