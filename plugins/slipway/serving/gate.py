"""Judges the gate from its rounds of answers: passes in a row, budgets for failures and errors, latency. Pure.

A wrong answer is a failure; by the model file's defaults one failure fails the gate. A missing answer (no connection, 404, 429,
5xx) is an error: the gate tries again. Correct answers above the latency limit make the gate inconclusive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from slipway.release import Gate
from slipway.serving.golden import judge_round
from slipway.verdict import Verdict

SLOW_ATTEMPTS = 3  # full counts of rounds that may be too slow: a server's first answers take longest
PERCENTILE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundResult:
    """The verdicts on one round's answers, and how long each answer took."""

    rest: tuple[Verdict, ...]
    grpc: tuple[Verdict, ...] = ()
    others: tuple[Verdict, ...] = ()  # on garbage, and why something was not sent
    times_ms: tuple[float, ...] = ()  # of golden answers, connecting included

    @property
    def verdict(self) -> Verdict:
        """The round's verdict; passes over gRPC become one line."""
        grpc = judge_round(self.grpc)
        if self.grpc and grpc.outcome == "pass":
            grpc = Verdict.passed(f"{len(self.grpc)} of {len(self.grpc)} over gRPC, by the same version")
        return judge_round([*self.rest, *((grpc,) if self.grpc else ()), *self.others])

    @property
    def failures(self) -> int:
        """The number of wrong answers."""
        return sum(verdict.outcome == "fail" for verdict in (*self.rest, *self.grpc, *self.others))


@dataclass(frozen=True, slots=True, kw_only=True)
class GateState:
    """The gate's counts after the rounds so far."""

    passes_in_a_row: int = 0  # rounds
    has_passed: bool = False  # whether any round has passed
    failures: int = 0  # wrong answers
    errors: int = 0  # rounds with missing answers since the first pass
    times_ms: tuple[float, ...] = ()  # of the rounds in a row
    slow: int = 0  # how often enough rounds in a row passed, but too slowly
    not_passed: str = ""  # why the last round that did not pass did not

    @property
    def restarted(self) -> GateState:
        """The same, with the rounds in a row counted from zero."""
        return replace(self, passes_in_a_row=0, times_ms=())


def judge_gate(state: GateState, latest: RoundResult, gate: Gate, *, passes: int) -> tuple[GateState, Verdict]:
    """The gate's state and verdict after one more round."""
    if latest.verdict.outcome != "pass":
        state = replace(state.restarted, not_passed=latest.verdict.reason)
        if latest.failures:
            return _judge_failure(replace(state, failures=state.failures + latest.failures), latest, gate)
        return _judge_error(replace(state, errors=state.errors + state.has_passed), latest, gate)
    times_ms = (*state.times_ms, *latest.times_ms)
    state = replace(state, passes_in_a_row=state.passes_in_a_row + 1, has_passed=True, times_ms=times_ms)
    if state.passes_in_a_row < passes:
        before = "the round before" if state.passes_in_a_row == 1 else "the round before them"
        why = f"; {before}: {state.not_passed}" if state.not_passed else ""
        return state, Verdict.wait(f"{state.passes_in_a_row} of {passes} rounds in a row passed{why}")
    said = f"{state.passes_in_a_row} of {passes} rounds in a row passed; {latest.verdict.reason}"
    latency = judge_latency(state.times_ms, gate.latency_ms)
    if latency.outcome == "pass":
        return state, Verdict.passed(f"{said}; {latency.reason}" if latency.reason else said)
    state = replace(state, slow=state.slow + 1)
    if state.slow < SLOW_ATTEMPTS:
        return state.restarted, Verdict.wait(f"too slow, attempt {state.slow} of {SLOW_ATTEMPTS}: {latency.reason}")
    return state, Verdict.inconclusive(f"{said}; {latency.reason}, {state.slow} times in a row")


def _judge_failure(state: GateState, latest: RoundResult, gate: Gate) -> tuple[GateState, Verdict]:
    if not gate.failures:
        return state, latest.verdict
    said = f"{state.failures} wrong answers, {gate.failures} allowed: {latest.verdict.reason}"
    return state, Verdict.failed(said) if state.failures > gate.failures else Verdict.wait(said)


def _judge_error(state: GateState, latest: RoundResult, gate: Gate) -> tuple[GateState, Verdict]:
    if gate.errors is None or state.errors <= gate.errors:
        return state, latest.verdict
    rounds = f"{state.errors} rounds with missing answers after the first pass, {gate.errors} allowed"
    return state, Verdict.failed(f"{rounds}: {latest.verdict.reason}")


def judge_latency(times_ms: Sequence[float], limit_ms: int | None) -> Verdict:
    """Whether 95 % of the answers took at most the limit; of fewer than twenty answers, all. No reason without a limit."""
    if limit_ms is None or not times_ms:
        return Verdict.passed("")
    found = percentile(times_ms)
    said = f"95 of 100 answers within {found:.0f} ms, limit {limit_ms} ms"
    return Verdict.passed(said) if found <= limit_ms else Verdict.inconclusive(said)


def percentile(times_ms: Sequence[float]) -> float:
    """The 95th percentile by nearest rank."""
    return sorted(times_ms)[math.ceil(PERCENTILE * len(times_ms)) - 1]


def judge_all(verdicts: Sequence[Verdict]) -> Verdict:
    """Several verdicts as one: the first fail, else the first wait, else inconclusive, else pass, with all reasons."""
    together = judge_round(verdicts)
    inconclusive = any(verdict.outcome == "inconclusive" for verdict in verdicts)
    return Verdict.inconclusive(together.reason) if inconclusive and together.outcome == "pass" else together


def gate_goes_on(verdict: Verdict, *, asks: bool, approved: bool) -> bool:
    """Whether a run goes on after its gate: on a pass; on an inconclusive result only if a person decides, or has said yes."""
    return verdict.outcome == "pass" or (verdict.outcome == "inconclusive" and (asks or approved))


def gate_blames_release(verdict: Verdict, *, late: bool | None, unanswered: bool) -> bool:
    """Whether a failed gate is the release's fault: a wrong or inconclusive answer is, a missing one is not.

    `late` is None if the trigger does not say whether time was up.
    """
    return verdict.outcome == "inconclusive" or (late is False and not unanswered)
