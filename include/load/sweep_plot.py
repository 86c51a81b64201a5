"""The picture of a sweep: latency and requests per CPU second of each variant, with their 95 % intervals.

FIGURES is the sweep.json that Slipway writes. This program runs in the environment of the load test.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHADE, CHOSEN = "#9aa4b2", "#1f6feb"  # each variant, the recommended one


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path, required=True, metavar="FIGURES")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT.png")
    parser.add_argument("--end-with-stdin", action="store_true", help="as of load.py; a picture takes seconds")
    options = parser.parse_args(arguments)
    draw_sweep(json.loads(options.figures.read_text()), options.out)
    return 0


def draw_sweep(found: dict[str, Any], path: Path) -> None:
    """Draw a sweep's figures."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = found["rows"]
    picture, (left, right) = plt.subplots(1, 2, figsize=(10, 1.5 + 0.4 * len(rows)), dpi=120, sharey=True)
    # Without metrics-server there is no CPU: then the most requests a second.
    figure, said = ("per_cpu_s", "requests per CPU second")
    if not any(row[figure] for row in rows):
        figure, said = ("most_per_s", f"requests a second with {found['closed_users']} users")
    _draw_figure(left, found, "p95_ms", f"p95 in milliseconds at {found['rate_per_s']:g} requests a second")
    _draw_figure(right, found, figure, said)
    if limit := found["objective"]["p95_ms"]:
        left.axvline(limit, color="#57606a", linewidth=1, linestyle=":")
    left.set_yticks(range(len(rows)), [row["variant"] for row in rows], fontsize=8)
    left.set_ylim(len(rows) - 0.5, -0.5)  # the first row on top
    picture.suptitle(f"{found['model']}, version {found['version']}: the recommended variant is blue", fontsize=9)
    picture.tight_layout()
    picture.savefig(path, metadata={"Software": None})
    plt.close(picture)


def _draw_figure(axes: Any, found: dict[str, Any], figure: str, said: str) -> None:
    """A point for each variant that has the figure, and a line for its interval; hollow if the variant does not hold the objective."""
    for place, row in enumerate(found["rows"]):
        if (value := row[figure]) is None:
            continue
        shade = CHOSEN if row["variant"] == found["recommended"] else SHADE
        if value["low"] is not None:
            axes.plot([value["low"], value["high"]], [place, place], "-", color=shade)
        axes.plot([value["mean"]], [place], "o", color=shade, fillstyle="full" if row["holds"] else "none")
    axes.set(xlabel=said, xlim=(0, None))
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    sys.exit(main())
