"""Makes the exporter's own modules importable here (those that need no TensorFlow), and runs the trials that do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXPORTER = HERE.parents[1] / "include" / "model"

sys.path.append(str(EXPORTER))


def run_trial(model_python, script, *arguments):
    """What a script beside this file prints, run in the exporter's environment with its modules at hand."""
    settings = {
        "PYTHONPATH": str(EXPORTER),
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
    """For each processor and image: the largest difference from 🤗's own, in levels of 0 to 255."""
    return run_trial(model_python, "preprocess_trial.py")


@pytest.fixture(scope="session")
def checkpoint_trial(model_python, tmp_path_factory):
    """For each kind of checkpoint: both answers to each photo, or the refusal; `other-signature` is a SavedModel."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return run_trial(model_python, "checkpoint_trial.py", folder) | {"other-signature": folder / "other-signature"}


@pytest.fixture(scope="session")
def memory_trial(model_python, tmp_path_factory):
    """For each large file: why it is not decoded, and how often its own size the peak of memory has grown by."""
    return run_trial(model_python, "memory_trial.py", tmp_path_factory.mktemp("large"))
