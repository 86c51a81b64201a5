"""A task's temporary folder, what a killed task left of its own, and what a disk that is full says in one line.

What a task writes before it is whole is locked for as long as the process lives: what is not locked has been abandoned,
and the next who writes there removes it. A file system without locks keeps what was abandoned.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slipway.errors import ScratchFull

FULL = {errno.ENOSPC, errno.EDQUOT}
MIB = 1024 * 1024
PREFIX = "slipway-task-"

log = logging.getLogger(__name__)


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """A new folder below TMPDIR, gone afterwards with all that is in it. Raises ScratchFull where there is no room for it."""
    try:
        above = Path(tempfile.gettempdir())
    except FileNotFoundError as error:  # each place that there might be has been tried with a small file
        raise ScratchFull(f"temporary folder: {error.strerror}. Next: df -h, and make room or set TMPDIR") from error
    try:
        remove_abandoned(above.glob(f"{PREFIX}*"))
        with _own_folder(above, purpose) as folder:
            yield folder
    except OSError as error:
        if not is_full(error):
            raise
        raise scratch_full(above) from error


@contextmanager
def _own_folder(above: Path, purpose: str) -> Iterator[Path]:
    while True:
        own = tempfile.TemporaryDirectory(prefix=f"{PREFIX}{purpose}-", dir=above, ignore_cleanup_errors=True)
        with own as name, held(Path(name)) as ours:
            if ours:
                yield Path(name)
                return


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold what this process has just made; False where somebody took it for abandoned before it was held."""
    file = None
    with suppress(FileNotFoundError):
        file = _open(path)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield file is not None and path.exists()
    finally:
        if file is not None:
            os.close(file)


def remove_abandoned(paths: Iterable[Path]) -> None:
    """Remove those of these files and folders that nobody holds."""
    for path in paths:
        with suppress(OSError):  # another user's, gone, held, or without locks
            _remove_unheld(path)


def _remove_unheld(path: Path) -> None:
    file = _open(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        log.info("removed what a killed task left: %s", path)
    finally:
        os.close(file)


def _open(path: Path) -> int:
    return os.open(path, (os.O_RDONLY if path.is_dir() else os.O_RDWR) | os.O_NOFOLLOW)


def scratch_full(folder: Path) -> ScratchFull:
    """The error of a temporary folder without room."""
    return ScratchFull(
        f"temporary folder {folder}: {no_room(folder)}. Next: make room there, or set the worker's TMPDIR to a larger disk; "
        "it holds the checkpoint, the SavedModel and its archive at once. Then clear the task"
    )


def is_full(error: BaseException) -> bool:
    """Whether an error is that of a full disk, or of a quota that is used up."""
    return isinstance(error, OSError) and error.errno in FULL


def no_room(folder: Path) -> str:
    """What a full disk is to people: how much of it is free, now that what was half written is gone."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    usage = shutil.disk_usage(there)
    return f"its disk is full: {usage.free // MIB} of {usage.total // MIB} MiB are free"
