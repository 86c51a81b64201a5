"""`make bench` in its short form, so that it keeps working. Its figures on a busy machine mean nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.refresh_report import CHECKED, DAG, DEFERRED, IDLE, SEED

PROJECT = Path(__file__).parents[2]
LIMIT_S = 3600

pytestmark = [pytest.mark.stand, pytest.mark.alone]


def test_short_form_measures_all_ways(stand, tmp_path):
    """One round of the DAG, of the scripts and of a run with nothing to do, each with its steps; the page stays as it is."""
    page = (PROJECT / "docs" / "benchmarks.md").read_text()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.refresh", "--short", "--json", tmp_path / "rounds.json"],
        cwd=PROJECT, env={**os.environ, "PYTHONPATH": "plugins"}, capture_output=True, text=True, check=False, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    [measured] = json.loads((tmp_path / "rounds.json").read_text())
    assert measured.keys() == {DAG, CHECKED, SEED, IDLE, DEFERRED}
    for way in (DAG, CHECKED, SEED):
        assert len(measured[way]["steps_s"]) >= 5
        assert measured[way]["whole_s"] > 0
    assert measured[IDLE]["steps_s"].keys() >= {"resolve", "plan"}
    assert "| the DAG |" in done.stdout
    assert page == (PROJECT / "docs" / "benchmarks.md").read_text()
