"""The listener that loads libraries in the scheduler."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import slipway
from slipway.dag.listener import FILE_SYSTEMS, LIBRARIES, on_starting

PROGRAM = """
import sys, threading
import airflow.jobs.job
from slipway.dag.listener import FILE_SYSTEMS, LIBRARIES
all_of_them = {*LIBRARIES, *FILE_SYSTEMS, "slipway.steps.plan"}
assert not all_of_them & set(sys.modules), "the module itself loads none of them"
before = threading.active_count()
airflow.jobs.job.Job()
print(len(all_of_them & set(sys.modules)), threading.active_count() - before)
"""


@pytest.mark.parametrize(("command", "loaded"), [("scheduler", len([*LIBRARIES, *FILE_SYSTEMS]) + 1), ("triggerer", 0)])
def test_only_the_scheduler_loads_them(command, loaded):
    """Airflow itself tells the listener of its job. Tasks are forked from the scheduler, so nothing may start a thread."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, command],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert done.stdout.split()[-2:] == [str(loaded), "0"]


def test_a_missing_library_stops_nothing(monkeypatch, caplog):
    """The task that needs it says what is missing."""
    monkeypatch.setattr("slipway.dag.listener.LIBRARIES", ("no_such_library",))
    on_starting(SimpleNamespace(job_type="SchedulerJob"))
    assert "no_such_library was not loaded for tasks: No module named 'no_such_library'" in caplog.text


FORK = """
import os, pathlib, sys
from types import SimpleNamespace
import slipway
from slipway.dag.listener import on_starting

def in_child():
    sys.stdout.flush()
    if os.fork() == 0:
        import slipway.verdict
        print("told" if hasattr(slipway.verdict, "told") else "as before", "slipway.steps.plan" in sys.modules, flush=True)
        os._exit(0)
    os.wait()

on_starting(SimpleNamespace(job_type="SchedulerJob"))
in_child()
file = pathlib.Path(slipway.__file__).with_name("verdict.py")
file.write_text(file.read_text() + "\\ntold = True\\n")
in_child()
"""


def test_code_that_changed_under_the_scheduler_is_read_again(tmp_path):
    """A task has all of Slipway loaded already; after a change of any file it has none of it, and loads what is there."""
    shutil.copytree(Path(slipway.__file__).parent, tmp_path / "slipway", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", FORK], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-2:] == ["as before True", "told False"]
