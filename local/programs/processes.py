"""Finds and ends the stand's processes, by a variable in their environment."""

import contextlib
import os
import signal
import time
from pathlib import Path

from local.settings import MARK


def marked(mark: str) -> list[int]:
    """The ids of running processes whose environment has this mark."""
    wanted = f"{MARK}={mark}".encode()
    return [pid for pid in _pids() if pid != os.getpid() and wanted in _environment(pid)]


def end_processes(pids: list[int], *, patience_s: float = 10) -> None:
    """Send SIGTERM to these processes, and SIGKILL to those that still run after `patience_s`."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        end_s = time.monotonic() + patience_s
        while pids and time.monotonic() < end_s:
            pids = [pid for pid in pids if alive(pid)]
            time.sleep(0.1)


def end_marked(mark: str, *, patience_s: float = 10) -> int:
    """End every process that has the mark. Returns how many there were."""
    count = 0
    while pids := marked(mark):
        count += len(pids)
        end_processes(pids, patience_s=patience_s)
    return count


def alive(pid: int) -> bool:
    """True while the process runs. A zombie does not run."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0] != "Z"
        )
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return False


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and alive(int(entry.name))]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
