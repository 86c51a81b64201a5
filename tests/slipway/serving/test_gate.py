import pytest

from slipway.release import Gate
from slipway.serving.gate import Round, Standing, judge_all, judge_gate, judge_latency, percentile
from slipway.verdict import Verdict

PASS, WAIT, FAIL, DOUBT = Verdict.passed("p"), Verdict.wait("w"), Verdict.failed("f"), Verdict.inconclusive("d")
GATE = Gate()


def after(rounds, gate=GATE, *, passes=3):
    """Where the gate stands after these rounds, and its last verdict; the rounds before it all said wait."""
    standing, verdicts = Standing(), []
    for latest in rounds:
        standing, verdict = judge_gate(standing, latest, gate, passes=passes)
        verdicts.append(verdict)
    assert {verdict.outcome for verdict in verdicts[:-1]} <= {"wait"}
    return standing, verdicts[-1]


def one(*verdicts, times_ms=(10.0,)):
    """A round over REST alone."""
    return Round(rest=verdicts, times_ms=times_ms)


GOOD, MISSING, WRONG = one(PASS), one(WAIT), one(FAIL)
SLOW = one(PASS, times_ms=(600.0,))


def test_pass_after_so_many_rounds_in_a_row():
    """The last of enough rounds in a row is the pass."""
    assert after([GOOD])[1] == Verdict.wait("1 of 3 rounds in a row passed")
    assert after([GOOD, GOOD])[1] == Verdict.wait("2 of 3 rounds in a row passed")
    assert after([GOOD] * 3)[1] == Verdict.passed("3 of 3 rounds in a row passed; p")
    assert after([GOOD], passes=1)[1] == Verdict.passed("1 of 1 rounds in a row passed; p")


def test_an_error_is_not_a_failure():
    """A round without all answers breaks the row and nothing else, for as long as there is time."""
    standing, verdict = after([GOOD, GOOD, *[MISSING] * 50])
    assert (standing.streak, verdict) == (0, WAIT)
    assert after([GOOD, GOOD, MISSING, GOOD, GOOD, GOOD])[1].outcome == "pass"


def test_a_failure_is_the_end():
    """One wrong answer fails at once, however many rounds were right, and whatever else had no answer."""
    assert after([GOOD, GOOD, one(WAIT, FAIL)])[1] == FAIL


def test_failures_within_the_budget_break_the_row():
    """What the model file bears is borne, and counted by answers: the row begins anew."""
    gate = Gate(failures=2)
    standing, verdict = after([GOOD, GOOD, one(FAIL, FAIL)], gate)
    assert (standing.streak, verdict) == (0, Verdict.wait("2 wrong answers, 2 allowed: f"))
    assert after([GOOD, GOOD, one(FAIL, FAIL), GOOD, GOOD, GOOD], gate)[1].outcome == "pass"
    assert after([WRONG, one(FAIL, FAIL)], gate)[1] == Verdict.failed("3 wrong answers, 2 allowed: f")


def test_errors_count_once_a_round_has_passed():
    """A release that is not there yet may take its time; one that comes and goes may not."""
    gate = Gate(errors=1)
    assert after([*[MISSING] * 9, GOOD, MISSING, GOOD, GOOD, GOOD], gate)[1].outcome == "pass"
    said = "2 rounds without all answers after one that passed, 1 allowed: w"
    assert after([*[MISSING] * 9, GOOD, MISSING, GOOD, MISSING], gate)[1] == Verdict.failed(said)


def test_no_error_budget_at_all():
    """With none, the first round without all answers after one that passed is the end."""
    assert after([MISSING, GOOD, MISSING], Gate(errors=0))[1].outcome == "fail"


def test_right_and_late_is_doubt_after_three_tries():
    """A server's first answers are slow: only three rows in a row that were all too slow leave the gate in doubt."""
    gate = Gate(latency_ms=500)
    said = "95 of 100 answers within 600 ms, 500 promised"
    assert after([SLOW] * 3, gate)[1] == Verdict.wait(f"asked again, 1 of 3 times: {said}")
    assert after([SLOW] * 9, gate)[1] == Verdict.inconclusive(
        f"3 of 3 rounds in a row passed; p; {said}, 3 times in a row"
    )
    assert after([*[SLOW] * 6, *[GOOD] * 3], gate)[1] == Verdict.passed(
        "3 of 3 rounds in a row passed; p; 95 of 100 answers within 10 ms, 500 promised"
    )


def test_only_counted_rounds_are_timed():
    """What a broken row took is forgotten with it."""
    assert after([SLOW, MISSING, GOOD, GOOD, GOOD], Gate(latency_ms=500))[1].outcome == "pass"


def test_wrong_and_late_is_wrong():
    """How long a wrong answer took is nobody's question."""
    assert after([one(FAIL, times_ms=(600.0,))], Gate(latency_ms=500))[1] == FAIL


@pytest.mark.parametrize(("times_ms", "found"), [([5], 5), ([1, 9], 9), (range(1, 21), 19), (range(1, 101), 95)])
def test_percentile_is_the_nearest_rank(times_ms, found):
    """Of fewer than twenty answers, 95 of 100 are all of them."""
    assert found == percentile(list(times_ms))


def test_nothing_is_said_of_latency_without_a_limit():
    """Without a limit there is nothing to judge; the limit itself is within."""
    assert judge_latency([10_000], None) == Verdict.passed("")
    assert judge_latency([500], 500).outcome == "pass"
    assert judge_latency([501], 500).outcome == "inconclusive"


def test_a_round_is_everything_that_was_asked():
    """REST, gRPC and garbage all have to hold; of gRPC's passes the round says how many."""
    asked = Round(rest=(PASS, PASS), grpc=(PASS, PASS), others=(Verdict.passed("garbage was refused"),))
    assert asked.verdict == Verdict.passed("p; p; 2 of 2 over gRPC, by the same version; garbage was refused")
    assert Round(rest=(PASS,), grpc=(PASS, WAIT)).verdict == WAIT
    assert Round(rest=(WAIT,), grpc=(FAIL,), others=(FAIL,)).failures == 2


ALL = [
    ([PASS, PASS], Verdict.passed("p; p")),
    ([PASS, DOUBT], Verdict.inconclusive("p; d")),
    ([DOUBT, FAIL], FAIL),
    ([DOUBT, WAIT], WAIT),
]


@pytest.mark.parametrize(("verdicts", "verdict"), ALL)
def test_several_judgements_are_the_worst_of_them(verdicts, verdict):
    """A no is a no whatever else is in doubt; doubt alone says all that is known."""
    assert verdict == judge_all(verdicts)
