"""Runs the load test's program, which has a Python environment of its own (`include/load`)."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path

from slipway.errors import LoadTestUnfinished, plain_line
from slipway.facts import JsonObject
from slipway.paths import INCLUDE
from slipway.programs import Started, chosen_environment, program
from slipway.strict_json import load_json

LOADER = INCLUDE / "load" / "load.py"
SWEEP_PLOT = INCLUDE / "load" / "sweep_plot.py"
DEFAULT_LOAD_PYTHON = "/opt/slipway/load/bin/python"  # where the Dockerfile installs it
SHARED = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy",
          "https_proxy", "no_proxy")  # fmt: skip
LAST_LINES = 20

log = logging.getLogger(__name__)


def run_load_test(
    request: JsonObject,
    *,
    python: str,
    scratch: Path,
    started: Started,
    workers: int = 1,
    before: Path | None = None,
    heard: Callable[[str], None] = lambda _: None,
) -> tuple[Path, JsonObject]:
    """Run the program and log its output. Returns its folder and its figures. Raises LoadTestUnfinished.

    Several `workers` are processes of their own, beside one that leads them. `heard` is called with each line at once.
    """
    file, out = scratch / "request.json", scratch / "load"
    file.write_text(json.dumps(request), encoding="utf-8")
    command = [python, str(LOADER), "--request", str(file), "--out", str(out)]
    if workers > 1:
        command += ["--workers", str(workers)]
    if before is not None:
        command += ["--before", str(before)]
    _run(command, scratch, started, heard)
    figures: JsonObject = load_json((out / "load.json").read_text(encoding="utf-8"))
    return out, figures


def draw_sweep(figures: Path, picture: Path, *, python: str, scratch: Path, started: Started) -> None:
    """Draw a sweep's figures. Raises LoadTestUnfinished."""
    command = [python, str(SWEEP_PLOT), "--figures", str(figures), "--out", str(picture)]
    _run(command, scratch, started, lambda _: None)


def _run(command: list[str], scratch: Path, started: Started, heard: Callable[[str], None]) -> None:
    environment = {**chosen_environment(*SHARED), "HOME": str(scratch), "TMPDIR": str(scratch)}
    lines: deque[str] = deque(maxlen=LAST_LINES)
    with program(command, environment, started, otherwise=_no_interpreter) as process:
        for line in process.stdout or ():
            heard(line)
            lines.append(plain_line(line.rstrip()))
            log.info("load: %s", lines[-1])
        process.wait()
    if process.returncode:
        reason = next((line for line in reversed(lines) if line), "no output")
        raise LoadTestUnfinished(f"load test ended with status {process.returncode}: {reason}")


def _no_interpreter(error: OSError) -> LoadTestUnfinished:
    return LoadTestUnfinished(
        f"load test's interpreter {error.filename}: {error.strerror}. "
        "Next: set the Variable slipway_load_python to the python of an environment with include/load/requirements.txt"
    )
