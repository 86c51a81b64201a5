"""Temporary folders of tasks, the removal of what killed tasks left, and the error of a full disk.

A process locks what it is writing for as long as it lives. What is not locked is abandoned: the next process that writes
there deletes it. On a file system without locks, abandoned files are kept.
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
    """A new folder below TMPDIR, deleted afterwards. Raises ScratchFull if the disk is full."""
    try:
        above = Path(tempfile.gettempdir())
    except FileNotFoundError as error:  # Python tried a small file in each candidate folder
        raise ScratchFull(f"temporary folder: {error.strerror}. Next: df -h, then free space or set TMPDIR") from error
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
    """Lock what this process has just created; False if another process deleted it as abandoned before."""
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
    """Delete the files and folders of these that no process holds."""
    for path in paths:
        with suppress(OSError):  # owned by another user, deleted, held, or without locks
            _remove_unheld(path)


def _remove_unheld(path: Path) -> None:
    file = _open(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        log.info("deleted what a killed task left: %s", path)
    finally:
        os.close(file)


def _open(path: Path) -> int:
    return os.open(path, (os.O_RDONLY if path.is_dir() else os.O_RDWR) | os.O_NOFOLLOW)


def scratch_full(folder: Path) -> ScratchFull:
    """The error of a temporary folder on a full disk."""
    return ScratchFull(
        f"temporary folder {folder}: {disk_is_full(folder)}. Next: free space there, or set the worker's TMPDIR to a larger disk; "
        "it holds the checkpoint, the exported model and its archive at once. Then clear the task"
    )


def is_full(error: BaseException) -> bool:
    """Whether an error means a full disk, or an exhausted disk quota."""
    return isinstance(error, OSError) and error.errno in FULL


def disk_is_full(folder: Path) -> str:
    """The message of a full disk, with its free space after the partial files were deleted."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    usage = shutil.disk_usage(there)
    return f"its disk is full: {usage.free // MIB} of {usage.total // MIB} MiB are free"
