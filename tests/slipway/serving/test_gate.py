import pytest

from slipway.release import Gate
from slipway.serving.gate import GateState, RoundResult, judge_all, judge_gate, judge_latency, percentile
from slipway.verdict import Verdict

PASS, WAIT, FAIL, UNSURE = Verdict.passed("p"), Verdict.wait("w"), Verdict.failed("f"), Verdict.inconclusive("i")
GATE = Gate()


def after(rounds, gate=GATE, *, passes=3):
    """The gate's state and verdict after these rounds; the verdict after each earlier round is wait."""
    state, verdicts = GateState(), []
    for latest in rounds:
        state, verdict = judge_gate(state, latest, gate, passes=passes)
        verdicts.append(verdict)
    assert {verdict.outcome for verdict in verdicts[:-1]} <= {"wait"}
    return state, verdicts[-1]


def rest_round(*verdicts, times_ms=(10.0,)):
    """A round over REST only."""
    return RoundResult(rest=verdicts, times_ms=times_ms)


GOOD, MISSING, WRONG = rest_round(PASS), rest_round(WAIT), rest_round(FAIL)
SLOW = rest_round(PASS, times_ms=(600.0,))


def test_pass_after_enough_rounds_in_a_row():
    """The gate passes with the last of the required rounds in a row."""
    assert after([GOOD])[1] == Verdict.wait("1 of 3 rounds in a row passed")
    assert after([GOOD, GOOD])[1] == Verdict.wait("2 of 3 rounds in a row passed")
    assert after([GOOD] * 3)[1] == Verdict.passed("3 of 3 rounds in a row passed; p")
    assert after([GOOD], passes=1)[1] == Verdict.passed("1 of 1 rounds in a row passed; p")


def test_an_error_is_not_a_failure():
    """A round with missing answers only restarts the count of rounds in a row, until the time limit."""
    state, verdict = after([GOOD, GOOD, *[MISSING] * 50])
    assert (state.passes_in_a_row, verdict) == (0, WAIT)
    assert after([GOOD, GOOD, MISSING, GOOD, GOOD, GOOD])[1].outcome == "pass"


def test_a_wait_says_why_the_round_before_did_not_pass():
    """If time is up after a round that passed, the reason still names what kept the gate from passing; a pass does not."""
    assert after([GOOD, MISSING, GOOD])[1] == Verdict.wait("1 of 3 rounds in a row passed; the round before: w")
    assert after([WRONG, GOOD], Gate(failures=1))[1] == Verdict.wait(
        "1 of 3 rounds in a row passed; the round before: f"
    )
    assert after([MISSING, GOOD, GOOD])[1] == Verdict.wait("2 of 3 rounds in a row passed; the round before them: w")
    assert after([MISSING, GOOD, GOOD, GOOD])[1] == Verdict.passed("3 of 3 rounds in a row passed; p")


def test_a_failure_fails_the_gate():
    """One wrong answer fails at once, after any number of passes, and next to a missing answer."""
    assert after([GOOD, GOOD, rest_round(WAIT, FAIL)])[1] == FAIL


def test_tolerated_failures_restart_the_count():
    """The model file's `failures` counts wrong answers; each tolerated one restarts the count of rounds in a row."""
    gate = Gate(failures=2)
    state, verdict = after([GOOD, GOOD, rest_round(FAIL, FAIL)], gate)
    assert (state.passes_in_a_row, verdict) == (0, Verdict.wait("2 wrong answers, 2 allowed: f"))
    assert after([GOOD, GOOD, rest_round(FAIL, FAIL), GOOD, GOOD, GOOD], gate)[1].outcome == "pass"
    assert after([WRONG, rest_round(FAIL, FAIL)], gate)[1] == Verdict.failed("3 wrong answers, 2 allowed: f")


def test_errors_count_once_a_round_has_passed():
    """A release may take long to start, but must not become unavailable again."""
    gate = Gate(errors=1)
    assert after([*[MISSING] * 9, GOOD, MISSING, GOOD, GOOD, GOOD], gate)[1].outcome == "pass"
    said = "2 rounds with missing answers after the first pass, 1 allowed: w"
    assert after([*[MISSING] * 9, GOOD, MISSING, GOOD, MISSING], gate)[1] == Verdict.failed(said)


def test_error_budget_of_zero():
    """With `errors: 0`, the first round with missing answers after a pass fails the gate."""
    assert after([MISSING, GOOD, MISSING], Gate(errors=0))[1].outcome == "fail"


def test_correct_but_slow_is_inconclusive_after_three_attempts():
    """A server's first answers are slow: the gate is inconclusive only after three slow attempts in a row."""
    gate = Gate(latency_ms=500)
    said = "95 of 100 answers within 600 ms, limit 500 ms"
    assert after([SLOW] * 3, gate)[1] == Verdict.wait(f"too slow, attempt 1 of 3: {said}")
    assert after([SLOW] * 9, gate)[1] == Verdict.inconclusive(
        f"3 of 3 rounds in a row passed; p; {said}, 3 times in a row"
    )
    assert after([*[SLOW] * 6, *[GOOD] * 3], gate)[1] == Verdict.passed(
        "3 of 3 rounds in a row passed; p; 95 of 100 answers within 10 ms, limit 500 ms"
    )


def test_only_counted_rounds_are_timed():
    """When the count restarts, the times of earlier rounds are dropped."""
    assert after([SLOW, MISSING, GOOD, GOOD, GOOD], Gate(latency_ms=500))[1].outcome == "pass"


def test_wrong_and_slow_is_wrong():
    """The time of a wrong answer does not matter."""
    assert after([rest_round(FAIL, times_ms=(600.0,))], Gate(latency_ms=500))[1] == FAIL


@pytest.mark.parametrize(("times_ms", "found"), [([5], 5), ([1, 9], 9), (range(1, 21), 19), (range(1, 101), 95)])
def test_percentile_is_the_nearest_rank(times_ms, found):
    """Of fewer than twenty answers, the 95th percentile is the largest."""
    assert found == percentile(list(times_ms))


def test_latency_is_judged_only_against_a_limit():
    """Without a limit the verdict is a pass without a reason; a time equal to the limit passes."""
    assert judge_latency([10_000], None) == Verdict.passed("")
    assert judge_latency([500], 500).outcome == "pass"
    assert judge_latency([501], 500).outcome == "inconclusive"


def test_a_round_has_all_answers():
    """REST, gRPC and garbage must all pass; the round's reason counts the passes over gRPC."""
    latest = RoundResult(rest=(PASS, PASS), grpc=(PASS, PASS), others=(Verdict.passed("garbage was refused"),))
    assert latest.verdict == Verdict.passed("p; p; 2 of 2 over gRPC, by the same version; garbage was refused")
    assert RoundResult(rest=(PASS,), grpc=(PASS, WAIT)).verdict == WAIT
    assert RoundResult(rest=(WAIT,), grpc=(FAIL,), others=(FAIL,)).failures == 2


ALL = [
    ([PASS, PASS], Verdict.passed("p; p")),
    ([PASS, UNSURE], Verdict.inconclusive("p; i")),
    ([UNSURE, FAIL], FAIL),
    ([UNSURE, WAIT], WAIT),
]


@pytest.mark.parametrize(("verdicts", "verdict"), ALL)
def test_several_verdicts_give_the_worst_one(verdicts, verdict):
    """Fail and wait win over inconclusive; inconclusive wins over pass and keeps all reasons."""
    assert verdict == judge_all(verdicts)
