"""What a gate makes of many answers: how many rounds in a row passed, what it bears, how long they took. Pure.

A wrong answer is a failure, and with the model file's defaults the end. No answer (no connection, 404, 429, 5xx) is an error:
the gate looks again. Right answers that come too late are neither: the gate is in doubt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from slipway.release import Gate
from slipway.serving.golden import judge_round
from slipway.verdict import Verdict

SLOW_TRIES = (
    3  # rounds in a row that were too slow are asked anew: a server's first answers take longer than all others
)
PERCENTILE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round: what each of its answers is worth, and how long each took."""

    rest: tuple[Verdict, ...]
    grpc: tuple[Verdict, ...] = ()
    others: tuple[Verdict, ...] = ()  # of garbage, and why something was not asked
    times_ms: tuple[float, ...] = ()  # of golden answers, with their connections

    @property
    def verdict(self) -> Verdict:
        """What the round is worth; of gRPC's passes one line is enough."""
        spoken = judge_round(self.grpc)
        if self.grpc and spoken.outcome == "pass":
            spoken = Verdict.passed(f"{len(self.grpc)} of {len(self.grpc)} over gRPC, by the same version")
        return judge_round([*self.rest, *((spoken,) if self.grpc else ()), *self.others])

    @property
    def failures(self) -> int:
        """How many of its answers were wrong."""
        return sum(verdict.outcome == "fail" for verdict in (*self.rest, *self.grpc, *self.others))


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a gate stands after the rounds so far."""

    streak: int = 0  # rounds in a row that passed
    begun: bool = False  # whether one has ever passed
    failures: int = 0
    errors: int = 0  # rounds without all answers since one has passed
    times_ms: tuple[float, ...] = ()  # of the rounds in a row
    slow: int = 0  # how often they were enough, and too slow

    @property
    def broken(self) -> Standing:
        """The same, to be counted from nought."""
        return replace(self, streak=0, times_ms=())


def judge_gate(standing: Standing, latest: Round, gate: Gate, *, passes: int) -> tuple[Standing, Verdict]:
    """The gate after one more round: where it stands now, and what that means."""
    if latest.failures:
        return _judge_failure(replace(standing.broken, failures=standing.failures + latest.failures), latest, gate)
    if latest.verdict.outcome != "pass":
        return _judge_error(replace(standing.broken, errors=standing.errors + standing.begun), latest, gate)
    standing = replace(
        standing, streak=standing.streak + 1, begun=True, times_ms=(*standing.times_ms, *latest.times_ms)
    )
    if standing.streak < passes:
        return standing, Verdict.wait(f"{standing.streak} of {passes} rounds in a row passed")
    said = f"{standing.streak} of {passes} rounds in a row passed; {latest.verdict.reason}"
    late = judge_latency(standing.times_ms, gate.latency_ms)
    if late.outcome == "pass":
        return standing, Verdict.passed(f"{said}; {late.reason}" if late.reason else said)
    standing = replace(standing, slow=standing.slow + 1)
    if standing.slow < SLOW_TRIES:
        return standing.broken, Verdict.wait(f"asked again, {standing.slow} of {SLOW_TRIES} times: {late.reason}")
    return standing, Verdict.inconclusive(f"{said}; {late.reason}, {standing.slow} times in a row")


def _judge_failure(standing: Standing, latest: Round, gate: Gate) -> tuple[Standing, Verdict]:
    words = latest.verdict.reason
    if not gate.failures:
        return standing, latest.verdict
    count = f"{standing.failures} wrong answers, {gate.failures} allowed: {words}"
    return standing, Verdict.failed(count) if standing.failures > gate.failures else Verdict.wait(count)


def _judge_error(standing: Standing, latest: Round, gate: Gate) -> tuple[Standing, Verdict]:
    if gate.errors is None or standing.errors <= gate.errors:
        return standing, latest.verdict
    rounds = f"{standing.errors} rounds without all answers after one that passed, {gate.errors} allowed"
    return standing, Verdict.failed(f"{rounds}: {latest.verdict.reason}")


def judge_latency(times_ms: Sequence[float], limit_ms: int | None) -> Verdict:
    """Whether 95 of 100 answers came within the limit; of fewer than twenty, all of them. Says nothing without a limit."""
    if limit_ms is None or not times_ms:
        return Verdict.passed("")
    found = percentile(times_ms)
    said = f"95 of 100 answers within {found:.0f} ms, {limit_ms} promised"
    return Verdict.passed(said) if found <= limit_ms else Verdict.inconclusive(said)


def percentile(times_ms: Sequence[float]) -> float:
    """The 95th percentile by nearest rank."""
    return sorted(times_ms)[math.ceil(PERCENTILE * len(times_ms)) - 1]


def judge_all(verdicts: Sequence[Verdict]) -> Verdict:
    """Several judgements as one: the first no, else the first not yet, else doubt, else yes, with all that was said."""
    together = judge_round(verdicts)
    doubted = any(verdict.outcome == "inconclusive" for verdict in verdicts)
    return Verdict.inconclusive(together.reason) if doubted and together.outcome == "pass" else together
