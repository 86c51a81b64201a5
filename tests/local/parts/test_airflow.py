"""The stand's Airflow: what its scheduler imports for all tasks."""

import subprocess
import sys

import pytest

from local.parts.airflow import COMPONENTS, PRELOADED, render_local_settings


@pytest.mark.parametrize(("command", "preloads"), [("scheduler", True), ("triggerer", False)])
def test_only_the_scheduler_preloads(tmp_path, command, preloads):
    """Tasks are forks of the scheduler; other processes do not pay for the imports."""
    settings = tmp_path / "airflow_local_settings.py"
    settings.write_text(render_local_settings())
    words = list(COMPONENTS[command])
    program = f"import sys, runpy; sys.argv[1:] = {words!r}; runpy.run_path({str(settings)!r}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert (set(PRELOADED) <= set(loaded)) is preloads
