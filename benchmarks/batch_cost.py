"""Measure what an image costs in a batch: a part of `make overlay-figures`.

The served graphs of digits-vit and of a ViT-B/16 with random weights run in TensorFlow's own runtime with one thread, each in a
process of its own and without a server, in turns. The figures go into docs/overlays.md: what the overlay `batching` follows from.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.first_requests import export
from benchmarks.graph_speed import QUIET, Worker, make_checkpoint, processor_name
from benchmarks.own_stand import PROJECT
from benchmarks.refresh_times import machine, place

PAGE = PROJECT / "docs" / "overlays.md"
BEGIN, END = (
    "<!-- written by benchmarks/batch_cost.py, which replaces all text between these marks -->",
    "<!-- end of batch_cost -->",
)
BATCHES = (1, 2, 4, 8, 16, 32)
ROUNDS, WARM = 5, 1
DIGITS, VIT = "digits-vit", "a ViT-B/16"


def main(words: Sequence[str]) -> int:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(prog="benchmarks/batch_cost.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args(words).rounds
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), rounds)
    text = render(measured, f"{processor_name()}, {machine()}")
    PAGE.write_text(place(PAGE.read_text(encoding="utf-8"), text, BEGIN, END), encoding="utf-8")
    print(text)
    return 0


def measure(scratch: Path, rounds: int) -> dict[tuple[str, int], list[float]]:
    """The processor's milliseconds for an image, round by round, by model and batch."""
    from request import Settings
    from served_graph import save_served_graph

    save_served_graph(make_checkpoint(scratch), scratch / "served", Settings())
    workers = {
        DIGITS: Worker("digit", export(scratch, "refuse") / "savedmodel", 1, {}),
        VIT: Worker("graph", scratch / "served", 1, {}),
    }
    found: dict[tuple[str, int], list[float]] = {(model, batch): [] for batch in BATCHES for model in workers}
    try:
        for number in range(rounds + WARM):
            for (model, batch), seen in found.items():
                workers[model].ask(batch)  # it has waited for the other model, whose numbers are in the caches
                seen.append(workers[model].ask(batch)["cpu_ms"])
            print(f"round {number + 1} of {rounds + WARM}", flush=True)
    finally:
        for worker in workers.values():
            worker.end()
    return {key: seen[WARM:] for key, seen in found.items()}


def render(measured: Mapping[tuple[str, int], Sequence[float]], where: str) -> str:
    """A row for each batch, a column for each model: the median, and the least and most."""
    models = list(dict.fromkeys(model for model, _ in measured))
    rounds = len(next(iter(measured.values())))
    head = [f"| images | {' | '.join(models)} |", "| ---: |" + " ---: |" * len(models)]
    batches = dict.fromkeys(batch for _, batch in measured)
    rows = [f"| {batch} | {' | '.join(_cell(measured[model, batch]) for model in models)} |" for batch in batches]
    said = (
        f"Milliseconds of a processor for each image, medians of {rounds} rounds (least to most), one thread of TensorFlow's own "
        f"runtime, on {where}."
    )
    return "\n".join([*head, *rows, "", said])


def _cell(ms: Sequence[float]) -> str:
    digits = 0 if statistics.median(ms) > 10 else 2  # noqa: PLR2004 - milliseconds of which a tenth says nothing
    return f"{statistics.median(ms):.{digits}f} ({min(ms):.{digits}f} to {max(ms):.{digits}f})"


if __name__ == "__main__":
    os.environ |= QUIET
    sys.exit(main(sys.argv[1:]))
