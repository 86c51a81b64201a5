"""Whether requests are joined, by what an image costs."""

import pytest

from onnx_server.joining import ENOUGH_MS, SLOWEST_MS, choose, measure, render_choice

MS = 1_000_000  # nanoseconds


@pytest.mark.parametrize(
    ("costs", "size"),
    [
        ({1: 10.0, 2: 8.0, 4: 7.0}, 4),
        ({1: 10.0, 2: 7.0, 4: 8.0}, 2),
        ({1: 10.0, 2: 8.6}, 1),  # less than 15 %
        ({1: 0.6, 2: 0.3, 4: 0.2}, 1),  # less than half a millisecond
        ({1: 10.0, 2: 11.0, 4: 12.0}, 1),
        ({1: 60.0}, 1),
    ],
)
def test_joined_if_it_saves_enough(costs, size):
    """The cheapest size is chosen if it saves 15 % and half a millisecond of each image, otherwise none."""
    assert choose(costs) == size


def measured(*image_ms):
    """What is measured of a model whose image costs these milliseconds, run by run, the last one ever after; and the sizes that ran."""
    now, sizes, left = [0], [], list(image_ms)

    def run(size):
        sizes.append(size)
        now[0] += int(size * (left.pop(0) if len(left) > 1 else left[0]) * MS)

    return measure(run, lambda: now[0]), sizes, now[0] / MS


def test_cheapest_run_of_each_size_counts():
    """The sizes take turns, so that whatever makes some runs dearer does so to each size. The first run of a model does not count."""
    costs, sizes, _ = measured(9.0, 5.0, 6.0, 4.0, 7.0, 3.0, 8.0)
    assert costs == {1: 3.0, 2: 6.0}
    assert sizes[:5] == [1, 1, 2, 1, 2]


@pytest.mark.parametrize("image_ms", [0.0, 0.1, 20.0, 60.0, 400.0, 500.0, 501.0])
def test_measuring_is_bounded(image_ms):
    """A slow model runs once for each size, a very slow one once in all; the others stay within the bound."""
    costs, sizes, spent_ms = measured(image_ms)
    assert spent_ms <= max(ENOUGH_MS, 4 * image_ms)
    assert (2 in costs) == (image_ms <= SLOWEST_MS)
    assert len(sizes) <= 21


def test_log_has_what_was_measured_and_chosen():
    """One line."""
    said = "processor time of an image: 10.00 ms in a batch of 1, 8.00 ms in a batch of 2; "
    assert render_choice({1: 10.0, 2: 8.0}, 1) == said + "requests are not joined"
    assert render_choice({1: 10.0, 2: 8.0}, 2) == said + "up to 2 images of several requests run together"
