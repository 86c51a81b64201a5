"""Training digits-vit: the shipped script makes a model as good as the shipped one."""

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.model, pytest.mark.slow]

SCRIPT = Path(__file__).parents[2] / "include" / "model" / "train_digits.py"


def test_retrained_digits_are_recognised(model_python, tmp_path):
    """Trained again from nothing, it knows 95 of 100 held-out digits, and its files are those that we ship."""
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
