"""Runs a runtime's exporter, a program with its own Python environment (`include/model`, `include/onnx_model`)."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections import deque
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from slipway.errors import ExportError, ExportOverLimit, PromiseBroken, SourceUnreachable, plain_line
from slipway.model.content import file_hash
from slipway.model.golden_images import fetch_golden_image
from slipway.model.hub import hub_token
from slipway.model.limits import within_limits
from slipway.names import digest_of
from slipway.paths import INCLUDE
from slipway.programs import Started, chosen_environment, program
from slipway.records.store import read_bytes
from slipway.release import Release
from slipway.runtimes import Runtime
from slipway.scratch import scratch_full

FETCHER = INCLUDE / "model" / "fetch.py"  # of every runtime
CODE = frozenset({".py", ".txt", ".bin"})  # programs, locks, and protobuf descriptors
TRY_LATER = 75  # the exit status if the source did not respond
BAD_MODEL = 65  # the exit status if the model broke a promise
NO_SPACE = os.strerror(errno.ENOSPC)
NO_MEMORY = (
    "std::bad_alloc",
    "MemoryError",
    "ResourceExhaustedError",
    "Failed to allocate memory",
    os.strerror(errno.ENOMEM),
)
LAST_LINES = 20  # of a program's output, kept for its error message
# All that a program gets of the worker's environment, which has Airflow's secrets. fetch.py also gets what leads it through a network.
SHARED = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS",
          "TF_NUM_INTEROP_THREADS")  # fmt: skip
NETWORK = ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DISABLE_XET", "SSL_CERT_FILE", "SSL_CERT_DIR",
           "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy",
           "all_proxy", "no_proxy")  # fmt: skip

log = logging.getLogger(__name__)


def exporter_hash(runtime: Runtime) -> str:
    """sha256:… of the exporter's code and its locked requirements."""
    files = [path for folder in runtime.code for path in folder.rglob("*") if path.suffix in CODE]
    return digest_of({os.path.relpath(path, runtime.exporter.parent): file_hash(path) for path in files})


def run_exporter(release: Release, source: dict[str, Any], *, python: str, scratch: Path, started: Started) -> Path:
    """Run the exporter, log its output, and return the folder with its results.

    Its two programs run one after the other: the first, with network and token, opens no model; the second, shut in, opens it.
    Raises ExportError with the program's last line, ExportOverLimit, ScratchFull, InputRefused.
    """
    request, work = scratch / "request.json", scratch / "work"  # the model may write to `work`, and nowhere else
    work.mkdir()
    request.write_text(json.dumps(_request(release, source, scratch)), encoding="utf-8")
    if "kept" in source and not Path(source["kept"]).exists():
        token = hub_token(release.source.token_conn_id)
        environment = {
            **chosen_environment(*SHARED, *NETWORK),
            "HOME": str(work),
            **({"HF_TOKEN": token} if token else {}),
        }
        _run(
            [python, str(FETCHER), "--request", str(request)],
            environment,
            release,
            scratch,
            "download_mib",
            started,
        )
    out = work / "out"
    command = [python, str(release.served_by.exporter), "--request", str(request), "--out", str(out)]
    _run(command, {**chosen_environment(*SHARED), "HOME": str(work)}, release, work, "disk_mib", started)
    return out


def _run(  # noqa: PLR0917 - one call of each kind, above
    command: list[str], environment: dict[str, str], release: Release, folder: Path, disk: str, started: Started
) -> None:
    """Run one of the exporter's programs to its end, and log its output. Raises as `run_exporter`."""
    name, secret, limits = Path(command[1]).name, environment.get("HF_TOKEN"), release.limits
    last_lines: deque[str] = deque(maxlen=LAST_LINES)
    absent = partial(_no_interpreter, release.served_by)
    with (
        program(command, {**environment, "TMPDIR": str(folder)}, started, otherwise=absent) as process,
        within_limits(process, limits, folder, disk) as watch,
    ):
        for line in process.stdout or ():
            last_lines.append(plain_line(line.rstrip().replace(secret, "***") if secret else line.rstrip()))
            log.info("exporter: %s", last_lines[-1])
        process.wait()
    if process.returncode == 0:
        return
    if any(NO_SPACE in line for line in last_lines):  # whatever else its last line blames
        raise scratch_full(folder)
    if watch.reason or any(words in line for line in last_lines for words in NO_MEMORY):
        reason = watch.reason or f"it needs more memory than export.limits.memory_mib, {limits.memory_mib}"
        raise ExportOverLimit(
            f"{name} was ended: {reason}. Next: check the source, or raise the limit in the model file"
        )
    reason = next((line for line in reversed(last_lines) if line), "no output")
    kind = {TRY_LATER: SourceUnreachable, BAD_MODEL: PromiseBroken}.get(process.returncode, ExportError)
    raise kind(f"exporter ended with status {process.returncode}: {reason}")


def _no_interpreter(runtime: Runtime, error: OSError) -> ExportError:
    return ExportError(
        f"exporter's interpreter {error.filename}: {error.strerror}. "
        f"Next: set the Variable {runtime.python_variable} to the python of an environment with {runtime.lock}"
    )


def _request(release: Release, source: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """The exporter's request, with all golden images fetched to this worker."""
    golden = []
    for case in release.golden:
        image = scratch / f"golden-{case.name}"
        image.write_bytes(fetch_golden_image(case, release.model))
        golden.append(
            {"name": case.name, "image": str(image), "label": case.label, "min_confidence": case.min_confidence}
        )
    told = {"precision": release.precision, "calibration": release.calibration}
    origin = {"location": f"{release.source.kind} {release.source.url}", "revision": release.source.revision}
    return {
        "model": release.model,
        "source": source,
        "golden": golden,
        "settings": {**asdict(release.export), **(told if release.served_by.has_precision else {})},
        **_labelled_set(release, scratch),
        "limits": {name: value for name, value in asdict(release.limits).items() if name != "processes"},
        "without_sandbox": release.without_sandbox,
        "origin": origin,
    }


def _labelled_set(release: Release, scratch: Path) -> dict[str, Any]:
    """The labelled set for int8, copied from the store to this worker. Raises StoreError."""
    if release.precision != "int8" or release.gate.quality is None:
        return {}
    file = scratch / "labelled.json"
    file.write_bytes(read_bytes(release.gate.quality.uri))
    return {"labelled": str(file)}
