import json
import math

import pytest

from slipway.facts import Accuracy, Baseline, Int8Change
from slipway.release import QualityBounds
from slipway.serving.accuracy import (
    accuracy_of_record,
    answered_label,
    find_int8_change,
    judge_accuracy,
    judge_drop,
    judge_int8,
    judge_minimum,
    paired_difference_interval,
    recorded_baseline,
    share_difference_interval,
    wilson_interval,
)
from slipway.serving.golden import Answer
from slipway.serving.labelled_set import LabelledImage


def measured(images, *wrong):
    """The accuracy on so many images, of which these are classified wrong."""
    return Accuracy(digest="sha256:5", images=images, wrong=tuple(f"{n:04}.png" for n in wrong))


def test_wilson_interval_is_the_published_one():
    """Newcombe (Statistics in Medicine 17, 1998, 857-872) gives 81 of 263 as 0.2553 to 0.3662, and 0 of 20 as 0 to 0.1611."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)


def test_share_difference_is_the_published_one():
    """Newcombe (Statistics in Medicine 17, 1998, 873-890), method 10, gives 56 of 70 minus 48 of 80 as 0.0524 to 0.3339."""
    assert share_difference_interval(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert share_difference_interval(48, 80, 56, 70) == pytest.approx((-0.3339, -0.0524), abs=5e-5)


def test_paired_difference_is_the_adjusted_wald_interval():
    """Computed by hand from Bonett and Price's formula: one is added to each kind of disagreement, two to all."""
    lost, won, half = 13 / 102, 3 / 102, 1.959964 * math.sqrt((13 / 102 + 3 / 102 - (10 / 102) ** 2) / 102)
    assert paired_difference_interval(12, 2, 100) == pytest.approx((lost - won - half, lost - won + half))
    assert paired_difference_interval(0, 0, 100) == pytest.approx((-0.0272, 0.0272), abs=5e-4)


MINIMUMS = {
    "all correct": (100, 0, 0.9, "pass"),
    "just enough": (100, 10, 0.9, "pass"),
    "one too few": (100, 11, 0.9, "inconclusive"),
    "far too few": (100, 25, 0.9, "fail"),
    "a few too few of many": (1000, 130, 0.9, "fail"),
    "a minimum of 1": (10, 1, 1.0, "fail"),
    "a share that is not a binary fraction": (100, 93, 0.07, "pass"),
}


@pytest.mark.parametrize(("images", "wrong", "minimum", "outcome"), MINIMUMS.values(), ids=MINIMUMS)
def test_below_the_minimum_chance_decides_between_fail_and_inconclusive(images, wrong, minimum, outcome):
    """Below the minimum, the number of images decides whether chance can explain it."""
    assert outcome == judge_minimum(measured(images, *range(wrong)), minimum).outcome


def test_message_names_the_result_the_minimum_and_wrong_images():
    """The message has the figures, and the names of some images."""
    verdict = judge_minimum(measured(100, *range(30)), 0.9)
    assert verdict.reason == (
        "quality: 70 of 100 images classified correctly (0.7000), at least 0.9 required, upper 95 % bound 0.7811"
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


@pytest.mark.parametrize(("new", "live", "outcome"), DROPS.values(), ids=DROPS)
def test_drop_is_judged_image_by_image(new, live, outcome):
    """The images on which the two releases differ decide."""
    baseline = Baseline(measured=measured(100, *live), source="its record")
    assert outcome == judge_drop(measured(100, *new), baseline, 0.02).outcome


NO_BASELINE = {
    "no live release": (None, "pass", "there is no live release"),
    "live release is not healthy": (Baseline(measured=None, source="it could not be measured: gone"), "inconclusive", "it could not be measured: gone"),
    "not finished in time": (Baseline(measured=None, source="in 300 s: busy"), "inconclusive", "in 300 s: busy"),
}  # fmt: skip


@pytest.mark.parametrize(("live", "outcome", "words"), NO_BASELINE.values(), ids=NO_BASELINE)
def test_verdict_says_why_nothing_was_compared(live, outcome, words):
    """Without a proven live release there is no comparison. If one could not be measured, the result is inconclusive."""
    verdict = judge_drop(measured(100), live, 0.02)
    assert (verdict.outcome, verdict.reason) == (outcome, f"quality: not compared with the live release: {words}")


def test_only_the_model_files_limits_are_judged():
    """The minimum, the drop, or both."""
    bounds = QualityBounds(uri="u", digest="sha256:5", min_top1=None, max_drop=0.1)
    (verdict,) = judge_accuracy(bounds, measured(10, 1), None)
    assert "not compared" in verdict.reason


IMAGE = LabelledImage(name="3/a.png", label="3", data="aW1hZ2U=")
ANSWERS = {
    "a label": (200, {"predictions": [{"label": "3", "confidence": 0.4}]}, "3"),
    "another": (200, {"predictions": [{"label": "8", "confidence": 0.9}]}, "8"),
    "refused": (400, {"error": "no image"}, None),
    "malformed": (200, {"predictions": [3]}, None),
    "no text": (200, {"predictions": [{"label": 3}]}, None),
}


@pytest.mark.parametrize(("status", "body", "label"), ANSWERS.values(), ids=ANSWERS)
def test_only_the_label_of_an_answer_counts(status, body, label):
    """The confidence does not matter; a refused image has no label."""
    assert label == answered_label(Answer(status=status, body=json.dumps(body)))


def test_images_are_sent_as_golden_cases_are():
    """A labelled image is one instance of the same signature."""
    assert json.loads(IMAGE.rest_body) == {"signature_name": "serving_default", "instances": ["aW1hZ2U="]}


def test_baseline_is_the_newest_record_that_measured_the_image():
    """A run that only applied the image again measured nothing; another image's accuracy does not count."""
    quality = {"digest": "sha256:5", "images": 2}
    records = [
        {"run_id": f"r{place}", "digest": image, "verdicts": {"preview_gate": {"measured": {"quality": found}}}}
        for place, (image, found) in enumerate(
            [
                ("a", {**quality, "wrong": ["x"]}),
                ("a", {**quality, "wrong": ["y"]}),
                ("a", None),
                ("b", {**quality, "wrong": []}),
            ]
        )
    ]
    assert recorded_baseline(records, "a", "sha256:5") == Baseline(
        measured=Accuracy(digest="sha256:5", images=2, wrong=("y",)), source="measured by run r1"
    )
    assert recorded_baseline(records, "c", "sha256:5") is None
    assert recorded_baseline(records, "a", "sha256:6") is None


def test_accuracy_is_read_from_a_record():
    """A record has the accuracy on its own set only."""
    record = {
        "verdicts": {
            "apply": {},
            "gate": {"measured": {"quality": {"digest": "sha256:5", "images": 2, "wrong": ["a"]}}},
        }
    }
    assert accuracy_of_record(record, "sha256:5") == Accuracy(digest="sha256:5", images=2, wrong=("a",))
    assert accuracy_of_record(record, "sha256:6") is None
    assert accuracy_of_record({"verdicts": {"gate": {"outcome": "pass"}}}, "sha256:5") is None


def change(images, *, lost=0, won=0, other=0):
    """What int8 changes on so many images; `other` labels changed from one wrong label to another."""
    names = [f"{n:04}.png" for n in range(lost + won + other)]
    return Int8Change(
        images=images, changed=tuple(names), lost=tuple(names[:lost]), won=tuple(names[lost : lost + won])
    )


INT8 = {
    "nothing changed": (100, {}, ["pass", "pass"]),
    "as many as allowed": (100, {"other": 2}, ["pass", "pass"]),
    "one too many": (100, {"other": 3}, ["inconclusive", "pass"]),
    "far too many": (100, {"other": 20}, ["fail", "pass"]),
    "a few too many of many": (1000, {"other": 40}, ["fail", "pass"]),
    "as many won as lost": (100, {"lost": 1, "won": 1}, ["pass", "pass"]),
    "more lost than allowed": (100, {"lost": 2}, ["pass", "inconclusive"]),
    "far more lost": (1000, {"lost": 40}, ["fail", "fail"]),
}


@pytest.mark.parametrize(("images", "changed", "outcomes"), INT8.values(), ids=INT8)
def test_int8_is_held_to_its_own_bounds(images, changed, outcomes):
    """The share of labels changed, and the drop of the share classified correctly: each fails only if chance cannot explain it."""
    bounds = QualityBounds(uri="u", digest="sha256:5", min_top1=None, max_drop=None)
    assert outcomes == [verdict.outcome for verdict in judge_int8(bounds, change(images, **changed))]


def test_int8_message_has_figures_bounds_and_images():
    """Both verdicts say what was found, what is allowed, and name some images."""
    bounds = QualityBounds(uri="u", digest="sha256:5", min_top1=None, max_drop=None, int8_max_drop=0.05)
    changed, dropped = judge_int8(bounds, change(100, lost=20, won=1, other=1))
    assert changed.reason == (
        "int8: 22 of 100 labels changed against float32, 19 fewer correct, at most 0.02 of the labels may change, "
        "lower 95 % bound 0.1500; such as 0000.png, 0001.png, 0002.png and 19 more"
    )
    assert dropped.reason == (
        "int8: 20 correct labels lost, 1 won, a drop of at most 0.05 allowed, lower 95 % bound 0.1015; "
        "such as 0000.png, 0001.png, 0002.png and 17 more"
    )


def test_int8_passes_with_a_warning_if_the_set_is_too_small():
    """With no change, 188 images do not exclude 2 % of the labels, and 275 no drop of 1 %; with one more each, they do."""
    bounds = QualityBounds(uri="u", digest="sha256:5", min_top1=None, max_drop=None)
    changed, dropped = judge_int8(bounds, change(3))
    assert changed.reason == (
        "int8: 0 of 3 labels changed against float32, 0 fewer correct, at most 0.02 of the labels may change, "
        "upper 95 % bound 0.5615, above 0.02: the set is too small to exclude it"
    )
    assert dropped.reason == (
        "int8: 0 correct labels lost, 0 won, a drop of at most 0.01 allowed, "
        "upper 95 % bound 0.5544, above 0.01: the set is too small to exclude it"
    )

    def warned(images):
        return ["too small" in verdict.reason for verdict in judge_int8(bounds, change(images))]

    assert [warned(images) for images in (188, 189)] == [[True, True], [False, True]]
    assert [warned(images) for images in (275, 276)] == [[False, True], [False, False]]


def test_int8_is_compared_on_the_images_that_were_not_calibrated_with():
    """Only images with a label in float32 count. A label that int8 does not give is a changed one."""
    images = [
        LabelledImage(name=name, label="3", data="") for name in ("calibration", "same", "lost", "won", "refused")
    ]
    float32 = {"same": "3", "lost": "3", "won": "8", "refused": None}
    int8 = {"calibration": "8", "same": "3", "lost": "8", "won": "3", "refused": None}
    found = find_int8_change(images, float32, int8)
    assert found == Int8Change(images=4, changed=("lost", "won"), lost=("lost",), won=("won",))
    assert "refused" in find_int8_change(images, float32, {**int8, "refused": "3"}).changed
    assert "same" in find_int8_change(images, float32, {**int8, "same": None}).changed
