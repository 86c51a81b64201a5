"""What is made of the first requests' times."""

from benchmarks import first_requests
from benchmarks.first_requests import Start, measure, middle, render

STARTS = [
    Start(first=9.0, alike=10.0, busy=8.0, slow=1),
    Start(first=12.0, alike=10.0, busy=7.0, slow=0),
    Start(first=20.0, alike=10.0, busy=9.0, slow=2),
]


def test_table_holds_the_first_to_those_asked_alike():
    """Medians over the starts, the spread of the ratio, and how often the first and the others went beyond the bound."""
    *_, head, _, row = render({"REST": STARTS}, "this machine").splitlines()
    assert head.startswith("| asked | first | others, asked alike |")
    assert row == "| REST | 12.0 | 10.0 | 8.0 | 1.20 (0.90 to 2.00) | 1 of 3 | 3 of 60 |"
    assert middle(STARTS, "ratio") == 1.2


def test_every_request_that_is_compared_is_asked_as_the_first(monkeypatch):
    """One after the start, twenty with the same pause before each, forty without: the first is none of those it is held to."""
    asked, pauses = [], []
    monkeypatch.setattr(first_requests.time, "sleep", pauses.append)
    found = measure(lambda: asked.append(1))
    assert (len(asked), pauses) == (61, [0.25] * 21 + [0.0] * 40)
    assert 0 <= found.slow <= 20
