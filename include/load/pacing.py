"""When each user of a constant rate asks: at equal intervals, and not all at once. Pure."""

from __future__ import annotations

GOLDEN = 0.6180339887  # multiples of it, modulo 1, are spread evenly, however many there are


class Pace:
    """The times at which one user asks."""

    def __init__(self, number: int, shift: float) -> None:
        """The user has this number in its process; `shift`, 0 to 1, differs from process to process."""
        self.phase = (number * GOLDEN + shift) % 1
        self.pace_s = 0.0
        self.next_s = 0.0

    def wait_s(self, pace_s: float, now_s: float) -> float:
        """How long to wait until the user asks, if it asks every `pace_s` seconds; 0 means at once, as in a closed loop.

        With a new pace it begins at its own part of the interval. One whose answer came late asks at once, and from then on at
        the same intervals: missed requests are not made up for.
        """
        if pace_s != self.pace_s:
            self.pace_s, self.next_s = pace_s, now_s + self.phase * pace_s
        else:
            self.next_s = max(self.next_s + pace_s, now_s)
        return self.next_s - now_s
