"""The servers of the conformance suite: the stand-in and the ONNX server as processes, or an image on a Docker engine.

With SLIPWAY_CONFORMANCE_IMAGE the same cases run against that image instead (DOCKER_HOST names the engine): the real
`tensorflow/serving:2.20.0`, or the stand-in's own.
"""

import contextlib
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
IMAGE = os.environ.get("SLIPWAY_CONFORMANCE_IMAGE")
LIMIT_S = 120
IN_IMAGE = Path("/models")  # the suite's folder in a container
STAND_IN, ONNX = "stand-in", "onnx"
SERVERS = ["image"] if IMAGE else [STAND_IN, ONNX]
PROGRAMS = {
    STAND_IN: PROJECT / "local" / "serving" / "tensorflow_model_server.py",
    ONNX: PROJECT / "tests" / "conformance" / "numpy_models.py",
}

# What TensorFlow Serving does and the ONNX server does not: by the name of a test, or a part of its parameters. Each must fail.
NOT_ONNX = {
    "test_metadata_has_every_signature": "the signature __saved_model_init_op is a SavedModel's",
    "test_xla_is_refused": "nothing is compiled with XLA",
    'runtime_latency_bucket{model_name="sample",API="Predict",runtime="TF1"': "the runtime is ONNX, not TF1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A server as a process of this machine. It sees the suite's folder at its own path."""

    popen: subprocess.Popen
    log_file: Path
    rest: tuple[str, int]
    grpc: str
    root: Path

    def exit_code(self):
        """The exit status, or None while the server runs."""
        return self.popen.poll()

    def log(self):
        """The server's log."""
        return self.log_file.read_text()

    def end(self):
        """Kill the process."""
        self.popen.kill()
        self.popen.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """An image in a container. It sees the suite's folder at /models."""

    container: object
    rest: tuple[str, int]
    grpc: str
    root: Path = IN_IMAGE

    def exit_code(self):
        """The exit status, or None while the server runs."""
        self.container.reload()
        return self.container.attrs["State"]["ExitCode"] if self.container.status == "exited" else None

    def log(self):
        """The server's log."""
        return self.container.logs().decode()

    def end(self):
        """Remove the container."""
        self.container.remove(force=True)


def start_process(program, root, log_file, model, flags):
    """A program (its interpreter and its path) with these flags on free ports."""
    rest, grpc = free_port(), free_port()
    command = [
        *program, f"--port={grpc}", f"--rest_api_port={rest}",
        f"--model_name={model}", f"--model_base_path={root / model}", *flags,
    ]  # fmt: skip
    with log_file.open("w") as file:
        popen = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    return Process(popen=popen, log_file=log_file, rest=("127.0.0.1", rest), grpc=f"127.0.0.1:{grpc}", root=root)


def start_container(root, model, flags):
    """The image with these flags, at its address on the engine's bridge."""
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
    """A loopback port on which no process listens at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        return opened.getsockname()[1]


def wait_until(condition, server, limit_s=LIMIT_S):
    """Wait until the condition holds. If it never does, the failure shows the server's log."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.05)


def is_open(server):
    """True if the server's REST port is open."""
    with contextlib.suppress(OSError), socket.create_connection(server.rest, timeout=5):
        return True
    return False


def wait_until_open(server):
    """Wait until the server's REST port is open."""

    def opened():
        assert server.exit_code() is None, server.log()
        return is_open(server)

    wait_until(opened, server)
