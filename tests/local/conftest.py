"""What the tests of the stand share."""

import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


# --- the stand-in server as a local process ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """A stand-in server's process, its addresses, and the file that holds its log."""

    process: subprocess.Popen
    rest: str
    grpc: str
    log: Path


@pytest.fixture(scope="session")
def start_stand_in(serving_python, tmp_path_factory):
    """Starts the stand-in for tensorflow/serving on free ports, with more flags; it is killed at the end."""
    started = []

    def start(*flags, model_name="digits-vit"):
        ports = free_ports(2)
        log = tmp_path_factory.mktemp("serving") / "log"
        command = [
            serving_python, PROJECT / "local" / "serving" / "tensorflow_model_server.py", f"--port={ports[0]}",
            f"--rest_api_port={ports[1]}", f"--model_name={model_name}", *flags,
        ]  # fmt: skip
        with log.open("w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        started.append(process)
        rest, address = f"http://127.0.0.1:{ports[1]}", f"127.0.0.1:{ports[0]}"
        return StandIn(process=process, rest=rest, grpc=address, log=log)

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def stand_in(start_stand_in, digits_export, tmp_path_factory):
    """The stand-in with digits-vit loaded: version 7, beside a smaller one that it does not serve."""
    base = tmp_path_factory.mktemp("models") / "digits-vit"
    for version in ("3", "7"):
        shutil.copytree(digits_export / "savedmodel", base / version)
    server = start_stand_in(f"--model_base_path={base}", "--max_num_load_retries=0")
    wait_until_open(server)
    return server


def free_ports(count):
    """Ports of loopback that nobody listens on right now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def is_open(address):
    """Whether somebody listens at host:port."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((host, int(port))) == 0


def wait_until_open(server, limit_s=600):
    """Return when the server's REST port is open; its log is the reason when it never is."""
    deadline = time.monotonic() + limit_s
    while not is_open(server.rest):
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)
