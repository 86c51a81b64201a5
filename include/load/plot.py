"""The picture of a load test: latency against rate or by round, another release's in the same picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from load_request import PLACES

SHADES = ("#1f6feb", "#9aa4b2")  # this release, the one before
ERROR = "#d1242f"


def draw(figures: dict[str, Any], others: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the figures: latency against rate, or, of a test in rounds, latency by round."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    picture, axes = plt.subplots(figsize=(8, 4.5), dpi=120)
    if any(step["round"] for step in figures["steps"]):
        _draw_rounds(axes, figures)
    else:
        _draw_rates(axes, [figures, *others])
    if limit := figures["objective"]["p95_ms"]:
        axes.axhline(limit, color="#57606a", linewidth=1, linestyle=":", label=f"objective: p95 {limit:g} ms")
    axes.set(ylabel="milliseconds", ylim=(0, None))
    axes.set_title(f"{figures['model']} at {figures['address']}, {figures['began']}", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    picture.tight_layout()
    picture.savefig(path, metadata={"Software": None})
    plt.close(picture)


def _draw_rates(axes: Any, tests: Sequence[dict[str, Any]]) -> None:
    """p50 and p95 of each step without errors against the rate that it reached; steps with errors are crosses."""
    for shade, test in zip(SHADES, tests, strict=False):
        steps = sorted(test["steps"], key=lambda step: step["reached_per_s"])
        good = [step for step in steps if step["p95_ms"] is not None]
        rates = [step["reached_per_s"] for step in good]
        who = f"version {test['version']}"
        axes.plot(rates, [step["p95_ms"] for step in good], "o-", color=shade, label=f"{who}, p95")
        axes.plot(rates, [step["p50_ms"] for step in good], "o--", color=shade, alpha=0.6, label=f"{who}, p50")
        bad = [step["reached_per_s"] for step in steps if step["errors"]]
        axes.plot(bad, [0] * len(bad), "x", color=ERROR, markersize=9, label=f"{who}, errors" if bad else None)
    axes.set(xlabel="requests a second (reached)", xlim=(0, None))


def _draw_rounds(axes: Any, figures: dict[str, Any]) -> None:
    """p95 of each round, of both targets; rounds with errors are crosses."""
    for shade, at in zip(SHADES, PLACES, strict=True):
        steps = [step for step in figures["steps"] if step["at"] == at]
        good = [step for step in steps if step["p95_ms"] is not None]
        said = "this release" if at == PLACES[0] else "the live release"
        if good:
            rounds = [step["round"] for step in good]
            axes.plot(rounds, [step["p95_ms"] for step in good], "o-", color=shade, label=f"{said}, p95")
        bad = [step["round"] for step in steps if step["errors"]]
        axes.plot(bad, [0] * len(bad), "x", color=ERROR, markersize=9, label=f"{said}, errors" if bad else None)
    rate = figures["steps"][0]["asked_per_s"]
    axes.set(xlabel=f"round, at {rate:g} requests a second")
    axes.xaxis.get_major_locator().set_params(integer=True)
