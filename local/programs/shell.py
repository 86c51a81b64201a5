"""Runs a program once and keeps its output for the error message."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from local.errors import StandError

LAST_LINES = 15  # enough for the message of a compiler or of apt, short enough to read


def run(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    stdin: str | None = None,
    timeout_s: float = 600,
    what_next: str = "",
) -> str:
    """The standard output of a command that succeeded. Raises StandError with its last lines if it failed."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **(environment or {})},
            cwd=directory,
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as missing:
        raise StandError(f"{words[0]}: not found. {what_next or 'Next: python3 -m local doctor'}") from missing
    except subprocess.TimeoutExpired as slow:
        raise StandError(f"{' '.join(words[:4])}: still running after {timeout_s:.0f} s. {what_next}".strip()) from slow
    if done.returncode != 0:
        raise StandError(
            f"{' '.join(words[:6])}: exit {done.returncode}\n{last_lines(done.stdout + done.stderr)}\n{what_next}".strip()
        )
    return done.stdout


def last_lines(text: str, count: int = LAST_LINES) -> str:
    """The last `count` lines of a text, indented."""
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-count:])


def find_program(program: str) -> Path | None:
    """The path of a program, or None. Also searches the folders of system programs, which may not be on the user's PATH."""
    where = shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin"]))
    return Path(where) if where else None


def wait_until(ready: Callable[[], bool], *, seconds: float, what: str, every_s: float = 0.3) -> None:
    """Return when `ready()` is true. Raises StandError with `what` after `seconds`."""
    end_s = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end_s:
            raise StandError(f"{what} after {seconds:.0f} s. Next: python3 -m local doctor")
        time.sleep(every_s)
