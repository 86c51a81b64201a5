"""Runs the exporter, a program with its own Python environment (`include/model`)."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slipway.errors import ExportError, PromiseBroken, SourceUnreachable
from slipway.model.content import file_hash
from slipway.model.golden_images import fetch_golden_image
from slipway.model.hub import hub_token
from slipway.names import digest_of
from slipway.paths import PROJECT
from slipway.release import Release
from slipway.scratch import scratch_full

EXPORTER = PROJECT / "include" / "model" / "export.py"
DEFAULT_EXPORTER_PYTHON = "/opt/slipway/model/bin/python"  # where the Dockerfile installs it
TRY_LATER = 75  # the exit status if the source did not respond
BAD_MODEL = 65  # the exit status if the model broke a promise
NO_SPACE = os.strerror(errno.ENOSPC)
LAST_LINES = 20  # of the exporter's output, kept for its error message

log = logging.getLogger(__name__)


def exporter_hash(folder: Path = EXPORTER.parent) -> str:
    """sha256:… of the exporter's code and its locked requirements."""
    return digest_of(
        {path.name: file_hash(path) for path in sorted(folder.iterdir()) if path.suffix in {".py", ".txt"}}
    )


def run_exporter(
    release: Release,
    source: dict[str, str],
    *,
    python: str,
    scratch: Path,
    started: Callable[[subprocess.Popen[str]], None],
) -> Path:
    """Run the exporter, log its output, and return the folder with its results.

    Raises ExportError with the exporter's last line, ScratchFull, InputRefused.
    """
    request, out = scratch / "request.json", scratch / "out"
    request.write_text(json.dumps(_request(release, source, scratch)), encoding="utf-8")
    command = [python, str(EXPORTER), "--request", str(request), "--out", str(out), "--end-with-stdin"]
    token = hub_token(release.source.token_conn_id)
    last_lines: deque[str] = deque(maxlen=LAST_LINES)
    with _exporter_process(command, token, started) as process:
        for line in process.stdout or ():
            last_lines.append(line.rstrip().replace(token, "***") if token else line.rstrip())
            log.info("exporter: %s", last_lines[-1])
    if process.returncode != 0:
        if any(NO_SPACE in line for line in last_lines):  # whatever else its last line blames
            raise scratch_full(scratch.parent)
        reason = next((line for line in reversed(last_lines) if line), "no output")
        kind = {TRY_LATER: SourceUnreachable, BAD_MODEL: PromiseBroken}.get(process.returncode, ExportError)
        raise kind(f"exporter ended with status {process.returncode}: {reason}")
    return out


@contextmanager
def _exporter_process(
    command: list[str], token: str | None, started: Callable[[subprocess.Popen[str]], None]
) -> Iterator[subprocess.Popen[str]]:
    """The exporter in its own process group, which ends with this block. Only the exporter gets the token.

    It also ends if this process is killed: its standard input is a pipe to which nothing is written, and it ends when the
    pipe closes.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",  # to log each line at once
                **({"HF_TOKEN": token} if token else {}),
            },
            start_new_session=True,
        )
    except OSError as error:
        raise ExportError(
            f"exporter's interpreter {command[0]}: {error.strerror}. "
            "Next: set the Variable slipway_exporter_python to the python of an environment with include/model/requirements.txt"
        ) from error
    started(process)
    try:
        yield process
        process.wait()
    finally:
        end_exporter(process)


def end_exporter(process: subprocess.Popen[str]) -> None:
    """Kill the exporter and all processes that it started. Does nothing if it has ended."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _request(release: Release, source: dict[str, str], scratch: Path) -> dict[str, Any]:
    """The exporter's request, with all golden images fetched to this worker."""
    golden = []
    for case in release.golden:
        image = scratch / f"golden-{case.name}"
        image.write_bytes(fetch_golden_image(case, release.model))
        golden.append(
            {"name": case.name, "image": str(image), "label": case.label, "min_confidence": case.min_confidence}
        )
    origin = {"location": f"{release.source.kind} {release.source.url}", "revision": release.source.revision}
    return {
        "model": release.model,
        "source": source,
        "golden": golden,
        "settings": asdict(release.export),
        "origin": origin,
    }
