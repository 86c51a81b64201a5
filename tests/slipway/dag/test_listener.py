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
import sys
from types import SimpleNamespace
from slipway.dag.listener import FILE_SYSTEMS, LIBRARIES, on_starting
assert not {*LIBRARIES, *FILE_SYSTEMS} & set(sys.modules), "the module itself loads none of them"
import threading
before = threading.active_count()
on_starting(SimpleNamespace(job_type=sys.argv[1]))
print(sum(library in sys.modules for library in (*LIBRARIES, *FILE_SYSTEMS)), threading.active_count() - before)
"""


@pytest.mark.parametrize(("part", "loaded"), [("SchedulerJob", len([*LIBRARIES, *FILE_SYSTEMS])), ("TriggererJob", 0)])
def test_only_the_scheduler_loads_them(part, loaded):
    """Its tasks are forked from it, so none of the libraries may start a thread."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "plugins")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, part], env=environment, capture_output=True, text=True, timeout=600, check=True
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
