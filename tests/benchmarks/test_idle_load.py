"""What an idle Airflow costs; `make bench-idle` measures it."""

import os
import subprocess
import sys

from benchmarks.idle_load import render, tree_s

BUSY = "import time\nend_s = time.process_time() + 0.2\nwhile time.process_time() < end_s: pass"
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BUSY!r}], check=True)
alive = subprocess.Popen([sys.executable, "-c", {BUSY!r} + "\\nprint(flush=True)\\nsys = input()"], stdin=subprocess.PIPE)
input()
"""


def test_processes_below_count_while_they_live_and_after():
    """A parse of the DAG file is a process that ends: its time is the DAG processor's."""
    started = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        started.stdout.readline()  # from the child that lives, once it has been busy; the other one has ended
        assert tree_s(started.pid) >= 0.4
    finally:
        started.communicate(b"\n")
    assert tree_s(os.getpid()) > 0


def test_table_has_a_row_for_each_fleet():
    """Seconds in a minute, with one decimal."""
    lines = render(
        {1: {"scheduler": 2.04, "dag-processor": 1.0}, 100: {"scheduler": 3.0, "dag-processor": 9.96}}, 3, "x"
    )
    assert lines.splitlines()[-2:] == ["| 1 | 2 | 2.0 | 1.0 |", "| 100 | 200 | 3.0 | 10.0 |"]
