"""Locks between checkouts and between commands.

`shared` is held shared by every running checkout (a process of its supervisor holds it) and taken exclusively by what
stops a shared part. `change` is held for as long as a command changes shared parts, so that two commands never do at once.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from local.settings import Settings


def shared_lock(settings: Settings) -> Path:
    """The file whose shared lock says that a checkout uses the shared parts."""
    return settings.run / "shared.lock"


def command_lock(settings: Settings) -> Path:
    """The file whose lock says that a command is bringing this checkout up or down."""
    return settings.run / f"{settings.checkout_id}.lock"


def change_lock(settings: Settings) -> Path:
    """The file whose lock says that a command is changing the shared parts."""
    return settings.run / "change.lock"


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock on the file, waiting for it as long as it takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def locked_at_once(path: Path) -> Iterator[bool]:
    """Take the lock exclusively, or yield False at once when somebody holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
