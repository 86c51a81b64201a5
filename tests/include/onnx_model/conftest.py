"""Makes the second exporter's modules importable, and runs the trials that need its environment."""

import sys
from pathlib import Path

import pytest

from tests.include.conftest import run_trial

HERE = Path(__file__).parent
INCLUDE = HERE.parents[2] / "include"
CODE = (INCLUDE / "onnx_model", INCLUDE / "onnx_server")

sys.path += [str(folder) for folder in CODE if str(folder) not in sys.path]


@pytest.fixture(scope="session")
def checkpoints_trial(onnx_python, digits_checkpoint, tmp_path_factory):
    """For each checkpoint with something wrong: why it is refused; and what else the script says."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return run_trial(onnx_python, HERE / "checkpoints_trial.py", digits_checkpoint, folder, path=CODE)


@pytest.fixture(scope="session")
def pixels_trial(onnx_python):
    """For each processor and each of 🤗's libraries for it: the largest difference of the server's values, in levels of 0 to 255."""
    return run_trial(onnx_python, HERE / "pixels_trial.py", path=CODE)
