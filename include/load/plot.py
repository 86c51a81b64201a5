"""The picture of a load test: latency against rate, another release's in the same picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHADES = ("#1f6feb", "#9aa4b2")  # this release, the one before


def draw(figures: dict[str, Any], others: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw p50 and p95 of each step without errors against the rate that it reached; steps with errors are crosses."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    picture, axes = plt.subplots(figsize=(8, 4.5), dpi=120)
    for shade, test in zip(SHADES, [figures, *others], strict=False):
        steps = sorted(test["steps"], key=lambda step: step["reached_per_s"])
        good = [step for step in steps if step["p95_ms"] is not None]
        rates = [step["reached_per_s"] for step in good]
        who = f"version {test['version']}"
        axes.plot(rates, [step["p95_ms"] for step in good], "o-", color=shade, label=f"{who}, p95")
        axes.plot(rates, [step["p50_ms"] for step in good], "o--", color=shade, alpha=0.6, label=f"{who}, p50")
        bad = [step["reached_per_s"] for step in steps if step["errors"]]
        axes.plot(bad, [0] * len(bad), "x", color="#d1242f", markersize=9, label=f"{who}, errors" if bad else None)
    if limit := figures["objective"]["p95_ms"]:
        axes.axhline(limit, color="#57606a", linewidth=1, linestyle=":", label=f"objective: p95 {limit:g} ms")
    axes.set(xlabel="requests a second (reached)", ylabel="milliseconds", ylim=(0, None), xlim=(0, None))
    axes.set_title(f"{figures['model']} at {figures['address']}, {figures['began']}", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    picture.tight_layout()
    picture.savefig(path, metadata={"Software": None})
    plt.close(picture)
