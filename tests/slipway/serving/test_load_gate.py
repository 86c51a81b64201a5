"""What a preview's figures under load are worth."""

import pytest

from slipway.release import LoadBounds
from slipway.serving.gate import judge_all
from slipway.serving.load_gate import interval, judge_answers, judge_times
from slipway.verdict import Verdict

BOUNDS = LoadBounds(rate_per_s=5, p95_ms=100, max_slowdown=0.2)
NO_LIVE = Verdict.passed("load: there is no live release to compare with")
EVEN, SPREAD = (90, 91, 89, 90, 90), (40, 150, 60, 140, 80)


def rounds(times_ms, *, at="release", reached=5.0, errors=None):
    """The steps of one server, a round for each p95."""
    return [
        {
            "at": at, "round": number + 1, "sent": 50, "requests": 40, "answered": round(reached * 8), "seconds": 8, "reached_per_s": reached,
            "p95_ms": time_ms, "errors": errors or {},
        }
        for number, time_ms in enumerate(times_ms)
    ]  # fmt: skip


def judge(times_ms, beside=(), *, bounds=BOUNDS, **how):
    """The verdict on these rounds."""
    figures = {"steps": [*rounds(times_ms, **how), *rounds(beside, at="beside")]}
    return judge_all([judge_answers(bounds, figures, {}), *judge_times(bounds, figures, NO_LIVE)])


def test_passes_within_all_limits():
    """The reason has each measurement, with its interval."""
    verdict = judge(EVEN, (88, 91, 90, 89, 92))
    assert (verdict.outcome, verdict.reason.split("; ")) == (
        "pass",
        [
            "load: 250 requests at 5/s, each answered correctly",
            "load: 5/s of 5/s reached",
            "load: p95 90 ms at 5/s, limit 100 ms (95 % interval 89 to 91)",
            "load: p95 is 1.00 times the live release's, at most 1.2 times allowed (95 % interval 0.98 to 1.02)",
        ],
    )


LATENCIES = {
    "fails if the interval is above the limit": ((150, 151, 149, 150, 152), "fail", "p95 150 ms at 5/s, limit 100 ms (95 % interval 149 to 152)"),
    "inconclusive if the spread may explain it": ((90, 180, 60, 150, 80), "inconclusive", "p95 112 ms at 5/s, limit 100 ms (95 % interval 49 to 175)"),
    "passes below the limit, whatever the spread": (SPREAD, "pass", "p95 94 ms"),
    "inconclusive if errors left two rounds": ((90, None, None, 90, None), "inconclusive", "p95 was measured in 2 of 5 rounds"),
}  # fmt: skip


@pytest.mark.parametrize(("times_ms", "outcome", "words"), LATENCIES.values(), ids=LATENCIES)
def test_latency(times_ms, outcome, words):
    """p95 at the rate, against the limit."""
    verdict = judge(times_ms, bounds=LoadBounds(rate_per_s=5, p95_ms=100))
    assert (verdict.outcome, words in verdict.reason) == (outcome, True), verdict.reason


SLOWDOWNS = {
    "as fast": (EVEN, EVEN, "pass"),
    "twice as slow": ((180, 181, 182, 179, 180), EVEN, "fail"),
    "a third slower, with a large spread": ((90, 240, 60, 250, 80), EVEN, "inconclusive"),
    "faster": ((50,) * 5, EVEN, "pass"),
    "the live release had errors": (EVEN, (90, None, None, 90, None), "inconclusive"),
}


@pytest.mark.parametrize(("times_ms", "beside", "outcome"), SLOWDOWNS.values(), ids=SLOWDOWNS)
def test_slowdown_beside_the_live_release(times_ms, beside, outcome):
    """Each round compares both in the same half minute: what slows down the whole machine cancels out."""
    bounds = LoadBounds(rate_per_s=5, max_slowdown=0.2)
    assert judge(times_ms, beside, bounds=bounds).outcome == outcome


def test_a_slow_machine_cancels_out():
    """Rounds that differ tenfold, in which both are equally slow, are conclusive."""
    times = (20, 200, 100, 50, 20)
    assert judge(times, times, bounds=LoadBounds(rate_per_s=5, max_slowdown=0.2)).outcome == "pass"


def test_without_a_live_release_there_is_nothing_to_compare():
    """A first release passes; one whose predecessor did not answer is inconclusive, as the caller says."""
    assert "there is no live release" in judge(EVEN).reason
    silent = Verdict.inconclusive("load: not compared with the live release: version 3 answered HTTP 0")
    figures = {"steps": rounds(EVEN)}
    assert judge_times(BOUNDS, figures, silent)[-1] == silent


ANSWERS = {
    "wrong label": (0.5, "fail", "5 times wrong label: the release answers wrongly under load"),
    "HTTP 503": (0, "fail", "250 requests at 5/s, 5 times HTTP 503, a share of 0 allowed"),
    "no answer": (0.02, "pass", "5 times no answer, a share of 0.02 allowed"),
}


@pytest.mark.parametrize(("kind", "case"), ANSWERS.items(), ids=ANSWERS)
def test_answers(kind, case):
    """A wrong answer fails whatever share of errors is allowed: no overload explains it."""
    allowed, outcome, words = case
    bounds = LoadBounds(rate_per_s=5, max_errors=allowed)
    verdict = judge_answers(bounds, {"steps": rounds(EVEN, errors={kind: 1})}, {})
    assert (verdict.outcome, words in verdict.reason) == (outcome, True), verdict.reason


def test_what_was_lost_on_the_way_is_beside_the_missing_answers():
    """It may be why they are missing; without a missing answer it does not matter."""
    lost = {"pod/a: the websocket failed": 2}
    missing = judge_answers(BOUNDS, {"steps": rounds(EVEN, errors={"gRPC UNAVAILABLE": 1})}, lost)
    assert missing.reason.endswith(" allowed (lost on the way: 2 times pod/a: the websocket failed)")
    assert "lost" not in judge_answers(BOUNDS, {"steps": rounds(EVEN)}, lost).reason


@pytest.mark.parametrize(("reached", "outcome"), [(4.7, "pass"), (4.0, "fail")])
def test_the_rate_must_be_reached(reached, outcome):
    """Answers that take longer than a user waits lower the rate. A window's edges may cut off one request."""
    assert judge(EVEN, reached=reached, bounds=LoadBounds(rate_per_s=5)).outcome == outcome


def test_refusals_do_not_reach_the_rate():
    """Forty requests a round were sent, as many as asked; two thirds of them were answered, and a third may be refused."""
    bounds = LoadBounds(rate_per_s=5, max_errors=0.4)
    verdict = judge(EVEN, reached=3.3, errors={"HTTP 503": 14}, bounds=bounds)
    assert (verdict.outcome, verdict.reason) == ("fail", "load: 3.3/s of 5/s reached")


def test_interval_of_students_t():
    """Of 1, 2, 3, 4, 5: 3 ± 2.776 · 1.5811 / √5."""
    assert interval([1, 2, 3, 4, 5]) == pytest.approx((3, 1.037, 4.963), abs=0.001)
    assert interval([2, 2, 2]) == (2, 2, 2)
