"""The export: a SavedModel, its version, and the golden cases that it promises to answer.

TensorFlow runs in an interpreter of its own (`include/model`); here only files and hashes pass through.
"""

from __future__ import annotations

import base64
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
from slipway.facts import Card, Export, from_dict, to_dict
from slipway.folders import content_hash, file_hash, write_layer
from slipway.hub import hub_token
from slipway.names import digest_of, short
from slipway.paths import PROJECT, SERVED
from slipway.records.store import Store, read_json
from slipway.release import GoldenRequest, Release
from slipway.scratch import scratch_folder, scratch_full
from slipway.serving.golden import GoldenCase, Reference
from slipway.serving.labelled_set import read_images
from slipway.sources import bring_source, keep_source

EXPORTER = PROJECT / "include" / "model" / "export.py"
DEFAULT_EXPORTER_PYTHON = "/opt/slipway/model/bin/python"  # where the Dockerfile puts it
TRY_LATER = 75  # the status of an exporter that reached nobody where the source is
BAD_MODEL = 65  # of one whose model does not do what was promised of it
NO_SPACE = os.strerror(errno.ENOSPC)
LAST_LINES = 20  # of the exporter's output, shown when it fails
FETCH_TIMEOUT_S = 60
SHOWN_LABELS = 10
LARGEST_GOLDEN_BYTES = 32 * 1024 * 1024

log = logging.getLogger(__name__)


def run_export(
    release: Release, *, python: str, started: Callable[[subprocess.Popen[str]], None] = lambda _: None
) -> Export:
    """Export the release's source, or find the same export in the store.

    `python` is the exporter environment's interpreter; `started` is handed its process, to end it if the task is killed.
    Raises ExportError with the exporter's last words, ScratchFull, StoreError.
    """
    store = Store(release.store)
    known = f"exports/{release.model}/inputs/{short(inputs_hash(release))}.json"
    if not release.force and store.exists(known):
        log.info("export: found in the store, same source, exporter and golden cases: %s", store.uri_of(known))
        export = from_dict(Export, store.read_json(known))
        check_labels(release, export)
        return export
    with scratch_folder("export") as scratch:
        source = bring_source(release, store, scratch)
        out = _run_exporter(release, source, python=python, scratch=scratch, started=started)
        keep_source(release, store, scratch)
        export = keep_export(release, out, store)
    store.put_json(to_dict(export), known)
    check_labels(release, export)
    if export.card:
        log.info("export: model card %s: %s", export.card.uri, export.card.parity)
    return export


def check_labels(release: Release, export: Export) -> None:
    """Refuse a label, of a golden case or of the labelled set, that the exported model never says. Raises ExportError, StoreError.

    Nothing is known of a SavedModel archive's labels, nor of what an earlier Slipway exported.
    """
    known = read_json(export.report_uri).get("labels")
    if known is None:
        return
    asked = {label: f"gate.golden {case.name}" for case in release.golden for label in case.labels}
    if release.gate.quality is not None:
        asked |= {image.label: f"gate.quality.set: {image.name}" for image in read_images(release.gate.quality)}
    if unknown := sorted(asked.keys() - set(known)):
        some = ", ".join(known[:SHOWN_LABELS]) + (" …" if known[SHOWN_LABELS:] else "")
        raise ExportError(
            f"{asked[unknown[0]]}: {unknown[0]!r} is none of the model's {len(known)} labels ({some}). Next: mend it"
        )


def inputs_hash(release: Release) -> str:
    """sha256:… of all that decides what the exporter leaves; whose token reads the source does not."""
    source = release.source
    identity = {"kind": source.kind, "location": source.location, "revision": source.revision}
    return digest_of([identity, release.exporter, asdict(release.export), [asdict(case) for case in release.golden]])


def exporter_hash(folder: Path = EXPORTER.parent) -> str:
    """sha256:… of the exporter's code and lock."""
    return digest_of(
        {path.name: file_hash(path) for path in sorted(folder.iterdir()) if path.suffix in {".py", ".txt"}}
    )


def keep_export(release: Release, out: Path, store: Store) -> Export:
    """Put what the exporter left at `out` into the store, under the version that its content claims."""
    saved_model = out / "savedmodel"
    content = content_hash(saved_model)
    version = claim_version(store, release.model, content)
    prefix = f"exports/{release.model}/{version}"
    cases = [_case(folder) for folder in sorted((out / "golden").iterdir())]
    golden = {"cases": [to_dict(case) for case in cases]}
    with scratch_folder("layer") as scratch:
        layer = scratch / "model.tar"
        write_layer(saved_model, release.version_folder(version), layer)
        model_uri = store.put_file(layer, f"{prefix}/model.tar")
    log.info("export: version %d, content %s", version, content)
    return Export(
        version=version,
        content_hash=content,
        model_uri=model_uri,
        golden_uri=store.put_json(golden, f"{prefix}/golden-{short(digest_of(golden))}.json"),
        descriptors_uri=store.put_file(out / "descriptors.bin", f"{prefix}/descriptors.bin"),
        report_uri=store.put_file(out / "export.json", f"{prefix}/export.json"),
        card=_keep_card(out / "card", store, prefix),
    )


def _keep_card(folder: Path, store: Store, prefix: str) -> Card:
    """Put the card with its pictures into the store; one that says something else gets a place of its own."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    digest = digest_of({name: value for name, value in card.items() if name != "measured"})
    uris = {
        file.name: store.put_file(file, f"{prefix}/card-{short(digest)}/{file.name}")
        for file in sorted(folder.iterdir())
    }
    return Card(
        uri=uris["README.md"],
        digest=digest,
        parity=describe_parity(card["parity"]),
        parameters=card["parameters"],
        size=card["bytes"],
    )


def describe_parity(parity: dict[str, Any] | None) -> str:
    """The card's parity figures in one line."""
    if parity is None:
        return "not known: a SavedModel archive has no checkpoint"
    return (
        f"{parity['labels_equal']} of {parity['images']} labels equal, probabilities at most "
        f"{parity['largest_difference']:.5f} apart, pixels at most {parity['largest_levels']:g} levels"
    )


def claim_version(store: Store, model: str, content: str) -> int:
    """The number of this content: the one it has, or one above all others.

    Two tasks that claim at once agree: a claim is a file that only one of them can create.
    """
    while True:
        claims = {int(name.removesuffix(".json")): name for name in store.names(f"versions/{model}")}
        for number, name in claims.items():
            if store.read_json(f"versions/{model}/{name}")["content_hash"] == content:
                return number
        number = max(claims, default=0) + 1
        if store.claim(f"versions/{model}/{number}.json", {"content_hash": content}):
            return number


def _case(folder: Path) -> GoldenCase:
    said = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    reference = said["reference"]
    return GoldenCase(
        name=said["name"],
        label=tuple(said["label"]) if isinstance(said["label"], list) else said["label"],
        min_confidence=said["min_confidence"],
        reference=Reference(**reference) if reference else None,
        rest_body=(folder / "rest.json").read_text(encoding="utf-8"),
        grpc_request=base64.b64encode((folder / "grpc.bin").read_bytes()).decode(),
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
