"""Runs the trials that need Pillow, TensorFlow or the server's environment."""

from pathlib import Path

import pytest

from tests.conformance.servers import start_process, wait_until_open
from tests.include.conftest import run_trial
from tests.include.onnx_server.colours import write_model

HERE = Path(__file__).parent
SERVER = HERE.parents[2] / "include" / "onnx_server"
PROGRAM = SERVER / "onnx_model_server.py"


@pytest.fixture(scope="session")
def decode_trial(model_python):
    """What the server and the graph say of the same files, and how near the server's pixels are to 🤗's."""
    return run_trial(model_python, HERE / "decode_trial.py", path=(SERVER, HERE.parent))


@pytest.fixture(scope="session")
def start(onnx_server_python, tmp_path_factory):
    """Starts the server of the model `colours` with changes to its description. In flags, `{root}` is the folder above the model's."""
    started = []

    def run(*flags, program=PROGRAM, **changes):
        root = tmp_path_factory.mktemp("served")
        (root / "monitoring.txt").write_text("prometheus_config { enable: true }\n")
        write_model(root / "colours", **changes)
        given = [flag.format(root=root) for flag in flags]
        metrics = f"--monitoring_config_file={root}/monitoring.txt"
        once = "--max_num_load_retries=0"
        server = start_process((onnx_server_python, program), root, root / "log", "colours", [once, metrics, *given])
        started.append(server)
        return server

    yield run
    for server in started:
        server.end()


@pytest.fixture(scope="session")
def colours(start):
    """A running server of `colours`."""
    server = start()
    wait_until_open(server)
    return server


@pytest.fixture(scope="session")
def marking(start):
    """A running server of `colours` that marks bad images."""
    server = start(on_bad_image="mark")
    wait_until_open(server)
    return server
