import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from slipway.records.store import Store
from slipway.scratch import scratch_folder

HOLDS_A_FOLDER = """
import sys, tempfile
from slipway.scratch import scratch_folder
tempfile.tempdir = sys.argv[1]
with scratch_folder("export") as folder:
    (folder / "checkpoint").write_text("large")
    print(folder, flush=True)
    sys.stdin.read()
"""
HOLDS_A_DRAFT = """
import sys
from pathlib import Path
from slipway.records.store import _draft
with _draft(Path(sys.argv[1])) as draft:
    draft.write_text("half")
    print(draft, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def task(tmp_path):
    """Starts a process that holds a file or folder below a place; returns the process and the path."""
    started = []

    def start(program, place):
        path = os.pathsep.join(sys.path)
        process = subprocess.Popen(
            [sys.executable, "-c", program, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        started.append(process)
        return process, tmp_path / process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def kill(process):
    """Kill a process, without time to clean up."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_the_next_task_deletes_a_killed_tasks_folder(task, tmp_path, monkeypatch):
    """The next task that needs a temporary folder deletes a killed task's folder, and none that is in use."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (_, living), (process, killed) = (task(HOLDS_A_FOLDER, tmp_path) for _ in range(2))
    kill(process)
    other = tmp_path / "slipway-tests"
    other.mkdir()
    assert (killed / "checkpoint").exists()
    with scratch_folder("export") as outer, scratch_folder("layer") as inner:
        assert {path for path in tmp_path.iterdir() if path.is_dir()} == {living, other, outer, inner}
    assert (living / "checkpoint").exists()


def test_the_next_write_deletes_a_killed_tasks_draft(task, tmp_path):
    """A write into the same folder of the store deletes a killed task's draft, and none that is in use."""
    store = Store(f"file://{tmp_path}")
    (_, living), (process, killed) = (task(HOLDS_A_DRAFT, tmp_path / name) for name in ("one.json", "two.json"))
    kill(process)
    assert killed.exists()
    store.put_json({}, "three.json")
    assert {path.name for path in tmp_path.iterdir()} == {living.name, "three.json"}


def test_folders_in_use_are_kept_under_load(tmp_path, monkeypatch):
    """Tasks that start and end at the same time never delete each other's folders."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def use(number):
        with scratch_folder("many") as folder:
            (folder / "file").write_text(str(number))
            return (folder / "file").read_text() == str(number)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(use, range(400)))
    assert list(tmp_path.iterdir()) == []
