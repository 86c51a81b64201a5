"""Judges a bake: golden requests at intervals, and what the servers or a Prometheus say about all requests. Pure.

A limit that the bake's end would judge can fail it earlier, if chance alone does not explain what was counted so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from slipway.facts import Speed
from slipway.release import Bake, Gate
from slipway.serving.accuracy import share_difference_interval, wilson_interval
from slipway.serving.gate import PERCENTILE, RoundResult, percentile
from slipway.serving.metrics import UNCOUNTED, Counts, Tally
from slipway.verdict import Verdict

MISSED_IN_A_ROW = 3  # rounds without an answer: users get none either
SEEN_IN_A_ROW = 2  # looks at which a Prometheus's number is beyond its limit
LEAST_LOOKS = 2  # at the servers: what they count is the difference
LEAST_ANSWERS = 20  # before a latency is judged, or a share early: fewer say nothing about one answer in twenty
SLOW_SHARE = 1 - PERCENTILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a Prometheus answered; None for what it was not asked, NaN if it counted no request."""

    errors: float | None = None
    p95_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at a release."""

    golden: RoundResult
    tally: Tally | None = None  # of all looks so far; None if the pods are not read, or could not be read
    asked: Asked | None = None
    unread: str | None = None  # why the metrics could not be read


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a bake has seen so far."""

    rounds: int = 0
    failures: int = 0  # wrong answers
    errors: int = 0  # rounds with missing answers
    errors_in_a_row: int = 0
    beyond_in_a_row: int = 0  # looks at which a Prometheus's number was beyond its limit
    times_ms: tuple[float, ...] = ()  # of golden answers
    tally: Tally = UNCOUNTED
    asked: Asked | None = None
    blames: bool = False  # whether the release is at fault if the bake has failed

    def after(self, look: Look) -> Watch:
        """The watch after one more look."""
        missed = look.golden.verdict.outcome == "wait"
        return replace(
            self,
            rounds=self.rounds + 1,
            failures=self.failures + look.golden.failures,
            errors=self.errors + missed,
            errors_in_a_row=self.errors_in_a_row + 1 if missed else 0,
            times_ms=self.times_ms if missed else (*self.times_ms, *look.golden.times_ms),
            tally=look.tally or self.tally,
            asked=look.asked or self.asked,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A limit, what was measured, and whether that is beyond it."""

    said: str
    beyond: bool = False


def judge_look(watch: Watch, look: Look, gate: Gate, *, before: Speed | None, over: bool) -> tuple[Watch, Verdict]:
    """The watch and its verdict after one more look. `over`: the time of the bake is over, and this look may be the last."""
    bake = gate.bake
    assert bake is not None  # noqa: S101 - only a release with a bake is watched
    watch = watch.after(look)
    golden = _judge_golden(watch, look.golden, gate)
    if golden.outcome == "fail":
        return replace(watch, blames=bool(watch.failures > gate.failures or watch.tally.restarts)), golden
    limits = list(_judge_limits(watch, bake, before, over=over))
    watch = replace(watch, beyond_in_a_row=watch.beyond_in_a_row + 1 if any(one.beyond for one in limits) else 0)
    if beyond := [one.said for one in limits if one.beyond and _is_certain(watch, over=over)]:
        return replace(watch, blames=True), Verdict.failed("; ".join(beyond))
    said = "; ".join([golden.reason, *(one.said for one in limits)])
    if golden.outcome == "wait":
        return watch, golden
    if look.unread:
        return watch, Verdict.wait(f"{golden.reason}; the metrics could not be read: {look.unread}")
    return watch, Verdict.passed(said) if over and _is_complete(watch, bake) else Verdict.wait(said)


def _is_certain(watch: Watch, *, over: bool) -> bool:
    """Whether a number beyond its limit fails the bake; what a Prometheus computes over a short time may jump."""
    return watch.asked is None or over or watch.beyond_in_a_row >= SEEN_IN_A_ROW


def _is_complete(watch: Watch, bake: Bake) -> bool:
    return not bake.reads_pods or watch.tally.looks >= LEAST_LOOKS


def _judge_golden(watch: Watch, latest: RoundResult, gate: Gate) -> Verdict:
    """A failure if more answers were wrong or missing than the gate tolerates, a wait if the last round did not pass."""
    said = latest.verdict.reason
    if watch.failures > gate.failures:
        return Verdict.failed(said)
    if gate.errors is not None and watch.errors > gate.errors:
        return Verdict.failed(f"{watch.errors} rounds with missing answers, {gate.errors} allowed: {said}")
    restarts = f" ({watch.tally.restarts} restarts of its servers)" if watch.tally.restarts else ""
    if watch.errors_in_a_row >= MISSED_IN_A_ROW:
        return Verdict.failed(f"{watch.errors_in_a_row} rounds in a row had missing answers{restarts}: {said}")
    passed = watch.rounds - watch.errors
    done = f"{passed} of {watch.rounds} rounds of golden requests had all their answers{restarts}"
    return Verdict.passed(done) if latest.verdict.outcome == "pass" else Verdict.wait(f"{done}; the last one: {said}")


def _judge_limits(watch: Watch, bake: Bake, before: Speed | None, *, over: bool) -> Iterator[Judged]:
    if not bake.reads_pods:
        yield from _judge_asked(watch.asked or Asked(), bake)
        return
    counts, pods = watch.tally.total, len(watch.tally.pods)
    yield Judged(said=f"{counts.answered} predictions by {pods} {'pod' if pods == 1 else 'pods'}")
    yield _judge_share("failed", counts.errors, counts.answered + counts.errors, bake.max_errors, over=over)
    if bake.max_more_errors is not None:
        yield _judge_more_errors(counts, before, bake.max_more_errors, over=over)
    if bake.max_refused is not None:
        whole = counts.answered + counts.errors + counts.refused
        yield _judge_share("were refused", counts.refused, whole, bake.max_refused, over=over)
    if bake.p95_ms is not None:
        yield _judge_latency(counts, bake.p95_ms, over=over)
    if bake.max_slowdown is not None:
        yield _judge_speed(counts, before, bake.max_slowdown, over=over)


def _judge_share(what: str, part: int, whole: int, limit: float, *, over: bool) -> Judged:
    said = f"{part} of {whole} requests {what}, at most {limit:.4g} of them may"
    return Judged(said=said, beyond=is_beyond(part, whole, limit, over=over))


def is_beyond(part: int, whole: int, limit: float, *, over: bool) -> bool:
    """Whether a share is beyond its limit: at the end of the bake as counted, before it only if Wilson's interval is too."""
    if not whole or part / whole <= limit:
        return False
    return over or not limit or (whole >= LEAST_ANSWERS and wilson_interval(part, whole)[0] > limit)


def _judge_latency(counts: Counts, limit_ms: float, *, over: bool) -> Judged:
    """The servers count answers by the buckets that they fall into: those in a bucket with the limit in it may be fast enough."""
    if counts.answered < LEAST_ANSWERS:
        return Judged(said=f"too few to judge their latency, {LEAST_ANSWERS} are needed")
    slow, end_ms = counts.slower_than(limit_ms)
    said = f"{slow} of them took more than {end_ms:.4g} ms, the next step that the servers count above the limit of {limit_ms:g} ms"
    return Judged(said=said, beyond=is_beyond(slow, counts.answered, SLOW_SHARE, over=over))


def _judge_more_errors(counts: Counts, before: Speed | None, limit: float, *, over: bool) -> Judged:
    if before is None or before.errors is None:
        return Judged(said="errors not compared with the release before, whose errors are unknown")
    whole, whole_before = counts.answered + counts.errors, before.answers + before.errors
    if min(whole, whole_before) < LEAST_ANSWERS:
        few = f"{whole} of this one, {whole_before} of that"
        return Judged(said=f"too few requests to compare their errors with release {before.release_id}: {few}")
    said = (
        f"{counts.errors} of {whole} requests failed, and {before.errors} of {whole_before} of release {before.release_id}: "
        f"the share may be at most {limit:.4g} larger"
    )
    more = counts.errors / whole - before.errors / whole_before
    lower, _ = share_difference_interval(counts.errors, whole, before.errors, whole_before)
    return Judged(said=said, beyond=more > limit and (over or lower > limit))


def _judge_speed(counts: Counts, before: Speed | None, limit: float, *, over: bool) -> Judged:
    mean_ms = counts.mean_ms
    if before is None:
        return Judged(said="not compared with the release before, which has no metrics")
    if mean_ms is None or min(counts.answered, before.answers) < LEAST_ANSWERS:
        few = f"{counts.answered} of this one, {before.answers} of that"
        return Judged(said=f"too few answers to compare with release {before.release_id}: {few}")
    times = mean_ms / before.mean_ms if before.mean_ms else math.inf
    said = f"mean {mean_ms:.4g} ms, {times:.2f} times that of release {before.release_id}, at most {1 + limit:.4g} times allowed"
    return Judged(said=said, beyond=over and times > 1 + limit)


def _judge_asked(asked: Asked, bake: Bake) -> Iterator[Judged]:
    for what, found, limit in (
        ("share of requests that failed", asked.errors, bake.max_errors),
        ("95th percentile in ms", asked.p95_ms, bake.p95_ms),
    ):
        if found is None or limit is None:
            continue
        if math.isnan(found):
            yield Judged(said=f"{what}: no request was counted")
        else:
            said = f"{what} {found:.4g}, limit {limit:.4g}, according to the Prometheus"
            yield Judged(said=said, beyond=found > limit)


def measured_by(watch: Watch, bake: Bake, before: Speed | None) -> dict[str, Any]:
    """What was measured, for the record."""
    counts, asked = watch.tally.total, watch.asked
    served = {
        "answered": counts.answered,
        "errors": counts.errors,
        "refused": counts.refused,
        "statuses": {status: count for status, count in counts.statuses.items() if count},
        "mean_ms": _rounded(counts.mean_ms),
        "p95_within_ms": _rounded(counts.p95_within_ms),
        "pods": len(watch.tally.pods),
        "restarts": watch.tally.restarts,
    }
    return {
        "rounds": watch.rounds,
        "wrong": watch.failures,
        "missed": watch.errors,
        "latency_ms": round(percentile(watch.times_ms)) if watch.times_ms else None,
        "servers": served if bake.reads_pods and watch.tally.looks else None,
        "before": {
            "release": before.release_id,
            "answered": before.answers,
            "errors": before.errors,
            "mean_ms": _rounded(before.mean_ms),
        }
        if before
        else None,
        "prometheus": {"errors": _rounded(asked.errors), "p95_ms": _rounded(asked.p95_ms)} if asked else None,
    }


def _rounded(number: float | None) -> float | None:
    """The number with four digits; None for a NaN, which JSON does not have."""
    return None if number is None or not math.isfinite(number) else float(f"{number:.4g}")
