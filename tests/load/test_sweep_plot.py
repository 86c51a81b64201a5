"""The picture of a sweep, drawn in the load test's environment."""

import json
import subprocess
from pathlib import Path

import pytest

PLOT = Path(__file__).parents[2] / "include" / "load" / "sweep_plot.py"

pytestmark = pytest.mark.model  # it needs an environment of its own


def row(variant, mean=None, *, per_cpu_s=None, holds=True):
    """A row of the table."""

    def figure(value):
        return value and {"mean": value, "low": value - 1, "high": value + 1}

    return {
        "variant": variant, "p95_ms": figure(mean), "most_per_s": figure(mean), "per_cpu_s": per_cpu_s and {"mean": per_cpu_s, "low": None, "high": None}, "holds": holds,
    }  # fmt: skip


@pytest.mark.parametrize("per_cpu_s", [None, 12.0], ids=["CPU unknown", "CPU known"])
def test_picture(load_python, tmp_path, per_cpu_s):
    """Of variants that hold the objective, that do not, and that were not measured."""
    rows = [row("local", 40, per_cpu_s=per_cpu_s), row("seed", 90, per_cpu_s=per_cpu_s, holds=False), row("too large")]
    figures = {
        "model": "vit", "version": 7, "rate_per_s": 5, "closed_users": 4, "objective": {"p95_ms": 60}, "rows": rows, "recommended": "local",
    }  # fmt: skip
    (tmp_path / "sweep.json").write_text(json.dumps(figures))
    words = [load_python, PLOT, "--figures", tmp_path / "sweep.json", "--out", tmp_path / "sweep.png"]
    done = subprocess.run([*words, "--end-with-stdin"], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
