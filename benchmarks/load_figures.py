"""Load two releases of digits-vit and write figures and picture into docs/load.md: `make load-figures`.

The stand-in serves each as a process on this machine: first digits-vit as it is, then a wider one, which gives the same answers more
slowly. Both are loaded by include/load/load.py, at rates that rise until the objective has ended. The first is "the release before" in the
picture.
With --rest (and --grpc) nothing is served here: a server elsewhere is loaded, such as a real TensorFlow Serving, and the page is not
changed; it must serve this machine's export of digits-vit as --version.
"""

import argparse
import base64
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.first_requests import GOLDEN, MODEL, Server, export, python_of, served
from benchmarks.own_stand import PROJECT
from benchmarks.refresh_times import machine, place
from benchmarks.wider import widen

PAGE, PICTURE = PROJECT / "docs" / "load.md", PROJECT / "docs" / "load.png"
BEGIN = "<!-- written by `make load-figures`, which replaces all text between these marks -->"
END = "<!-- end -->"
# No closed loops: they would come after the largest rate, and wait for the requests that it leaves.
PLAN = {"rates_per_s": [25, 50, 100, 150, 200, 250, 300, 400, 500], "closed_users": [], "step_s": 12, "settle_s": 5}
P95_MS = 100
UNITS = {1: 192, 2: 8192}  # intermediate units in each layer of each version; the first is digits-vit as shipped
THREADS = (
    "--tensorflow_inter_op_parallelism=1",
    "--tensorflow_intra_op_parallelism=1",
)  # the other processor sends the load


def main(words: Sequence[str]) -> int:
    """Measure; write the page unless the server is elsewhere."""
    parser = argparse.ArgumentParser(prog="make load-figures", description=__doc__)
    parser.add_argument("--rest", metavar="URL", help="REST address of a server elsewhere")
    parser.add_argument("--grpc", metavar="HOST:PORT", help="its gRPC address")
    parser.add_argument("--version", type=int, default=1, help="the version that it serves (default 1)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep what the last test leaves there")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        exported = export_version(folder, 1)
        if options.rest or options.grpc:
            target = {"rest": options.rest, "grpc": options.grpc, "model": MODEL, "version": options.version}
            load(exported, target, options.out or Path("load-figures"))
            return 0
        found: list[tuple[str, dict[str, Any]]] = []
        before: Path | None = None
        for version in UNITS:
            exported = exported if version == 1 else export_version(folder, version)
            with served(exported, *THREADS, version=version) as server:
                out = folder / f"version-{version}"
                load(exported, target_of(server, version), out, before=before)
            before = out / "load.json"
            found.append((f"version {version}", json.loads(before.read_text())))
        shutil.copy(out / "load.png", PICTURE)
        if options.out:
            shutil.copytree(out, options.out)
    PAGE.write_text(place(PAGE.read_text(), render(found, machine()), BEGIN, END))
    return 0


def export_version(folder: Path, version: int) -> Path:
    """Export digits-vit with this version's number of intermediate units."""
    own = folder / str(version)
    checkpoint = own / "checkpoint"
    shutil.copytree(PROJECT / "include" / "served" / MODEL / "checkpoint", checkpoint)
    if version > 1:  # the first is as it is shipped
        widen(checkpoint, UNITS[version])
    return export(own, "refuse", checkpoint)


def load(
    exported: Path, target: dict[str, Any], out: Path, *, before: Path | None = None, plan: dict[str, Any] | None = None
) -> None:
    """Run the load test, by default with PLAN; all output goes to the terminal."""
    request = exported.parent / f"{out.name}.json"
    request.write_text(json.dumps({**load_request(exported, target), "plan": plan or PLAN}))
    program = str(PROJECT / "include" / "load" / "load.py")
    command = [str(python_of("load")), program, "--request", str(request), "--out", str(out)]
    subprocess.run([*command, *(("--before", str(before)) if before else ())], check=True)


def target_of(server: Server, version: int = 1) -> dict[str, Any]:
    """A server on this machine, as the load test's program reads it."""
    return {
        "rest": f"http://127.0.0.1:{server.rest}", "grpc": f"127.0.0.1:{server.grpc}", "model": MODEL, "version": version,
    }  # fmt: skip


def load_request(exported: Path, target: dict[str, Any]) -> dict[str, Any]:
    """The request of the load test: the golden cases of an export, to this server."""
    questions = []
    for name, label in GOLDEN.items():
        case = exported / "golden" / name
        grpc_request = base64.b64encode((case / "grpc.bin").read_bytes()).decode()
        rest_body = (case / "rest.json").read_text()
        questions.append({"name": name, "rest_body": rest_body, "grpc_request": grpc_request, "labels": [label]})
    descriptors = base64.b64encode((exported / "descriptors.bin").read_bytes()).decode()
    return {
        "target": target,
        "questions": questions,
        "descriptors": descriptors,
        "plan": PLAN,
        "objective": {"p95_ms": P95_MS},
    }


def render(found: Sequence[tuple[str, dict[str, Any]]], where: str) -> str:
    """A table of all steps, for each server; and up to which rate the objective held."""
    names = [name for name, _ in found]
    rows = [f"| step | {' | '.join(f'{name}: reached/s, p50, p95, p99 ms' for name in names)} |"]
    rows.append("| --- |" + " ---: |" * len(names))
    for number, step in enumerate(found[0][1]["steps"]):
        cells = [cell(figures["steps"][number]) for _, figures in found]
        rows.append(f"| {step['name']} | {' | '.join(cells)} |")
    best = [f"with {name} up to {figures['holds_up_to_per_s'] or 0:g}/s" for name, figures in found]
    held = f"The objective (no error, p95 at most {P95_MS} ms) held {', '.join(best)}."
    return (
        f"The stand-in, not TensorFlow Serving, served two versions of digits-vit as processes with one thread on {where}; the load came from "
        f"the same machine. Version 2 gives the same answers more slowly: its layers have {UNITS[2]} intermediate units, those of version 1 have "
        f"{UNITS[1]}.\n\n" + "\n".join(rows) + f"\n\n{held}"
    )


def cell(step: dict[str, Any]) -> str:
    """One step's figures; its errors if it had any."""
    reached = f"{step['reached_per_s']:g}"
    if step["errors"]:
        return f"{reached}, errors: {', '.join(f'{count} {kind}' for kind, count in step['errors'].items())}"
    return ", ".join([reached, *(f"{step[f'p{share}_ms']:g}" for share in (50, 95, 99))])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
