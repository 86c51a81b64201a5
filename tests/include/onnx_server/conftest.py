"""Runs the trials that need Pillow, TensorFlow or the server's environment."""

from pathlib import Path

import pytest

from tests.include.conftest import run_trial

HERE = Path(__file__).parent
SERVER = HERE.parents[2] / "include" / "onnx_server"


@pytest.fixture(scope="session")
def decode_trial(model_python):
    """What the server and the graph say of the same files, and how near the server's pixels are to 🤗's."""
    return run_trial(model_python, HERE / "decode_trial.py", path=(SERVER, HERE.parent))
