"""Training digits-vit: the script that ships makes a model as accurate as the one that ships."""

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.model, pytest.mark.slow]

SCRIPT = Path(__file__).parents[2] / "include" / "model" / "train_digits.py"


def test_retrained_model_is_as_accurate(model_python, tmp_path):
    """A newly trained model classifies 95 of 100 held-out digits correctly, and has the same files as the one that ships."""
    done = subprocess.run(
        [model_python, SCRIPT, "--out", tmp_path], capture_output=True, text=True, check=False, timeout=3600
    )
    assert done.returncode == 0, done.stderr
    accuracy = float(re.search(r"held-out accuracy: ([\d.]+) \(297 digits\)", done.stdout)[1])
    assert accuracy >= 0.95
    shipped = SCRIPT.parents[1] / "served" / "digits-vit"
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert made == {str(path.relative_to(shipped)) for path in shipped.rglob("*") if path.is_file()}
    assert (tmp_path / "checkpoint" / "model.safetensors").stat().st_size < 1_000_000
