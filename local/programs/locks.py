"""Locks between checkouts and between commands.

Every running checkout holds `shared` in shared mode, through a process of its supervisor. A command that stops a shared
part takes it exclusively. A command holds `change` while it changes shared parts, so that only one command does so.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from local.settings import Settings


def shared_lock(settings: Settings) -> Path:
    """The lock file that each running checkout holds in shared mode."""
    return settings.run / "shared.lock"


def command_lock(settings: Settings) -> Path:
    """The lock file of `up` and `down` of this checkout."""
    return settings.run / f"{settings.checkout_id}.lock"


def change_lock(settings: Settings) -> Path:
    """The lock file of commands that change the shared parts."""
    return settings.run / "change.lock"


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock on the file. Waits for it without a limit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def locked_at_once(path: Path) -> Iterator[bool]:
    """Yield True with the exclusive lock held, or False at once if another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
