"""Makes the exporter's modules and this folder's helpers importable, and runs the trials that need TensorFlow."""

import http.server
import json
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXPORTER = HERE.parents[1] / "include" / "model"

sys.path += [str(EXPORTER), str(HERE)]


def run_trial(model_python, script, *arguments, path=()):
    """Run a script of this folder in the exporter's environment, with further folders of modules. Returns the JSON that it prints."""
    settings = {
        "PYTHONPATH": os.pathsep.join(map(str, (EXPORTER, *path))),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_USE_LEGACY_KERAS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    command = [model_python, HERE / script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **settings})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def preprocess_trial(model_python):
    """For each processor and image: the largest difference from 🤗's pixels, in levels of 0 to 255."""
    return run_trial(model_python, "preprocess_trial.py")


@pytest.fixture(scope="session")
def checkpoint_trial(model_python, tmp_path_factory):
    """For each kind of checkpoint: both answers to each photo, or the refusal; `other-signature` is a SavedModel."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return run_trial(model_python, "checkpoint_trial.py", folder) | {"other-signature": folder / "other-signature"}


@pytest.fixture(scope="session")
def xla_trial(model_python, tmp_path_factory):
    """For each SavedModel with and without marks for XLA: why it is refused, and its answer where XLA is refused."""
    return run_trial(model_python, "xla_trial.py", tmp_path_factory.mktemp("xla"))


@pytest.fixture(scope="session")
def faster_trial(model_python):
    """For each graph: how it was written anew, how far its answers are from the traced one's, and its products."""
    return run_trial(model_python, "faster_trial.py")


@pytest.fixture(scope="session")
def memory_trial(model_python, tmp_path_factory):
    """For each large file: why it is not decoded, and by how many times its size the peak memory grew."""
    return run_trial(model_python, "memory_trial.py", tmp_path_factory.mktemp("large"))


@pytest.fixture(scope="session")
def fuzz_trial(model_python, tmp_path_factory):
    """For each kind of damaged file: how many were accepted and refused, what went wrong, seconds and memory."""
    return run_trial(model_python, "fuzz_trial.py", tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="session")
def hostile_models(model_python, digits_checkpoint, tmp_path_factory):
    """Models that do more than compute, or take data from elsewhere: their folder, and why each is refused."""
    folder = tmp_path_factory.mktemp("hostile")
    return folder, run_trial(model_python, "hostile_trial.py", digits_checkpoint, folder)


@pytest.fixture
def web(tmp_path):
    """A folder of files served over HTTP on loopback: (folder, base URL)."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
