"""How near the graph must be to 🤗, and the message if it is not."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from golden import Answer
from parity import Comparison, Skipped, compare, judge_count, judge_parity, summary
from sample_images import SampleImage
from toolchain import NoReference

NEAR = Comparison(
    kind="PNG",
    name="near",
    levels=1.0,
    graph=Answer(label="3", confidence=0.9),
    reference=Answer(label="3", confidence=0.9),
    difference=0.0005,
    tie=False,
)
OTHER = Answer(label="8", confidence=0.9)
NAN = float("nan")


def test_images_within_the_bounds_pass():
    """A difference of one level and 0.001 of a probability passes, and so does another label in a tie."""
    assert judge_parity([NEAR, replace(NEAR, graph=OTHER, tie=True)]) is None


def test_cmyk_image_is_judged_by_its_pixels():
    """A CMYK image may differ by four levels and by any probability, but not by NaN."""
    off = replace(NEAR, kind="JPEG, CMYK", cmyk=True, levels=4.0, difference=0.5)
    assert judge_parity([off, replace(off, graph=OTHER, tie=True)]) is None
    assert judge_parity([replace(off, levels=5.0)]).endswith("allowed: 4 levels and 1")
    for broken in ({"levels": NAN}, {"difference": NAN}):
        assert "1 of 2 images" in judge_parity([off, replace(off, **broken)])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"levels": 1.5}, "pixels up to 1.50 levels"),
        ({"difference": 0.002}, "0.00200 apart"),
        ({"levels": NAN}, "pixels up to nan levels"),
        ({"difference": NAN}, "nan apart"),
        ({"graph": OTHER}, "the exported graph answers '8' (0.9000), 🤗's own model '3' (0.9000)"),
    ],
    ids=["pixels", "probabilities", "no pixels", "no probabilities", "label"],
)
def test_worst_image_is_named_with_both_answers(changes, words):
    """The message has the number of images, the worst one, the answers of graph and 🤗, and the bounds."""
    message = judge_parity([NEAR, replace(NEAR, name="far", **changes)])
    assert message.startswith(
        "parity: 1 of 2 images differ from 🤗; the worst is PNG 'far': the exported graph answers "
    )
    assert words in message
    assert message.endswith("allowed: 1 level and 0.001")


def test_other_label_is_worse_than_other_probability():
    """The worst image is one with another label; without one, that with the largest difference of a probability."""
    far, other = replace(NEAR, name="far", difference=0.5), replace(NEAR, name="other", graph=OTHER)
    assert "3 of 4 images" in judge_parity([NEAR, far, other, replace(far, name="further", difference=0.6)])
    assert "the worst is PNG 'other'" in judge_parity([far, other])
    assert "the worst is PNG 'further'" in judge_parity([far, replace(far, name="further", difference=0.6)])
    assert "the worst is PNG 'nowhere'" in judge_parity([far, replace(far, name="nowhere", difference=NAN), far])


def test_summary_counts_and_rounds():
    """Equal labels and ties are counted; differences are rounded up, so that noise does not change the card."""
    found = summary([NEAR, replace(NEAR, graph=OTHER, tie=True, difference=0.0000001, kind="GIF", levels=0.0)])
    assert (found["images"], found["labels_equal"], found["ties"]) == (2, 1, 1)
    assert (found["largest_difference"], found["mean_difference"]) == (0.0005, 0.00026)
    assert found["levels_by_kind"] == {"GIF": 0.0, "PNG": 1.0}


def test_cmyk_images_are_counted_separately():
    """The figures of CMYK images do not include other images, nor the other way round."""
    found = summary([NEAR, replace(NEAR, kind="JPEG, CMYK", cmyk=True, levels=3.0, difference=0.02)])
    assert (found["images"], found["largest_levels"], found["largest_difference"]) == (1, 1.0, 0.0005)
    cmyk = found["cmyk"]
    assert (cmyk["images"], cmyk["largest_levels"], cmyk["largest_difference"]) == (1, 3.0, 0.02)
    assert found["levels_by_kind"] == {"JPEG, CMYK": 3.0, "PNG": 1.0}
    assert summary([NEAR])["cmyk"]["images"] == 0


TINY = Skipped(kind="PNG", name="tiny", why="nothing is left of it.")


@pytest.mark.parametrize(
    ("compared", "skipped", "is_refused"), [(1, 1, False), (2, 3, True), (0, 1, True), (3, 0, False)]
)
def test_at_least_half_of_the_images_are_compared(compared, skipped, is_refused):
    """An image that 🤗's own processor refuses proves nothing; with too few others, the message names one and why."""
    said = judge_count(compared, [TINY] * skipped)
    assert (said is not None) == is_refused
    if said:
        assert said == (
            f"parity: only {compared} of {compared + skipped} images are compared; 🤗's own processor refuses the others, "
            "such as PNG 'tiny' (nothing is left of it.)"
        )


def test_images_that_are_not_compared_are_counted():
    """The card's figures say how many."""
    assert summary([NEAR], [TINY, TINY])["skipped"] == 2
    assert summary([NEAR])["skipped"] == 0


def test_image_that_the_processor_refuses_is_skipped_with_its_reason(monkeypatch):
    """Whatever 🤗's processor raises, in one line; the other images are still compared."""
    images = [SampleImage("PNG", name, b"") for name in ("tiny", "near")]

    def compare_one(_checkpoint, _graph, image, _reader, _level):
        if image.name == "tiny":
            raise NoReference("nothing\nis left of it.")
        return NEAR

    monkeypatch.setattr("parity._compare", compare_one)
    assert compare(None, SimpleNamespace(steps=()), None, images) == ([NEAR], [TINY])
