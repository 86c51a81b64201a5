"""The stand-in for tensorflow/serving, and the ONNX server, as processes of this machine."""

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.local.ports import free_ports, is_open
from tests.local.serving.contract import MODEL, NAMES, Server

PROJECT = Path(__file__).parents[3]
GIVEN = (os.environ.get("SLIPWAY_SERVING_REST"), os.environ.get("SLIPWAY_SERVING_GRPC"))  # the addresses of a server
STAND_IN, ONNX = "stand-in", "onnx"
SERVERS = ["given"] if all(GIVEN) else [STAND_IN, ONNX]


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A server's process, its addresses, and the file that holds its log."""

    process: subprocess.Popen
    rest: str
    grpc: str
    log: Path


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """Starts a server's program with a Python interpreter on free ports, with further flags. It is killed at the end."""
    started = []

    def run(python, program, *flags, model_name=MODEL):
        ports = free_ports(2)
        log = tmp_path_factory.mktemp("serving") / "log"
        command = [
            python, PROJECT / program, f"--port={ports[0]}", f"--rest_api_port={ports[1]}",
            f"--model_name={model_name}", *flags,
        ]  # fmt: skip
        with log.open("w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        started.append(process)
        rest, address = f"http://127.0.0.1:{ports[1]}", f"127.0.0.1:{ports[0]}"
        return Process(process=process, rest=rest, grpc=address, log=log)

    yield run
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def start_stand_in(start, serving_python):
    """Starts the stand-in for tensorflow/serving, with further flags."""
    return partial(start, serving_python, "local/serving/tensorflow_model_server.py")


@pytest.fixture(scope="session")
def stand_in(start_stand_in, digits_export, tmp_path_factory):
    """A stand-in that serves version 7 of digits-vit. The base path also has version 3, which it does not serve."""
    return serve(start_stand_in, digits_export / "savedmodel", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def onnx_server(start, onnx_server_python, onnx_digits_export, tmp_path_factory):
    """The ONNX server with version 7 of the same model from the second exporter."""
    program = partial(start, onnx_server_python, "include/onnx_server/onnx_model_server.py")
    return serve(program, onnx_digits_export / "model", tmp_path_factory.mktemp("onnx-models"))


def serve(program, model, folder):
    """Start a server with a model as the versions 3 and 7, and wait until it is open."""
    base = folder / MODEL
    for version in ("3", "7"):
        shutil.copytree(model, base / version)
    server = program(f"--model_base_path={base}", "--max_num_load_retries=0")
    wait_until_open(server)
    return server


def wait_until_open(server, limit_s=600):
    """Wait until the server's REST port is open. If it never is, the failure shows the server's log."""
    deadline = time.monotonic() + limit_s
    while not is_open(server.rest):
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)


@pytest.fixture(scope="module", params=SERVERS)
def server(request):
    """The server at the addresses that the environment names; otherwise the stand-in, and then the ONNX server."""
    rest, address = GIVEN
    if request.param in {STAND_IN, ONNX}:
        process = request.getfixturevalue({STAND_IN: "stand_in", ONNX: "onnx_server"}[request.param])
        rest, address = process.rest, process.grpc
    status, body = Server(rest=rest, grpc=address, version=0).ask("GET", f"/v1/models/{MODEL}")
    assert status == 200, body
    return Server(rest=rest, grpc=address, version=int(body["model_version_status"][0]["version"]))


@pytest.fixture(scope="module")
def cases(digits_export):
    """Each golden case by name: its REST body, its gRPC request, and the expected answer."""
    return {
        name: {
            "rest": (digits_export / "golden" / name / "rest.json").read_bytes(),
            "grpc": (digits_export / "golden" / name / "grpc.bin").read_bytes(),
            "image": json.loads((digits_export / "golden" / name / "rest.json").read_text())["instances"][0],
            **json.loads((digits_export / "golden" / name / "case.json").read_text()),
        }
        for name in NAMES
    }
