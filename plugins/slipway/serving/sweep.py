"""What a sweep's measurements are worth: a row for each variant, and the one that is recommended. Pure.

Two variants differ only if the 95 % interval of the difference of their means excludes zero. Else they are within the noise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from slipway.facts import JsonObject, Turn
from slipway.load_plan import LoadPlan
from slipway.serving.load import count_kinds, errors_of
from slipway.serving.load_gate import LEAST_ROUNDS, LEAST_SHARE, interval
from slipway.variants import SweepPlan

LATENCY, MOST, PER_CPU = "p95_ms", "most_per_s", "per_cpu_s"  # figures of a row
BETTER = {LATENCY: min, PER_CPU: max}


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """CPUs in use, on average between two Unix times."""

    began_s: float
    ended_s: float
    cpus: float


def load_plan_of_turn(plan: SweepPlan) -> LoadPlan:
    """The steps of a turn: first all rounds at the rate, then all in the closed loop."""
    return LoadPlan(
        rates_per_s=(plan.rate_per_s,) * plan.rounds,
        closed_users=(plan.closed_users,) * plan.rounds,
        step_s=plan.step_s,
        settle_s=plan.settle_s,
        grpc_share=0,
        p95_ms=plan.p95_ms,
    )


def measured_turn(
    plan: SweepPlan,
    variant: str,
    number: int,
    figures: JsonObject,
    *,
    uri: str,
    began_s: Sequence[float],
    usages: Iterable[Usage],
    why_no_cpu: str | None,
) -> Turn:
    """A turn from the load test's figures, the Unix times at which its steps began, and the CPU that the pods used."""
    steps = figures["steps"]
    at_rate = [step for step in steps if step["kind"] == "rate"]
    closed = [step for step in steps if step["kind"] == "closed"]
    per_cpu_s = requests_per_cpu_s(plan, steps, began_s, usages)
    return Turn(
        variant=variant,
        number=number,
        uri=uri,
        p95_ms=tuple(step["p95_ms"] for step in at_rate if step["p95_ms"] is not None),
        reached_per_s=tuple(step["reached_per_s"] for step in at_rate),
        most_per_s=tuple(step["reached_per_s"] for step in closed),
        per_cpu_s=per_cpu_s,
        why_no_cpu=None if per_cpu_s else why_no_cpu or "the closed loop was too short for a measurement of the CPU",
        errors=dict(errors_of(steps)),
    )


def requests_per_cpu_s(
    plan: SweepPlan, steps: Sequence[JsonObject], began_s: Sequence[float], usages: Iterable[Usage]
) -> tuple[float, ...]:
    """Answered requests for each second of CPU, for each measurement of the CPU that lies within the closed loop without its beginning.

    The clocks of worker and nodes may differ by a second or so, which changes nothing in a load that stays the same.
    """
    closed = [
        (begin_s, begin_s + plan.step_s, step["reached_per_s"])
        for begin_s, step in zip(began_s, steps, strict=False)
        if step["kind"] == "closed"
    ]
    if not closed:
        return ()
    first_s, last_s = closed[0][0] + plan.settle_s, closed[-1][1]
    within = [one for one in usages if first_s <= one.began_s and one.ended_s <= last_s and one.cpus > 0]
    return tuple(_rate_during(one, closed) / one.cpus for one in within)


def _rate_during(usage: Usage, steps: Sequence[tuple[float, float, float]]) -> float:
    """The rate of the steps that a measurement overlaps, each as much as it overlaps."""
    overlaps = [max(0.0, min(end_s, usage.ended_s) - max(begin_s, usage.began_s)) for begin_s, end_s, _ in steps]
    return sum(part * rate for part, (_, _, rate) in zip(overlaps, steps, strict=True)) / sum(overlaps)


def judge_sweep(plan: SweepPlan, turns: Iterable[Turn]) -> JsonObject:
    """The table as JSON: a row for each variant, the best by each figure, and the recommended variant (None: none holds).

    With an objective, the most requests per CPU second count among the variants within it, if their CPU is known. Without one, the
    smallest p95. Of variants that differ only within the noise, the first one is recommended: the model file's own before others.
    """
    found = list(turns)
    rows = [_row(plan, one.name, [turn for turn in found if turn.variant == one.name]) for one in plan.variants]
    held = [row for row in rows if row["holds"]]
    best = {name: _best(name, held) for name in (LATENCY, PER_CPU)}
    by = PER_CPU if plan.p95_ms is not None and best[PER_CPU] else LATENCY
    chosen = best[by]
    return {
        "rate_per_s": plan.rate_per_s,
        "closed_users": plan.closed_users,
        "objective": {"p95_ms": plan.p95_ms},
        "rows": rows,
        "best": best,
        "by": by,
        "recommended": chosen and chosen["first"],
    }


def _row(plan: SweepPlan, variant: str, turns: Sequence[Turn]) -> JsonObject:
    errors: Counter[str] = Counter()
    for turn in turns:
        errors.update(turn.errors)
    why_not = next((turn.why_not for turn in turns if turn.why_not), None if turns else "its task failed")
    row = {
        "variant": variant,
        "why_not": why_not,
        "errors": dict(errors),
        "why_no_cpu": next((turn.why_no_cpu for turn in turns if turn.why_no_cpu), None),
        "reached_per_s": _figure([rate for turn in turns for rate in turn.reached_per_s]),
        # No latency is reported beside an error.
        LATENCY: None if errors else _figure([time_ms for turn in turns for time_ms in turn.p95_ms]),
        MOST: _figure([rate for turn in turns for rate in turn.most_per_s]),
        PER_CPU: _figure([count for turn in turns for count in turn.per_cpu_s]),
    }
    return {**row, "holds": _holds(plan, row)}


def _figure(values: Sequence[float]) -> JsonObject | None:
    """The mean and its 95 % interval, which fewer than three values do not have."""
    if not values:
        return None
    if len(values) < LEAST_ROUNDS:
        return {"mean": mean(values), "low": None, "high": None}
    return dict(zip(("mean", "low", "high"), interval(values), strict=True))


def _holds(plan: SweepPlan, row: Mapping[str, Any]) -> bool:
    """Whether a variant was measured, answered everything, reached the rate, and is within the objective."""
    if row["why_not"] or row["errors"] or row[LATENCY] is None:
        return False
    cut_off = 1 / (plan.step_s - plan.settle_s)  # a window's edges may cut off one request
    if row["reached_per_s"]["mean"] + cut_off < LEAST_SHARE * plan.rate_per_s:
        return False
    return plan.p95_ms is None or row[LATENCY]["mean"] <= plan.p95_ms


def _best(name: str, rows: Sequence[JsonObject]) -> JsonObject | None:
    """The best variant by a figure, those that differ from it only within the noise, and the first of all these; None if any lacks it."""
    if not rows or any(row[name] is None for row in rows):
        return None
    best = BETTER[name](rows, key=lambda row: float(row[name]["mean"]))
    equal = [row["variant"] for row in rows if row is best or is_noise(row[name], best[name])]
    return {
        "variant": best["variant"],
        "first": equal[0],
        "within_noise": [one for one in equal if one != best["variant"]],
    }


def is_noise(one: JsonObject, other: JsonObject) -> bool:
    """Whether two means differ by less than the half of the interval of their difference; also if one has no interval."""
    if one["low"] is None or other["low"] is None:
        return True
    halves = [figure["high"] - figure["mean"] for figure in (one, other)]
    return bool(abs(one["mean"] - other["mean"]) <= math.hypot(*halves))


def describe_sweep(found: JsonObject) -> str:
    """The recommendation in one line."""
    first = found["recommended"]
    if first is None:
        limit = found["objective"]["p95_ms"]
        within = "" if limit is None else f" within p95 {limit:g} ms"
        return f"sweep: no variant answers {found['rate_per_s']:g}/s without errors{within}: nothing is recommended"
    best = found["best"][found["by"]]
    why = {LATENCY: "the smallest p95 at the rate", PER_CPU: "the most requests per CPU second"}[found["by"]]
    if not best["within_noise"]:
        return f"sweep: recommended: {first}, with {why}, by more than the noise"
    others = "; ".join(one for one in (best["variant"], *best["within_noise"]) if one != first)
    return f"sweep: recommended: {first}; {why} is within the noise of: {others}"


def render_table(found: JsonObject) -> str:
    """The table as text: the means, with their 95 % intervals in brackets."""
    heads = (
        "variant",
        f"p95 ms at {found['rate_per_s']:g}/s",
        f"most/s with {found['closed_users']} users",
        "requests per CPU s",
        "",
    )
    lines = [heads, *map(_cells, found["rows"])]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cells(row: JsonObject) -> tuple[str, ...]:
    if row["why_not"]:
        return row["variant"], "", "", "", f"not measured: {row['why_not']}"
    notes = [f"errors: {count_kinds(row['errors'])}"] if row["errors"] else []
    notes += [f"CPU not measured: {row['why_no_cpu']}"] if row[PER_CPU] is None else []
    notes += [] if row["holds"] else ["does not hold the objective"]
    return row["variant"], *(_shown(row[name]) for name in (LATENCY, MOST, PER_CPU)), "; ".join(notes)


def _shown(figure: JsonObject | None) -> str:
    if figure is None:
        return "-"
    if figure["low"] is None:
        return f"{figure['mean']:.3g}"
    return f"{figure['mean']:.3g} ({figure['low']:.3g} to {figure['high']:.3g})"
