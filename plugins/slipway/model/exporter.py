"""Runs a runtime's exporter, a program with its own Python environment (`include/model`, `include/onnx_model`)."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from slipway.errors import ExportError, ExportOverLimit, PromiseBroken, SourceUnreachable, plain_line
from slipway.model.content import file_hash
from slipway.model.golden_images import fetch_golden_image
from slipway.model.hub import hub_token
from slipway.model.limits import within_limits
from slipway.names import digest_of
from slipway.paths import INCLUDE
from slipway.programs import Started, chosen_environment, program
from slipway.records.store import read_bytes
from slipway.release import ExportLimits, Release
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
    return digest_of({os.path.relpath(path, runtime.exporter.parent): file_hash(path) for path in code_files(runtime)})


def code_files(runtime: Runtime) -> list[Path]:
    """The files of the exporter's code and its locked requirements."""
    return [path for folder in runtime.code for path in folder.rglob("*") if path.suffix in CODE]


class ExporterHost(Protocol):
    """Where the exporter runs."""

    @property
    def fetch_python(self) -> str:
        """The worker's interpreter that fetches a source, with network and token; it opens no model."""

    def started(self, process: subprocess.Popen[str]) -> None:
        """Takes note of a program on the worker, so that a killed task ends it."""

    def open_model(self, release: Release, request: Path, scratch: Path) -> Path:
        """Run the program that opens the model, without network and token; the folder with its results.

        Raises ExportError with the program's last line, ExportOverLimit, ScratchFull.
        """


@dataclass(frozen=True)
class WorkerHost:
    """The worker itself, with the interpreter of the exporter's environment."""

    fetch_python: str
    started: Started = lambda _: None

    def open_model(self, release: Release, request: Path, scratch: Path) -> Path:
        """The folder with the results, below `scratch`."""
        work = scratch / "work"  # the model may write to it, and nowhere else
        out = work / "out"
        command = [self.fetch_python, str(release.served_by.exporter), "--request", str(request), "--out", str(out)]
        _run(command, {**chosen_environment(*SHARED), "HOME": str(work)}, release, work, "disk_mib", self.started)
        return out


def run_exporter(release: Release, source: dict[str, Any], *, host: ExporterHost, scratch: Path) -> Path:
    """Run the exporter, log its output, and return the folder with its results.

    Its two programs run one after the other: the first, with network and token, opens no model; the second, shut in, opens it.
    Raises ExportError with the program's last line, ExportOverLimit, ScratchFull, InputRefused.
    """
    request, work = scratch / "request.json", scratch / "work"
    work.mkdir()
    request.write_text(json.dumps(_request(release, source, scratch)), encoding="utf-8")
    if "kept" in source and not Path(source["kept"]).exists():
        token = hub_token(release.source.token_conn_id)
        environment = {
            **chosen_environment(*SHARED, *NETWORK),
            "HOME": str(work),
            **({"HF_TOKEN": token} if token else {}),
        }
        command = [host.fetch_python, str(FETCHER), "--request", str(request)]
        _run(command, environment, release, scratch, "download_mib", host.started)
    return host.open_model(release, request, scratch)


def _run(  # noqa: PLR0917 - one call of each kind, above
    command: list[str], environment: dict[str, str], release: Release, folder: Path, disk: str, started: Started
) -> None:
    """Run one of the exporter's programs to its end, and log its output. Raises as `run_exporter`."""
    secret, limits = environment.get("HF_TOKEN"), release.limits
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
    raise exporter_failure(Path(command[1]).name, process.returncode, last_lines, limits, over=watch.reason)


def exporter_failure(
    name: str, status: int, last_lines: Sequence[str], limits: ExportLimits, *, over: str | None
) -> ExportError:
    """The error of a program of the exporter that ended with a status other than 0; `over` says which limit it exceeded, if any."""
    if over or any(words in line for line in last_lines for words in NO_MEMORY):
        reason = over or f"it needs more memory than export.limits.memory_mib, {limits.memory_mib}"
        return ExportOverLimit(
            f"{name} was ended: {reason}. Next: check the source, or raise the limit in the model file"
        )
    reason = next((line for line in reversed(last_lines) if line), "no output")
    kind = {TRY_LATER: SourceUnreachable, BAD_MODEL: PromiseBroken}.get(status, ExportError)
    return kind(f"exporter ended with status {status}: {reason}")


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
