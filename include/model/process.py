"""What fetch.py and export.py have in common as processes: their limits, their end, and how they say why they failed."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading

from errors import ExportRefused, PromiseBroken, SourceUnreachable
from request import Limits

TRY_LATER = 75  # EX_TEMPFAIL of sysexits.h
BAD_MODEL = 65  # EX_DATAERR
MIB = 1 << 20


def limit(limits: Limits, *, file_mib: int) -> None:
    """Limit this process: its memory, its processor time, and each file that it writes. It leaves no memory dump."""
    for what, value in (
        (resource.RLIMIT_DATA, limits.memory_mib * MIB),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, file_mib * MIB),
        (resource.RLIMIT_CORE, 0),
    ):
        _, most = resource.getrlimit(what)
        asked = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(what, (asked, asked))


def end_with_stdin() -> None:
    """Kill this process group as soon as standard input ends."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def plain_line(text: str) -> str:
    """The text in one line; what is not printable as Python writes it."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in " ".join(text.split()))


def exit_status(refused: ExportRefused) -> int:
    """Print why in one line on stderr; the exit status that says what kind of refusal it is."""
    print(plain_line(str(refused)), file=sys.stderr)
    return {SourceUnreachable: TRY_LATER, PromiseBroken: BAD_MODEL}.get(type(refused), 1)
