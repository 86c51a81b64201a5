"""Programs that a task runs beside Airflow, each in its own process group, which ends with the task."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

Started = Callable[[subprocess.Popen[str]], None]


def chosen_environment(*names: str) -> dict[str, str]:
    """These variables of the worker's environment, and one that makes a program's lines appear at once."""
    return {"PYTHONUNBUFFERED": "1", **{name: os.environ[name] for name in names if name in os.environ}}


@contextmanager
def program(
    command: Sequence[str],
    environment: Mapping[str, str],
    started: Started,
    *,
    otherwise: Callable[[OSError], Exception],
) -> Iterator[subprocess.Popen[str]]:
    """A program in its own process group, which ends with this block. Raises `otherwise` if it cannot be started.

    It also ends if this process is killed: its standard input is a pipe to which nothing is written, and it ends when the
    pipe closes (`--end-with-stdin`).
    """
    try:
        process = subprocess.Popen(
            [*command, "--end-with-stdin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=dict(environment),
            start_new_session=True,
        )
    except OSError as error:
        raise otherwise(error) from error
    started(process)
    try:
        yield process
    finally:
        end_program(process)


def end_program(process: subprocess.Popen[str]) -> None:
    """Kill a program and all processes that it started. Does nothing if it has ended."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
