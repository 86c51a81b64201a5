"""When the users of a constant rate ask."""

import itertools

import pytest
from pacing import Pace


def asked(number, pace_s, *, until_s, shift=0.0, answer_s=0.0):
    """The times at which a user asks."""
    pace, now_s, found = Pace(number, shift), 0.0, []
    while True:
        now_s += pace.wait_s(pace_s, now_s)
        if now_s >= until_s:
            return found
        found.append(now_s)
        now_s += answer_s


@pytest.mark.parametrize("users", [1, 3, 8, 16, 50])
@pytest.mark.parametrize("shift", [0, 0.37])
def test_requests_are_spread_over_time(users, shift):
    """In any window, the rate differs from what was asked by two requests at most: there are no bursts."""
    times = sorted(itertools.chain.from_iterable(asked(n, 2, until_s=40, shift=shift) for n in range(users)))
    for begin in range(4, 30):
        seen = sum(begin <= time < begin + 1.5 for time in times)
        assert abs(seen - users / 2 * 1.5) <= 2.01


def test_equal_intervals_however_long_answers_take():
    """An answer that takes less than the interval does not shift the next request."""
    times = asked(1, 2, until_s=20, answer_s=1.5)
    assert {round(b - a, 6) for a, b in itertools.pairwise(times)} == {2}


def test_late_answers_lower_the_rate_and_are_not_made_up_for():
    """A user whose answers take three seconds asks every three seconds."""
    times = asked(1, 2, until_s=30, answer_s=3)
    assert {round(b - a, 6) for a, b in itertools.pairwise(times)} == {3}


def test_at_once_in_a_closed_loop():
    """And from a closed loop back to a rate, at the user's own part of the interval."""
    pace = Pace(1, 0)
    assert [pace.wait_s(0, now_s) for now_s in (0, 1.5, 2)] == [0, 0, 0]
    assert pace.wait_s(2, 10) == pytest.approx(2 * 0.618, abs=0.001)
