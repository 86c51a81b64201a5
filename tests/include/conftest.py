"""Makes the exporter's own modules importable here (those that need no TensorFlow), and runs the trials that do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

sys.path.append(str(HERE.parents[1] / "include" / "model"))


@pytest.fixture(scope="session")
def preprocess_trial(model_python):
    """For each processor and image: the largest and the mean difference from 🤗's own, in levels of 0 to 255."""
    done = subprocess.run([model_python, HERE / "preprocess_trial.py"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def checkpoint_trial(model_python, tmp_path_factory):
    """For each kind of checkpoint: both answers to each photo, or the refusal; `other-signature` is a SavedModel."""
    folder = tmp_path_factory.mktemp("checkpoints")
    command = [model_python, HERE / "checkpoint_trial.py", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout) | {"other-signature": folder / "other-signature"}
