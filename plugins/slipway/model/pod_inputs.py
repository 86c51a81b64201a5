"""What the exporter's pod gets as one tar: the exporter's code, the request, and the files that the request names."""

from __future__ import annotations

import io
import json
import tarfile
from copy import deepcopy
from pathlib import Path
from typing import Any

from slipway.model.exporter import code_files
from slipway.runtimes import Runtime
from slipway.strict_json import load_json

INPUTS = "/inputs"  # where include/export_pod/receive.py unpacks it


def exporter_in_pod(runtime: Runtime) -> str:
    """The path of the exporter's program in the pod."""
    return f"{INPUTS}/code/{runtime.exporter.relative_to(_code_root(runtime)).as_posix()}"


def pack_inputs(runtime: Runtime, request: Path, place: Path) -> Path:
    """Write the tar to a new file."""
    told, files = move_request(load_json(request.read_bytes()))
    with tarfile.open(place, "w", format=tarfile.PAX_FORMAT, dereference=True) as tar:
        for path in code_files(runtime):
            tar.add(path, f"code/{path.relative_to(_code_root(runtime)).as_posix()}", filter=_readable)
        for name, path in files.items():
            tar.add(path, name, filter=_readable)
        data = json.dumps(told).encode()
        entry = tarfile.TarInfo("request.json")
        entry.size = len(data)
        tar.addfile(_readable(entry), io.BytesIO(data))
    return place


def move_request(request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Path]]:
    """The request with the paths that its files have in the pod, and the files by their names there."""
    told = deepcopy(request)
    files: dict[str, Path] = {}

    def move(part: dict[str, Any], key: str, name: str) -> None:
        files[name] = Path(part[key])
        part[key] = f"{INPUTS}/{name}"

    source = told["source"]
    move(
        source,
        "path" if source["kind"] == "folder" else "kept",
        "source.tar.gz" if source["kind"] == "savedmodel" else "source",
    )
    for number, case in enumerate(told["golden"]):
        move(case, "image", f"golden-{number}")
    if "labelled" in told:
        move(told, "labelled", "labelled.json")
    return told, files


def _code_root(runtime: Runtime) -> Path:
    return runtime.exporter.parents[1]


def _readable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """The entry for the pod's own user, whoever owns the file here."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry
