"""The table of the first requests' times."""

from benchmarks import first_requests
from benchmarks.first_requests import Start, measure, middle, render

STARTS = [
    Start(first=9.0, paused=10.0, busy=8.0, slow=1),
    Start(first=12.0, paused=10.0, busy=7.0, slow=0),
    Start(first=20.0, paused=10.0, busy=9.0, slow=2),
]


def test_table_compares_the_first_with_later_requests():
    """The table has medians over the starts, the spread of the ratio, and how often requests exceeded the bound."""
    *_, head, _, row = render({"REST": STARTS}, "this machine").splitlines()
    assert head.startswith("| request | first | later, after a pause |")
    assert row == "| REST | 12.0 | 10.0 | 8.0 | 1.20 (0.90 to 2.00) | 1 of 3 | 3 of 60 |"
    assert middle(STARTS, "ratio") == 1.2


def test_compared_requests_are_sent_like_the_first(monkeypatch):
    """The first request and twenty later ones each come after the same pause; forty come without a pause."""
    sent, pauses = [], []
    monkeypatch.setattr(first_requests.time, "sleep", pauses.append)
    found = measure(lambda: sent.append(1))
    assert (len(sent), pauses) == (61, [0.25] * 21 + [0.0] * 40)
    assert 0 <= found.slow <= 20
