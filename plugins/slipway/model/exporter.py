"""Runs the exporter in its own interpreter."""

from __future__ import annotations

import errno
import hashlib
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

import httpx

from slipway.errors import ExportError, PromiseBroken, SourceUnreachable
from slipway.model.content import file_hash
from slipway.model.hub import hub_token
from slipway.names import digest_of
from slipway.paths import PROJECT, SERVED
from slipway.release import GoldenRequest, Release
from slipway.scratch import scratch_full

log = logging.getLogger(__name__)
EXPORTER = PROJECT / "include" / "model" / "export.py"
DEFAULT_EXPORTER_PYTHON = "/opt/slipway/model/bin/python"  # where the Dockerfile puts it
TRY_LATER = 75  # the status of an exporter that reached nobody where the source is
BAD_MODEL = 65  # of one whose model does not do what was promised of it
NO_SPACE = os.strerror(errno.ENOSPC)
LAST_LINES = 20  # of the exporter's output, shown when it fails
FETCH_TIMEOUT_S = 60
LARGEST_GOLDEN_BYTES = 32 * 1024 * 1024


def exporter_hash(folder: Path = EXPORTER.parent) -> str:
    """sha256:… of the exporter's code and lock."""
    return digest_of(
        {path.name: file_hash(path) for path in sorted(folder.iterdir()) if path.suffix in {".py", ".txt"}}
    )


def _run_exporter(
    release: Release,
    source: dict[str, str],
    *,
    python: str,
    scratch: Path,
    started: Callable[[subprocess.Popen[str]], None],
) -> Path:
    """Run the exporter and follow its lines; the folder it left comes back."""
    request, out = scratch / "request.json", scratch / "out"
    request.write_text(json.dumps(_request(release, source, scratch)), encoding="utf-8")
    command = [python, str(EXPORTER), "--request", str(request), "--out", str(out), "--end-with-stdin"]
    token = hub_token(release.source.token_conn_id)
    last: deque[str] = deque(maxlen=LAST_LINES)
    with _exporter_process(command, token, started) as process:
        for line in process.stdout or ():
            last.append(line.rstrip().replace(token, "***") if token else line.rstrip())
            log.info("exporter: %s", last[-1])
    if process.returncode != 0:
        if any(NO_SPACE in line for line in last):  # whatever it was about to do, and in whosever words
            raise scratch_full(scratch.parent)
        said = next((line for line in reversed(last) if line), "it said nothing")
        kind = {TRY_LATER: SourceUnreachable, BAD_MODEL: PromiseBroken}.get(process.returncode, ExportError)
        raise kind(f"exporter ended with status {process.returncode}: {said}")
    return out


@contextmanager
def _exporter_process(
    command: list[str], token: str | None, started: Callable[[subprocess.Popen[str]], None]
) -> Iterator[subprocess.Popen[str]]:
    """The exporter in a process group of its own, which does not outlive this block; only it is handed the token.

    Nor does it outlive this process, however that ends: nothing is ever written into its standard input, and it ends
    with that pipe.
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
                "PYTHONUNBUFFERED": "1",
                **({"HF_TOKEN": token} if token else {}),
            },  # its lines as they come
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
    """End the exporter and whatever it started; harmless where it has ended."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _request(release: Release, source: dict[str, str], scratch: Path) -> dict[str, Any]:
    """What the exporter is asked for, with every file brought to this worker."""
    golden = []
    for case in release.golden:
        image = scratch / f"golden-{case.name}"
        image.write_bytes(golden_bytes(case))
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


def golden_bytes(case: GoldenRequest) -> bytes:
    """The golden image's bytes, held to its hash where it has one. Raises ExportError."""
    if case.image.startswith(("http://", "https://")):
        data = _download(case)
    else:
        try:
            data = (SERVED / case.image).read_bytes()
        except OSError as error:
            raise ExportError(
                f"golden case {case.name}: include/served/{case.image}: {error.strerror}. Next: mend gate.golden"
            ) from error
    found = hashlib.sha256(data).hexdigest()
    if case.sha256 is not None and found != case.sha256:
        raise ExportError(
            f"golden case {case.name}: {case.image} has sha256 {found}, the model file says {case.sha256}. Next: mend gate.golden"
        )
    return data


def _download(case: GoldenRequest) -> bytes:
    try:
        with httpx.stream("GET", case.image, timeout=FETCH_TIMEOUT_S, follow_redirects=True) as response:
            response.raise_for_status()
            data = b""
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > LARGEST_GOLDEN_BYTES:
                    raise ExportError(
                        f"golden case {case.name}: {case.image} is larger than {LARGEST_GOLDEN_BYTES} bytes. "
                        "Next: use a smaller image"
                    )
            return data
    except httpx.HTTPError as error:
        raise ExportError(
            f"golden case {case.name}: {case.image}: {' '.join(str(error).split())}. Next: check that the worker reaches it"
        ) from error
