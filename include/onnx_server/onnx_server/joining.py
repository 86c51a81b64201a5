"""Whether requests are joined: measured when a model is loaded, by what an image costs alone and in a batch."""

import math
import time
from collections.abc import Callable, Mapping

SIZES = (1, 2)  # images, rising; no run has more than the last (classifier.IN_A_RUN)
MOST_ROUNDS = 10  # of a run of each size
ENOUGH_MS = 500  # of processor time for all rounds, if there is more than one
SLOWEST_MS = 500  # of an image; a slower model is never joined, because its start would take too long
LEAST_SHARE = 0.15  # of an image's cost that joining has to save: two measurements of the same model differ by a tenth
LEAST_MS = 0.5  # of an image that joining has to save: handing it to another thread takes as long


def choose(costs: Mapping[int, float]) -> int:
    """How many images run together, by what an image costs in a batch of each size; 1 if joining does not pay."""
    best = min(costs, key=lambda size: costs[size])
    return best if costs[1] - costs[best] >= max(LEAST_MS, LEAST_SHARE * costs[1]) else 1


def measure(run: Callable[[int], object], clock_ns: Callable[[], int] = time.process_time_ns) -> dict[int, float]:
    """The milliseconds of processor time for an image, by the size of its batch; of a very slow model only alone. `run` runs a batch.

    The sizes take turns, and of each the cheapest run counts, because other programs on the machine make runs dearer.
    """

    def took_ms(size: int) -> float:
        began_ns = clock_ns()
        run(size)
        return (clock_ns() - began_ns) / 1e6

    first_ms = max(took_ms(1), 0.001)  # the first run of a model takes longest
    if first_ms > SLOWEST_MS:
        return {1: first_ms}
    rounds = min(MOST_ROUNDS, int((ENOUGH_MS - first_ms) / (first_ms * sum(SIZES))))
    costs = dict.fromkeys(SIZES, math.inf)
    for _ in range(max(rounds, 1)):
        for size in SIZES:
            costs[size] = min(costs[size], took_ms(size) / size)
    return costs


def render_choice(costs: Mapping[int, float], size: int) -> str:
    """What was measured and chosen, in one line."""
    measured = ", ".join(f"{cost:.2f} ms in a batch of {count}" for count, cost in costs.items())
    chosen = "requests are not joined" if size == 1 else f"up to {size} images of several requests run together"
    return f"processor time of an image: {measured}; {chosen}"
