"""Watches what a process of the exporter uses, and ends it if it uses more than its model file allows.

The exporter limits itself too (`include/model/process.py`): the kernel holds it to that between two looks. This watch also counts
what no limit of the kernel counts for one session: its processes and threads, and all bytes of its folder.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway.programs import end_program
from slipway.release import ExportLimits

LOOK_S = 0.5
MIB = 1024 * 1024
SESSION, USER_TICKS, SYSTEM_TICKS, THREADS, PAGES = 3, 11, 12, 17, 21  # places in /proc/PID/stat after the command


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a session's processes use."""

    memory_bytes: int = 0
    cpu_s: float = 0.0
    processes: int = 0  # and threads
    disk_bytes: int = 0


@dataclass(slots=True)
class Watch:
    """What the watch found: why it ended the process, if it did."""

    reason: str | None = None


@contextmanager
def within_limits(process: subprocess.Popen[str], limits: ExportLimits, folder: Path, disk: str) -> Iterator[Watch]:
    """Look at the process every LOOK_S during the block, and kill its group when it exceeds a limit.

    `disk` is the limit that the bytes below `folder` have: `disk_mib` or `download_mib`.
    """
    watch, ended = Watch(), threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_S) and process.poll() is None:
            watch.reason = judge_usage(measure(process.pid, folder), limits, disk)
            if watch.reason:
                end_program(process)
                return

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield watch
    finally:
        ended.set()
        looking.join()


def judge_usage(usage: Usage, limits: ExportLimits, disk: str) -> str | None:
    """Which limit is exceeded, and by how much; None if none is."""
    for name, used, most in (
        ("memory_mib", usage.memory_bytes // MIB, limits.memory_mib),
        ("cpu_s", int(usage.cpu_s), limits.cpu_s),
        ("processes", usage.processes, limits.processes),
        (disk, usage.disk_bytes // MIB, getattr(limits, disk)),
    ):
        if used > most:
            return f"{used} is more than export.limits.{name}, {most}"
    return None


def measure(session: int, folder: Path) -> Usage:
    """What the processes of a session use now, and the bytes below the folder."""
    found = list(_stats(session))
    page, ticks = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    return Usage(
        memory_bytes=sum(int(stat[PAGES]) for stat in found) * page,
        cpu_s=sum(int(stat[USER_TICKS]) + int(stat[SYSTEM_TICKS]) for stat in found) / ticks,
        processes=sum(int(stat[THREADS]) for stat in found),
        disk_bytes=_size(folder),
    )


def _stats(session: int) -> Iterator[list[str]]:
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            stat = place.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if stat[SESSION] == str(session):
            yield stat


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(place, name).lstat().st_size
            except FileNotFoundError:  # deleted between the two looks
                continue
    return total
