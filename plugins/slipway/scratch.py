"""A task's temporary folder, and what a disk that is full says in one line."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slipway.errors import ScratchFull

FULL = {errno.ENOSPC, errno.EDQUOT}
MIB = 1024 * 1024


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """A new folder below TMPDIR, gone afterwards with all that is in it. Raises ScratchFull where there is no room for it."""
    try:
        above = Path(tempfile.gettempdir())
    except FileNotFoundError as error:  # each place that there might be has been tried with a small file
        raise ScratchFull(f"temporary folder: {error.strerror}. Next: df -h, and make room or set TMPDIR") from error
    try:
        with tempfile.TemporaryDirectory(prefix=f"slipway-{purpose}-", dir=above) as folder:
            yield Path(folder)
    except OSError as error:
        if not is_full(error):
            raise
        raise scratch_full(above) from error


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
