"""What a load test measured: samples, and the figures of each step. Pure."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from load_request import PLACES, Objective, Step


class Sample(NamedTuple):
    """One request. It belongs to the step in which it began."""

    step: int
    began_s: float  # since the step's begin
    ms: float  # until the answer was complete
    protocol: str  # rest or grpc
    wrong: str  # the kind of error, or empty


def percentile(values: Sequence[float], share: float) -> float:
    """The least of the sorted values that at least `share` of them do not exceed (nearest rank)."""
    return values[max(0, math.ceil(share * len(values)) - 1)]


def step_figures(step: Step, samples: Iterable[Sample], objective: Objective) -> dict[str, Any]:
    """The figures of one step; its latencies are None if one of its answers was wrong or missing."""
    mine = list(samples)
    errors = Counter(sample.wrong for sample in mine if sample.wrong)
    # Locust looks once a second whether a step is over: what began after its end is in no figure either.
    settled = [sample for sample in mine if step.settle_s <= sample.began_s < step.seconds]
    window_s = step.seconds - step.settle_s
    protocols = sorted({sample.protocol for sample in settled})
    figures: dict[str, Any] = {
        "kind": step.kind,
        "name": step.name,
        "at": PLACES[step.at],
        "round": step.round,
        "users": step.users,
        "asked_per_s": step.rate_per_s,
        "seconds": window_s,
        "sent": len(mine),
        "requests": len(settled),
        "reached_per_s": round(len(settled) / window_s, 2),
        "answered_per_s": round(sum(not sample.wrong for sample in settled) / window_s, 2),
        "errors": dict(sorted(errors.items())),
        **latencies([sample.ms for sample in settled], has_errors=bool(errors)),
        "by_protocol": {
            protocol: latencies([one.ms for one in settled if one.protocol == protocol], has_errors=bool(errors))
            for protocol in protocols
        },
    }
    return {**figures, "holds": holds(figures, objective)}


def latencies(values: Sequence[float], *, has_errors: bool) -> dict[str, float | None]:
    """p50, p95 and p99 in milliseconds. There is no latency beside an error."""
    if has_errors or not values:
        return {"p50_ms": None, "p95_ms": None, "p99_ms": None}
    ordered = sorted(values)
    return {f"p{share:g}_ms": round(percentile(ordered, share / 100), 1) for share in (50, 95, 99)}


def holds(figures: dict[str, Any], objective: Objective) -> bool:
    """Whether a step met the objective: no error, the asked rate was reached, p95 is within its limit."""
    if figures["errors"] or figures["p95_ms"] is None:
        return False
    if figures["asked_per_s"]:  # the window's edges may cut off one request
        least = objective.least_share * figures["asked_per_s"] * figures["seconds"] - 1
        if figures["requests"] < least:
            return False
    return objective.p95_ms is None or figures["p95_ms"] <= objective.p95_ms


def holds_up_to(steps: Iterable[dict[str, Any]]) -> float | None:
    """The largest rate at which the objective held, as at every rate below it; None if it held at none.

    In rounds it must hold in each.
    """
    held: dict[float, bool] = {}
    for step in steps:
        if step["kind"] == "rate" and step["at"] == PLACES[0]:
            held[step["asked_per_s"]] = held.get(step["asked_per_s"], True) and step["holds"]
    return max(itertools.takewhile(held.__getitem__, sorted(held)), default=None)
