"""How near the graph has to be to 🤗, and what is said where it is not."""

from dataclasses import replace

import pytest
from golden import Answer
from parity import Comparison, judge_parity, summary

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


def test_bounds_are_kept():
    """A level of a pixel and a thousandth of a probability are near enough, and so is another label of a proven tie."""
    assert judge_parity([NEAR, replace(NEAR, graph=OTHER, tie=True)]) is None


def test_cmyk_picture_is_held_to_its_pixels():
    """A CMYK picture may be four levels off, and whatever a model makes of that; but it must make something of it."""
    off = replace(NEAR, kind="JPEG, CMYK", cmyk=True, levels=4.0, difference=0.5)
    assert judge_parity([off, replace(off, graph=OTHER, tie=True)]) is None
    assert judge_parity([replace(off, levels=5.0)]).endswith("allowed are 4 levels and 1")
    for broken in ({"levels": NAN}, {"difference": NAN}):
        assert "1 of 2 images" in judge_parity([off, replace(off, **broken)])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"levels": 1.5}, "pixels up to 1.50 levels"),
        ({"difference": 0.002}, "0.00200 apart"),
        ({"levels": NAN}, "pixels up to nan levels"),
        ({"difference": NAN}, "nan apart"),
        ({"graph": OTHER}, "the exported graph answers '8' (0.9000), 🤗's own model '3' (0.9000)"),
    ],
    ids=["pixels", "probabilities", "no pixels", "no probabilities", "label"],
)
def test_worst_image_is_named_with_both_answers(changes, says):
    """Whichever bound is broken: how many images, which is the worst, what the graph and what 🤗 answer, and the bounds."""
    said = judge_parity([NEAR, replace(NEAR, name="far", **changes)])
    assert said.startswith(
        "parity: 1 of 2 images are not as 🤗 has them; the worst is PNG 'far': the exported graph answers "
    )
    assert says in said
    assert said.endswith("allowed are 1 level and 0.001")


def test_label_is_worse_than_a_difference():
    """Of several the one with another label is named, then the one whose probabilities are furthest apart."""
    far, other = replace(NEAR, name="far", difference=0.5), replace(NEAR, name="other", graph=OTHER)
    assert "3 of 4 images" in judge_parity([NEAR, far, other, replace(far, name="further", difference=0.6)])
    assert "the worst is PNG 'other'" in judge_parity([far, other])
    assert "the worst is PNG 'further'" in judge_parity([far, replace(far, name="further", difference=0.6)])
    assert "the worst is PNG 'nowhere'" in judge_parity([far, replace(far, name="nowhere", difference=NAN), far])


def test_figures_add_up():
    """Labels equal and ties are counted; differences are rounded upwards, so that noise does not change the card."""
    found = summary([NEAR, replace(NEAR, graph=OTHER, tie=True, difference=0.0000001, kind="GIF", levels=0.0)])
    assert (found["images"], found["labels_equal"], found["ties"]) == (2, 1, 1)
    assert (found["largest_difference"], found["mean_difference"]) == (0.0005, 0.00026)
    assert found["levels_by_kind"] == {"GIF": 0.0, "PNG": 1.0}


def test_cmyk_pictures_have_figures_of_their_own():
    """What a CMYK picture is off by does not stand for the others, nor theirs for it."""
    found = summary([NEAR, replace(NEAR, kind="JPEG, CMYK", cmyk=True, levels=3.0, difference=0.02)])
    assert (found["images"], found["largest_levels"], found["largest_difference"]) == (1, 1.0, 0.0005)
    cmyk = found["cmyk"]
    assert (cmyk["images"], cmyk["largest_levels"], cmyk["largest_difference"]) == (1, 3.0, 0.02)
    assert found["levels_by_kind"] == {"JPEG, CMYK": 3.0, "PNG": 1.0}
    assert summary([NEAR])["cmyk"]["images"] == 0
