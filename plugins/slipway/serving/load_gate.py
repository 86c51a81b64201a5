"""Judges what a preview bears under load, in rounds of a constant rate: answers, rate, latency, and the live release beside it. Pure.

A limit that is exceeded fails the release only if the spread of the rounds cannot explain it; otherwise it is inconclusive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import mean, stdev

from slipway.facts import JsonObject
from slipway.release import LoadBounds
from slipway.serving.load import count_kinds, errors_of, wrong_answers
from slipway.verdict import Verdict

LEAST_SHARE = 0.95  # of the rate that must be reached
LEAST_ROUNDS = 3
# Student's t, two-sided 95 %, by degrees of freedom: from 3 rounds to 20.
T = dict(zip(range(2, 20), (
    4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093,
), strict=True))  # fmt: skip


def judge_answers(bounds: LoadBounds, figures: JsonObject, lost: Mapping[str, int]) -> Verdict:
    """Whether the release's answers were right, and no more were missing than allowed.

    `lost` says how many connections were lost on the way to the servers, by reason: that may be why answers are missing.
    """
    steps = steps_of(figures, "release")
    if wrong := wrong_answers(steps):
        return Verdict.failed(f"load: {count_kinds(wrong)}: the release answers wrongly under load")
    sent, errors = sum(step["sent"] for step in steps), errors_of(steps)
    said = f"load: {sent} requests at {bounds.rate_per_s:g}/s"
    if not errors:
        return Verdict.passed(f"{said}, each answered correctly")
    said += f", {count_kinds(errors)}, a share of {bounds.max_errors:g} allowed"
    if lost:
        said += f" (lost on the way: {count_kinds(lost)})"
    return Verdict.failed(said) if errors.total() > bounds.max_errors * sent else Verdict.passed(said)


def judge_times(bounds: LoadBounds, figures: JsonObject, without_live: Verdict) -> list[Verdict]:
    """A verdict for each limit: the rate that was reached, p95, and p95 beside the live release's.

    `without_live` counts for the last one if the live release was not measured.
    """
    steps = steps_of(figures, "release")
    verdicts = [_judge_rate(bounds, steps)]
    if bounds.p95_ms is not None:
        verdicts.append(_judge_p95(bounds, bounds.p95_ms, steps))
    if bounds.max_slowdown is not None:
        beside = steps_of(figures, "beside")
        verdicts.append(_judge_slowdown(bounds.max_slowdown, steps, beside) if beside else without_live)
    return verdicts


def steps_of(figures: JsonObject, at: str) -> list[JsonObject]:
    """The steps of one of the two servers, by round."""
    return sorted((step for step in figures["steps"] if step["at"] == at), key=lambda step: int(step["round"]))


def _judge_rate(bounds: LoadBounds, steps: Sequence[JsonObject]) -> Verdict:
    """Whether the rate was reached, which only right answers count for. A window's edges may cut off one request."""
    reached = [(step["answered"] + 1) / step["seconds"] for step in steps]
    average, _, upper = interval(reached)
    least = LEAST_SHARE * bounds.rate_per_s
    said = f"load: {mean(step['reached_per_s'] for step in steps):.3g}/s of {bounds.rate_per_s:g}/s reached"
    if average >= least:
        return Verdict.passed(said)
    return Verdict.failed(said) if upper < least else Verdict.inconclusive(said)


def _judge_p95(bounds: LoadBounds, limit_ms: float, steps: Sequence[JsonObject]) -> Verdict:
    times_ms = [step["p95_ms"] for step in steps if step["p95_ms"] is not None]
    if len(times_ms) < LEAST_ROUNDS:
        return Verdict.inconclusive(f"load: p95 was measured in {len(times_ms)} of {len(steps)} rounds")
    average, lower, upper = interval(times_ms)
    said = f"load: p95 {average:.0f} ms at {bounds.rate_per_s:g}/s, limit {limit_ms:g} ms"
    return _within(said, average, lower, upper, limit_ms, shown=lambda value: f"{value:.0f}")


def _judge_slowdown(max_slowdown: float, steps: Sequence[JsonObject], beside: Sequence[JsonObject]) -> Verdict:
    """The geometric mean of the rounds' ratios, with the interval of their logarithms."""
    pairs = [(step["p95_ms"], other["p95_ms"]) for step, other in zip(steps, beside, strict=True)]
    ratios = [math.log(mine / other) for mine, other in pairs if mine and other]
    if len(ratios) < LEAST_ROUNDS:
        return Verdict.inconclusive(
            f"load: both releases' p95 was measured in {len(ratios)} of {len(steps)} rounds ({_errors_beside(beside)})"
        )
    average, lower, upper = map(math.exp, interval(ratios))
    limit = 1 + max_slowdown
    said = f"load: p95 is {average:.2f} times the live release's, at most {limit:g} times allowed"
    return _within(said, average, lower, upper, limit, shown=lambda value: f"{value:.2f}")


def _errors_beside(beside: Sequence[JsonObject]) -> str:
    errors = errors_of(beside)
    return f"the live release: {count_kinds(errors)}" if errors else "the live release had no errors"


def _within(
    said: str, average: float, lower: float, upper: float, limit: float, *, shown: Callable[[float], str]
) -> Verdict:
    said = f"{said} (95 % interval {shown(lower)} to {shown(upper)})"
    if average <= limit:
        return Verdict.passed(said)
    return Verdict.failed(said) if lower > limit else Verdict.inconclusive(said)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of at least three values, and its 95 % interval by Student's t."""
    average = mean(values)
    half = T[min(len(values) - 1, max(T))] * stdev(values) / math.sqrt(len(values))
    return average, average - half, average + half
