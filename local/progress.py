"""Progress output: the name of a step when it begins, its time when it ends."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Note = Callable[[str], None]


@contextlib.contextmanager
def step(title: str) -> Iterator[Note]:
    """Print `title`, run the block, then print the block's notes and the seconds it took."""
    began_s = time.monotonic()
    notes: list[str] = []
    _say(f"  {title:<22} ", end="")
    try:
        yield notes.append
    except BaseException:
        _say(f"stopped after {time.monotonic() - began_s:.1f} s")
        raise
    _say(f"{time.monotonic() - began_s:6.1f} s  {'; '.join(notes)}".rstrip())


def say(text: str) -> None:
    """Print one line and flush the output."""
    _say(text)


def _say(text: str, *, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()
