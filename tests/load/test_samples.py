"""The figures of a load test."""

import pytest
from load_request import Objective, closed_step, rate_step
from samples import Sample, holds_up_to, percentile, step_figures

STEP = rate_step(2, seconds=10, settle_s=4)
OBJECTIVE = Objective(p95_ms=100)


def samples(count, *, ms=50.0, began_s=5.0, wrong="", protocol="rest"):
    """So many equal requests."""
    return [Sample(0, began_s, ms, protocol, wrong)] * count


def figures(found, step=STEP, objective=OBJECTIVE):
    """The figures of a step with these samples."""
    return step_figures(step, found, objective)


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_percentile_is_the_nearest_rank(share, value):
    """Of a hundred values, the 95th percentile is the 95th."""
    assert percentile(list(range(1, 101)), share) == value


def test_a_rate_needs_users_for_slow_answers():
    """A user sends one request in two seconds, so that an answer may take as long before the rate falls."""
    assert (STEP.users, STEP.rate_per_s, STEP.pace_s) == (4, 2, 2)


@pytest.mark.parametrize(("rate", "users", "pace_s"), [(0.1, 1, 10), (1.2, 3, 2.5), (0.5, 1, 2), (7, 14, 2)])
def test_any_rate_is_asked_exactly(rate, users, pace_s):
    """The users ask a little less often, so that together they send the rate that was asked."""
    step = rate_step(rate, seconds=10, settle_s=4)
    assert (step.rate_per_s, step.users, step.pace_s) == (rate, users, pytest.approx(pace_s))


def test_the_ramp_is_in_no_figure():
    """What began before the step had settled, or after its end, counts neither for the rate nor for the latency."""
    found = figures(samples(12) + samples(40, ms=900, began_s=1) + samples(40, ms=900, began_s=10))
    assert (found["requests"], found["reached_per_s"], found["p95_ms"], found["holds"]) == (12, 2.0, 50, True)


def test_no_latency_beside_an_error():
    """One wrong answer, also in the ramp, and the step has no latency: fast refusals would look like speed."""
    found = figures(samples(12) + samples(1, began_s=0, wrong="HTTP 503"))
    assert found["errors"] == {"HTTP 503": 1}
    assert (found["p50_ms"], found["p95_ms"], found["p99_ms"], found["holds"]) == (None, None, None, False)
    assert found["by_protocol"]["rest"]["p95_ms"] is None


def test_what_was_answered_is_without_errors():
    """Refusals count for the rate that was reached, and not for the rate that was answered."""
    found = figures(samples(12) + samples(6, wrong="HTTP 503"))
    assert (found["reached_per_s"], found["answered_per_s"]) == (3.0, 2.0)


@pytest.mark.parametrize(
    ("found", "holds"),
    [(samples(12), True), (samples(11), True), (samples(12, ms=101), False), (samples(10), False), ([], False)],
    ids=["held", "one cut off by the window", "too slow", "rate not reached", "nothing sent"],
)
def test_when_a_rate_holds(found, holds):
    """No error, 95 % of the asked rate but for one request, and p95 within the limit."""
    assert figures(found)["holds"] is holds


def test_a_closed_step_has_no_rate_to_reach():
    """Only errors and the latency count."""
    found = figures(samples(3), step=closed_step(2, seconds=10, settle_s=4))
    assert (found["asked_per_s"], found["name"], found["holds"]) == (None, "2 users", True)


def test_rest_and_grpc_are_told_apart():
    """Each has its own latency."""
    by = figures(samples(12) + samples(12, ms=20, protocol="grpc"))["by_protocol"]
    assert {name: one["p95_ms"] for name, one in by.items()} == {"grpc": 20, "rest": 50}


@pytest.mark.parametrize(("held", "best"), [([1, 1, 1], 4), ([1, 0, 1], 1), ([0, 1, 1], None), ([], None)])
def test_the_objective_holds_up_to_the_last_rate_before_one_that_failed(held, best):
    """A larger rate that holds by chance does not count."""
    steps = [
        {"kind": "rate", "at": "release", "asked_per_s": rate, "holds": bool(how)}
        for rate, how in zip([1, 2, 4], held, strict=False)
    ]
    assert holds_up_to([{"kind": "closed", "holds": True}, *steps]) == best


def test_in_rounds_a_rate_must_hold_in_each():
    """And only those of the release that is tested count."""
    rounds = [{"kind": "rate", "at": "release", "asked_per_s": 2, "holds": how} for how in (True, False, True)]
    beside = {"kind": "rate", "at": "beside", "asked_per_s": 2, "holds": False}
    assert (holds_up_to(rounds), holds_up_to([rounds[0], beside])) == (None, 2)
