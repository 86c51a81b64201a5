"""Judges the accuracy on a labelled set against the model file's minimum and against the live release. Pure.

An accuracy below its limit is inconclusive if chance alone can explain it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from slipway.facts import Accuracy, Baseline, Int8Change, from_dict
from slipway.release import QualityBounds
from slipway.serving.golden import OK, Answer
from slipway.serving.labelled_set import LabelledImage
from slipway.strict_json import load_json
from slipway.verdict import Verdict

Z = 1.959964  # of the normal distribution, for a 95 % interval
MAX_NAMED = 3  # images that a message names


def answered_label(answer: Answer) -> str | None:
    """The answer's first label; None if it is a refusal, or has none."""
    try:
        label = load_json(answer.body)["predictions"][0]["label"] if answer.status == OK else None
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return label if isinstance(label, str) else None


def judge_accuracy(bounds: QualityBounds, accuracy: Accuracy, live: Baseline | None) -> list[Verdict]:
    """A verdict for each limit that the model file sets: the minimum, and the drop against the live release."""
    verdicts = []
    if bounds.min_top1 is not None:
        verdicts.append(judge_minimum(accuracy, bounds.min_top1))
    if bounds.max_drop is not None:
        verdicts.append(judge_drop(accuracy, live, bounds.max_drop))
    return verdicts


def judge_minimum(accuracy: Accuracy, min_top1: float) -> Verdict:
    """Whether the share of correctly classified images is at least `min_top1`.

    Below it, the release fails if the upper bound of Wilson's interval is below it too; otherwise the verdict is inconclusive.
    """
    said = f"quality: {accuracy}, at least {min_top1:g} required"
    if accuracy.correct / accuracy.images >= min_top1:
        return Verdict.passed(said)
    _, upper = wilson_interval(accuracy.correct, accuracy.images)
    said = f"{said}, upper 95 % bound {upper:.4f}{_named(accuracy.wrong)}"
    return Verdict.failed(said) if upper < min_top1 else Verdict.inconclusive(said)


def judge_drop(accuracy: Accuracy, live: Baseline | None, max_drop: float) -> Verdict:
    """Whether the share of correctly classified images is at most `max_drop` below the live release's on the same images.

    With a larger drop, the release fails if the lower bound of the difference's interval exceeds `max_drop` too; otherwise
    the verdict is inconclusive. It is also inconclusive if a release was proven live and its accuracy is unknown.
    """
    compared = compare_accuracy(accuracy, live)
    if live is None:
        return Verdict.passed(compared)
    if live.measured is None:
        return Verdict.inconclusive(compared)
    lost = sorted(set(accuracy.wrong) - set(live.measured.wrong))
    won = sorted(set(live.measured.wrong) - set(accuracy.wrong))
    said = f"{compared}, a drop of at most {max_drop:g} allowed"
    if (len(lost) - len(won)) / accuracy.images <= max_drop:
        return Verdict.passed(said)
    lower, _ = paired_difference_interval(len(lost), len(won), accuracy.images)
    said = f"{said}, lower 95 % bound of the drop {lower:.4f}{_named(lost)}"
    return Verdict.failed(said) if lower > max_drop else Verdict.inconclusive(said)


def find_int8_change(
    images: Sequence[LabelledImage], float32: Mapping[str, str | None], int8: Mapping[str, str | None]
) -> Int8Change:
    """What differs between the labels in float32 and in int8, on the images that `float32` has labels of."""
    judged = [image for image in images if image.name in float32]
    right = {image.name: (float32[image.name] == image.label, int8.get(image.name) == image.label) for image in judged}
    return Int8Change(
        images=len(judged),
        changed=tuple(image.name for image in judged if float32[image.name] != int8.get(image.name)),
        lost=tuple(name for name, correct in right.items() if correct == (True, False)),
        won=tuple(name for name, correct in right.items() if correct == (False, True)),
    )


def judge_int8(bounds: QualityBounds, change: Int8Change) -> list[Verdict]:
    """Whether int8 changes at most `int8_max_changed` of the labels, and loses at most `int8_max_drop` of the correct ones.

    Beyond a bound, the release fails if the lower bound of the interval is beyond it too; otherwise the verdict is inconclusive.
    The reason of a pass warns if the upper bound of the interval is beyond it.
    """
    shares = wilson_interval(len(change.changed), change.images)
    drops = paired_difference_interval(len(change.lost), len(change.won), change.images)
    return [
        _judge_share(
            f"int8: {change}, at most {bounds.int8_max_changed:g} of the labels may change",
            len(change.changed) / change.images,
            bounds.int8_max_changed,
            shares,
            _named(change.changed),
        ),
        _judge_share(
            f"int8: {len(change.lost)} correct labels lost, {len(change.won)} won, a drop of at most {bounds.int8_max_drop:g} allowed",
            (len(change.lost) - len(change.won)) / change.images,
            bounds.int8_max_drop,
            drops,
            _named(change.lost),
        ),
    ]


def _judge_share(said: str, share: float, most: float, interval: tuple[float, float], named: str) -> Verdict:
    lower, upper = interval
    if share <= most:
        warning = f", above {most:g}: the set is too small to exclude it" if upper > most else ""
        return Verdict.passed(f"{said}, upper 95 % bound {upper:.4f}{warning}")
    said = f"{said}, lower 95 % bound {lower:.4f}{named}"
    return Verdict.failed(said) if lower > most else Verdict.inconclusive(said)


def compare_accuracy(accuracy: Accuracy, live: Baseline | None) -> str:
    """A release's accuracy and the live release's, in words; or why they are not compared."""
    if live is None or live.measured is None:
        return f"quality: not compared with the live release: {live.source if live else 'there is no live release'}"
    return f"quality: {accuracy.correct} of {accuracy.images} correct, the live release {live.measured.correct} ({live.source})"


def wilson_interval(correct: int, images: int) -> tuple[float, float]:
    """The 95 % score interval for a share: Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212."""
    share, spread = correct / images, Z * Z / images
    middle = share + spread / 2
    half = Z * math.sqrt(share * (1 - share) / images + spread / (4 * images))
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)


def share_difference_interval(part: int, whole: int, other_part: int, other_whole: int) -> tuple[float, float]:
    """The 95 % interval for the first share minus the second, from Wilson's of each: Newcombe, Stat. Med. 17 (1998), 873-890."""
    share, other = part / whole, other_part / other_whole
    low, high = wilson_interval(part, whole)
    other_low, other_high = wilson_interval(other_part, other_whole)
    lower = share - other - math.hypot(share - low, other_high - other)
    return lower, share - other + math.hypot(high - share, other - other_low)


def paired_difference_interval(lost: int, won: int, images: int) -> tuple[float, float]:
    """The 95 % interval for the drop from one share to another on the same images.

    `lost` images only the first classifies correctly, `won` only the second:
    Bonett and Price, J. Educ. Behav. Stat. 37 (2012), 479-488.
    """
    first, second = (lost + 1) / (images + 2), (won + 1) / (images + 2)
    half = Z * math.sqrt((first + second - (first - second) ** 2) / (images + 2))
    return first - second - half, first - second + half


def _named(images: Sequence[str]) -> str:
    more = f" and {len(images) - MAX_NAMED} more" if len(images) > MAX_NAMED else ""
    return f"; such as {', '.join(images[:MAX_NAMED])}{more}" if images else ""


def recorded_baseline(records: Sequence[dict[str, Any]], image: str, digest: str) -> Baseline | None:
    """The accuracy of an image (sha256:…) on the set with this digest, from the newest record whose gate measured it.

    `records` are all of the model's, oldest first: a run that only applied the image again has measured nothing.
    """
    for record in reversed(records):
        if record.get("digest") == image and (accuracy := accuracy_of_record(record, digest)):
            return Baseline(measured=accuracy, source=f"measured by run {record['run_id']}")
    return None


def accuracy_of_record(record: dict[str, Any], digest: str) -> Accuracy | None:
    """A recorded release's accuracy on the set with this digest; None if its gate did not measure it."""
    for said in record["verdicts"].values():
        found = (said.get("measured") or {}).get("quality")
        if found and found["digest"] == digest:
            return from_dict(Accuracy, found)
    return None
