"""The picture of a load test: latency against rate or by round, another test's in the same picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from load_request import PLACES

SHADES = ("#1f6feb", "#9aa4b2")  # this test, the other one
FOOT = 0.02  # where crosses for errors are: just above the axis


def draw(figures: dict[str, Any], before: dict[str, Any] | None, path: Path, *, names: Sequence[str]) -> None:
    """Draw the figures, and those of another test. `names` say what the two are."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    picture = picture_of(figures, before, names)
    picture.savefig(path, metadata={"Software": None})
    plt.close(picture)


def picture_of(figures: dict[str, Any], before: dict[str, Any] | None, names: Sequence[str]) -> Any:
    """Latency against rate, or, of a test in rounds, latency by round."""
    from matplotlib import pyplot as plt

    picture, axes = plt.subplots(figsize=(11, 4.5), dpi=120)
    in_rounds = any(step["round"] for step in figures["steps"])
    if in_rounds:
        _draw_rounds(axes, figures)
    else:
        _draw_rates(axes, [figures, *([before] if before else [])], names)
    if limit := figures["objective"]["p95_ms"]:
        axes.axhline(limit, color="#57606a", linewidth=1, linestyle=":", label=f"objective: p95 {limit:g} ms")
    if in_rounds:
        axes.set_ylim(bottom=0)  # last: from then on the axis does not grow
    axes.set_ylabel("milliseconds")
    axes.set_title(f"{figures['model']} at {figures['address']}, {figures['began']}", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))  # beside the curves
    picture.tight_layout()
    return picture


def _draw_rates(axes: Any, tests: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """p50 and p95: lines against the rates that were asked, squares at the rates that closed loops reached.

    A vertical line is where the objective ends. The scale is logarithmic: beyond that, latencies are a hundred times as large.
    """
    from matplotlib.ticker import LogLocator, ScalarFormatter

    for shade, test, name in zip(SHADES, tests, names, strict=False):
        who = f"{name}, version {test['version']}"
        rates = [step for step in test["steps"] if step["kind"] == "rate"]
        closed = [step for step in test["steps"] if step["kind"] == "closed"]
        _draw_points(axes, rates, "p95_ms", "o-", color=shade, label=f"{who}: p95")
        _draw_points(axes, rates, "p50_ms", "o--", color=shade, alpha=0.6, label=f"{who}: p50")
        _draw_points(axes, closed, "p95_ms", "s", color=shade, fillstyle="none", label=f"{who}: p95 in closed loops")
        bad = [_rate_of(step) for step in test["steps"] if step["errors"]]
        _draw_errors(axes, bad, color=shade, label=f"{who}: errors")
        if best := test["holds_up_to_per_s"]:
            axes.axvline(best, color=shade, linewidth=1, linestyle="-.", label=f"{who}: holds up to {best:g}/s")
    axes.set(xlabel="requests a second (asked; in closed loops reached)", xlim=(0, None), yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ScalarFormatter())


def _rate_of(step: dict[str, Any]) -> float:
    """The rate that was asked; of a closed loop, which asks none, the one that was reached."""
    return float(step["asked_per_s"] or step["reached_per_s"])


def _draw_points(axes: Any, steps: Sequence[dict[str, Any]], figure: str, form: str, **how: Any) -> None:
    """A point for each step without errors."""
    good = [step for step in steps if step[figure] is not None]
    if good:
        axes.plot([_rate_of(step) for step in good], [step[figure] for step in good], form, **how)


def _draw_errors(axes: Any, places: Sequence[float], **how: Any) -> None:
    """A cross at the foot of the picture for each step with errors."""
    if places:
        foot = axes.get_xaxis_transform()
        axes.plot(places, [FOOT] * len(places), "x", markersize=9, transform=foot, **how)


def _draw_rounds(axes: Any, figures: dict[str, Any]) -> None:
    """p95 of each round, of both targets; rounds with errors are crosses."""
    for shade, at, who in zip(SHADES, PLACES, ("this release", "the live release"), strict=True):
        steps = [step for step in figures["steps"] if step["at"] == at]
        good = [step for step in steps if step["p95_ms"] is not None]
        if good:
            rounds = [step["round"] for step in good]
            axes.plot(rounds, [step["p95_ms"] for step in good], "o-", color=shade, label=f"{who}: p95")
        bad = [step["round"] for step in steps if step["errors"]]
        _draw_errors(axes, bad, color=shade, label=f"{who}: errors")
    rate = figures["steps"][0]["asked_per_s"]
    axes.set(xlabel=f"round, at {rate:g} requests a second")
    axes.xaxis.get_major_locator().set_params(integer=True)
