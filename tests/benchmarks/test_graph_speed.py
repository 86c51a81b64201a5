"""What the table of `make bench-model` says of measured rounds."""

from dataclasses import replace

import pytest

from benchmarks.graph_speed import SEED, SERVED, Machine, Series, missed, products_gflop, render, share

ANSWER = {"label": "cat", "confidence": 0.5}
SERIES = [
    Series(graph=SEED, threads=1, batch=1, ms=(200.0, 220.0, 300.0), cpu_ms=(180.0, 180.0, 180.0), answer=ANSWER),
    Series(graph=SERVED, threads=1, batch=1, ms=(160.0, 200.0, 300.0), cpu_ms=(150.0, 144.0, 160.0), answer=ANSWER),
    Series(graph=SEED, threads=1, batch=8, ms=(440.0, 500.0, 500.0), cpu_ms=(440.0, 440.0, 440.0), answer=ANSWER),
    Series(graph=SERVED, threads=1, batch=8, ms=(420.0, 420.0, 420.0), cpu_ms=(409.0, 410.0, 409.0), answer=ANSWER),
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


def test_the_whole_graph_is_compared_with_a_large_product():
    """32.7 GFLOP in 409 ms are 80 a second, of 100."""
    assert "At batch 8 the whole\nserved graph runs at 80% of that rate." in render(SERIES, [PROCESSOR], "a machine")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": {**ANSWER, "label": "dog"}}, ["1 threads, batch 1: the labels differ"]),
        ({"answer": {**ANSWER, "confidence": 0.5011}}, ["1 threads, batch 1: the confidences differ by more than 0.001"]),
        ({"answer": {**ANSWER, "confidence": float("nan")}}, ["1 threads, batch 1: the confidences differ by more than 0.001"]),
        ({"cpu_ms": (181.0, 181.0, 150.0)}, ["1 threads, batch 1: slower than the seed's graph"]),
        ({}, []),
    ],
    ids=["label", "confidence", "no number", "speed", "kept"],
)  # fmt: skip
def test_what_the_served_graph_does_not_keep_is_named(change, said):
    """Another label, another confidence, or a median ratio below 1 is missed."""
    found = missed([SERIES[0], replace(SERIES[1], **change), *SERIES[2:]], [replace(PROCESSOR, prepare_ms=1.0)])
    assert found == said


def test_products_of_vit_b_16():
    """An image takes 35.1 GFLOP (17.56 billion multiplications, as papers count them), 32.7 if the last layer is for one token."""
    assert products_gflop(last_whole=True) == pytest.approx(35.1, abs=0.1)
    assert products_gflop(last_whole=False) == pytest.approx(32.7, abs=0.1)
