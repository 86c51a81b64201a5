"""Load digits-vit and write figures and picture into docs/load.md: `make load-figures`.

digits-vit is exported, and the stand-in serves it as a process on this machine, once with one thread and once with two. Both are loaded
by include/load/load.py, first at rising rates, then in closed loops; the first test is "the release before" in the picture.
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

PAGE, PICTURE = PROJECT / "docs" / "load.md", PROJECT / "docs" / "load.png"
BEGIN = "<!-- written by `make load-figures`, which replaces all text between these marks -->"
END = "<!-- end -->"
PLAN = {"rates_per_s": [5, 10, 20, 40, 80], "closed_users": [1, 4, 8], "step_s": 20, "settle_s": 5}
P95_MS = 100
THREADS = (1, 2)


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
        exported = export(folder, "refuse")
        if options.rest or options.grpc:
            target = {"rest": options.rest, "grpc": options.grpc, "model": MODEL, "version": options.version}
            load(exported, target, options.out or Path("load-figures"))
            return 0
        found: list[tuple[str, dict[str, Any]]] = []
        before: Path | None = None
        for threads in THREADS:
            flags = (f"--tensorflow_inter_op_parallelism={threads}", f"--tensorflow_intra_op_parallelism={threads}")
            with served(exported, *flags) as server:
                out = folder / f"threads-{threads}"
                load(exported, target_of(server), out, before=before)
            before = out / "load.json"
            found.append((f"{threads} thread{'s' if threads > 1 else ''}", json.loads(before.read_text())))
        shutil.copy(out / "load.png", PICTURE)
        if options.out:
            shutil.copytree(out, options.out)
    PAGE.write_text(place(PAGE.read_text(), render(found, machine()), BEGIN, END))
    return 0


def load(
    exported: Path, target: dict[str, Any], out: Path, *, before: Path | None = None, plan: dict[str, Any] = PLAN
) -> None:
    """Run the load test; all output goes to the terminal."""
    request = exported.parent / f"{out.name}.json"
    request.write_text(json.dumps({**load_request(exported, target), "plan": plan}))
    program = str(PROJECT / "include" / "load" / "load.py")
    command = [str(python_of("load")), program, "--request", str(request), "--out", str(out)]
    subprocess.run([*command, *(("--before", str(before)) if before else ())], check=True)


def target_of(server: Server) -> dict[str, Any]:
    """A server on this machine, as the load test's program reads it."""
    return {
        "rest": f"http://127.0.0.1:{server.rest}", "grpc": f"127.0.0.1:{server.grpc}", "model": MODEL, "version": 1,
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
        f"The stand-in, not TensorFlow Serving, served digits-vit as a process on {where}; the load came from the same machine.\n\n"
        + "\n".join(rows)
        + f"\n\n{held}"
    )


def cell(step: dict[str, Any]) -> str:
    """One step's figures; its errors if it had any."""
    reached = f"{step['reached_per_s']:g}"
    if step["errors"]:
        return f"{reached}, errors: {', '.join(f'{count} {kind}' for kind, count in step['errors'].items())}"
    return ", ".join([reached, *(f"{step[f'p{share}_ms']:g}" for share in (50, 95, 99))])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
