import json
import math
from pathlib import Path

import pytest

from slipway.errors import InputRefused
from slipway.facts import Baseline, Measured
from slipway.release import QualityBounds
from slipway.serving.accuracy import (
    is_correct,
    judge_accuracy,
    judge_drop,
    judge_floor,
    measured_in,
    paired_difference,
    wilson,
)
from slipway.serving.golden import Answer
from slipway.serving.labelled_set import MOST_IMAGES, LabelledImage, pin_quality, read_images


def measured(images, *wrong):
    """So many images, of which these were told wrong."""
    return Measured(digest="sha256:5", images=images, wrong=tuple(f"{n:04}.png" for n in wrong))


def test_wilson_is_the_published_interval():
    """Newcombe (Statistics in Medicine 17, 1998, 857-872) gives 81 of 263 as 0.2553 to 0.3662, and 0 of 20 as 0 to 0.1611."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)


def test_paired_difference_is_the_adjusted_wald_interval():
    """Computed by hand from Bonett and Price's formula: one is added to each kind of disagreement, two to all."""
    there, here, half = 13 / 102, 3 / 102, 1.959964 * math.sqrt((13 / 102 + 3 / 102 - (10 / 102) ** 2) / 102)
    assert paired_difference(12, 2, 100) == pytest.approx((there - here - half, there - here + half))
    assert paired_difference(0, 0, 100) == pytest.approx((-0.0272, 0.0272), abs=5e-4)


FLOORS = {
    "all right": (100, 0, 0.9, "pass"),
    "just enough": (100, 10, 0.9, "pass"),
    "one too few": (100, 11, 0.9, "inconclusive"),
    "far too few": (100, 25, 0.9, "fail"),
    "a few too few of many": (1000, 130, 0.9, "fail"),
    "a bound that bears none": (10, 1, 1.0, "fail"),
    "a share that is no binary fraction": (100, 93, 0.07, "pass"),
}


@pytest.mark.parametrize(("images", "wrong", "bound", "outcome"), FLOORS.values(), ids=FLOORS)
def test_bound_is_met_or_surely_missed_or_in_doubt(images, wrong, bound, outcome):
    """Below the bound it depends on how many images there are whether that can be chance."""
    assert outcome == judge_floor(measured(images, *range(wrong)), bound).outcome


def test_message_says_what_came_what_was_promised_and_which_were_wrong():
    """A person reads figures and names."""
    verdict = judge_floor(measured(100, *range(30)), 0.9)
    assert verdict.reason == (
        "quality: 70 of 100 images told right (0.7000), 0.9 promised, 0.7811 is the most that chance allows"
        "; such as 0000.png, 0001.png, 0002.png and 27 more"
    )


DROPS = {
    "the same": (range(5), range(5), "pass"),
    "better": (range(2), range(5), "pass"),
    "other images, as many": (range(5), range(5, 10), "pass"),
    "as much as allowed": (range(7), range(5), "pass"),
    "a little more": (range(9), range(5), "inconclusive"),
    "much more": (range(20), range(5), "fail"),
}


@pytest.mark.parametrize(("now", "live", "outcome"), DROPS.values(), ids=DROPS)
def test_drop_is_judged_image_by_image(now, live, outcome):
    """What counts is on how many of the same images the two releases differ."""
    baseline = Baseline(measured=measured(100, *live), source="its record")
    assert outcome == judge_drop(measured(100, *now), baseline, 0.02).outcome


NO_BASELINE = {
    "no live release": (None, "pass", "there is no live release"),
    "live release is not well": (Baseline(measured=None, source="it is not well: gone"), "pass", "it is not well: gone"),
    "could not be measured": (Baseline(measured=None, source="in 300 s: busy", unknown=True), "inconclusive", "in 300 s: busy"),
}  # fmt: skip


@pytest.mark.parametrize(("live", "outcome", "words"), NO_BASELINE.values(), ids=NO_BASELINE)
def test_nothing_to_compare_with_is_said(live, outcome, words):
    """A live release that serves and could not be measured leaves doubt; one that is not there or not well does not."""
    verdict = judge_drop(measured(100), live, 0.02)
    assert (verdict.outcome, verdict.reason) == (outcome, f"quality: not compared with the live release: {words}")


def test_only_what_the_model_file_asks_is_judged():
    """A bound, a comparison, or both."""
    floor = QualityBounds(uri="u", digest="sha256:5", min_top1=None, max_drop=0.1)
    (verdict,) = judge_accuracy(floor, measured(10, 1), None)
    assert "not compared" in verdict.reason


IMAGE = LabelledImage(name="3/a.png", label="3", data="aW1hZ2U=")
ANSWERS = {
    "right": (200, {"predictions": [{"label": "3", "confidence": 0.4}]}, True),
    "wrong": (200, {"predictions": [{"label": "8", "confidence": 0.9}]}, False),
    "refused": (400, {"error": "no image"}, False),
    "malformed": (200, {"predictions": [3]}, False),
}


@pytest.mark.parametrize(("status", "body", "told"), ANSWERS.values(), ids=ANSWERS)
def test_told_right_is_the_label_alone(status, body, told):
    """How sure the model is does not matter; an image that it refuses is told wrong."""
    assert told is is_correct(IMAGE, Answer(status=status, body=json.dumps(body)))
    assert json.loads(IMAGE.rest_body) == {"signature_name": "serving_default", "instances": ["aW1hZ2U="]}


@pytest.fixture
def served(tmp_path):
    """Writes files beside a model file; its path comes back."""

    def write(**files):
        for name, text in files.items():
            place = tmp_path / name.replace("__", "/").replace("_csv", ".csv")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        return tmp_path / "m.yaml"

    return write


def pin(path, name, store):
    """A set of this name, pinned with a bound."""
    return pin_quality(path, name, store, "m", min_top1=0.9)


def test_folder_and_table_are_the_same_set(served, store):
    """Whether labels are folders or a table's column, what is kept is the same, by its content."""
    path = served(q__3__a="three", q__8__b="eight", q__labels_csv="image,label\n3/a,3\n8/b,8\n")
    by_table = pin(path, "q/labels.csv", store)
    Path(path.parent / "q/labels.csv").unlink()
    assert by_table == pin(path, "q", store)
    assert [(image.name, image.label) for image in read_images(by_table)] == [("3/a", "3"), ("8/b", "8")]
    assert store.names("quality/m") == [f"{by_table.digest.removeprefix('sha256:')[:12]}.json"]


def test_another_set_if_an_image_or_a_label_changes(served, store):
    """The digest is that of images and labels."""
    digests = set()
    for label, text in (("3", "three"), ("8", "three"), ("3", "other")):
        path = served(q__a=text, q__l_csv=f"image,label\na,{label}\n")
        digests.add(pin(path, "q/l.csv", store).digest)
    assert len(digests) == 3


REFUSED = {
    "not there": ({}, "q", "is nothing beside the model file"),
    "outside": ({}, "../..", "is nothing beside the model file"),
    "empty": ({"q__l_csv": "image,label\n"}, "q/l.csv", "has 0 images"),
    "image in no label's folder": ({"q__a": "x"}, "q", "a is in no label's folder. Next: move it to LABEL/a"),
    "table without labels": ({"q__a": "x", "q__l_csv": "image\na\n"}, "q/l.csv", "line 2 has no image or no label"),
    "missing images": ({"q__l_csv": "image,label\na,3\nb,3\n"}, "q/l.csv", "a and 1 more: no such file"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "name", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(served, store, files, name, words):
    """A set that cannot be meant is refused before anything is built."""
    with pytest.raises(InputRefused) as refusal:
        pin(served(**files), name, store)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "Next: " in str(refusal.value)


def test_refused_if_there_are_too_many(served, store):
    """The triggerer holds them all."""
    path = served(**{f"q__3__{n}": "x" for n in range(MOST_IMAGES + 1)})
    with pytest.raises(InputRefused, match="has 1001 images"):
        pin(path, "q", store)


def test_measurement_is_found_in_a_record():
    """A record tells of its own set alone."""
    record = {
        "verdicts": {
            "apply": {},
            "gate": {"measured": {"quality": {"digest": "sha256:5", "images": 2, "wrong": ["a"]}}},
        }
    }
    assert measured_in(record, "sha256:5") == Measured(digest="sha256:5", images=2, wrong=("a",))
    assert measured_in(record, "sha256:6") is None
    assert measured_in({"verdicts": {"gate": {"outcome": "pass"}}}, "sha256:5") is None
