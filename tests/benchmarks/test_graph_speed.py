"""What the table of `make bench-model` says of measured rounds."""

import pytest

from benchmarks.graph_speed import SEED, SERVED, Machine, Series, products_gflop, render, share

ANSWER = {"label": "cat", "confidence": 0.5}
SERIES = [
    Series(graph=SEED, threads=1, batch=1, ms=(200.0, 220.0, 300.0), cpu_ms=(180.0, 180.0, 180.0), answer=ANSWER),
    Series(graph=SERVED, threads=1, batch=1, ms=(160.0, 200.0, 300.0), cpu_ms=(150.0, 144.0, 160.0), answer=ANSWER),
]
PROCESSOR = Machine(threads=1, gflop_per_s=100.0, prepare_ms=10.0)


def test_speed_is_compared_within_a_round():
    """A row has the median time, and the median, least and most of the ratios of the same rounds."""
    rows = render(SERIES, [PROCESSOR], "a machine").splitlines()
    assert (
        "| the seed's graph | 1 | 1 | 220 | 180 | 1.00 (1.00 to 1.00) | 1.00 (1.00 to 1.00) | cat | 0.50000 |" in rows
    )
    assert (
        "| the served graph | 1 | 1 | 200 | 150 | 1.10 (1.00 to 1.25) | 1.20 (1.12 to 1.25) | cat | 0.50000 |" in rows
    )


def test_share_of_decode_and_resize_is_of_the_model_alone():
    """10 ms of 150 ms of a processor are a share of 10 in 140."""
    assert share(SERIES, PROCESSOR) == pytest.approx(10 / 140)
    assert "10.0 ms of a processor, 7.1% of the model." in render(SERIES, [PROCESSOR], "a machine")


def test_products_of_vit_b_16():
    """An image takes 35.1 GFLOP (17.56 billion multiplications, as papers count them), 32.7 if the last layer is for one token."""
    assert products_gflop(last_whole=True) == pytest.approx(35.1, abs=0.1)
    assert products_gflop(last_whole=False) == pytest.approx(32.7, abs=0.1)
