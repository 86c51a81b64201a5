"""How well a labelled set is told: read and pinned once, judged against a bound and against the live release.

A share that is below its bound by no more than chance explains is neither right nor wrong: the gate is in doubt.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from slipway.facts import Baseline, Measured, from_dict
from slipway.release import QualityBounds
from slipway.serving.golden import OK, Answer
from slipway.serving.labelled_set import LabelledImage
from slipway.verdict import Verdict

Z = 1.959964  # the normal distribution's, for 95 of 100
NAMED = 3  # images that a message names


def is_correct(image: LabelledImage, answer: Answer) -> bool:
    """Whether an answer names the image's label first; a refusal does not."""
    try:
        label = json.loads(answer.body)["predictions"][0]["label"] if answer.status == OK else None
    except (ValueError, KeyError, IndexError, TypeError):
        return False
    return bool(label == image.label)


def judge_accuracy(floor: QualityBounds, now: Measured, live: Baseline | None) -> list[Verdict]:
    """What a measurement is worth: against the bound, and against the live release, where the model file says so."""
    verdicts = []
    if floor.min_top1 is not None:
        verdicts.append(judge_floor(now, floor.min_top1))
    if floor.max_drop is not None:
        verdicts.append(judge_drop(now, live, floor.max_drop))
    return verdicts


def judge_floor(now: Measured, min_top1: float) -> Verdict:
    """Whether the share told right is at least the bound.

    Below it, the release fails where Wilson's interval for the share ends below the bound too, else it is in doubt.
    """
    said = f"quality: {now}, {min_top1:g} promised"
    if now.right / now.images >= min_top1:
        return Verdict.passed(said)
    _, most = wilson(now.right, now.images)
    said = f"{said}, {most:.4f} is the most that chance allows{_named(now.wrong)}"
    return Verdict.failed(said) if most < min_top1 else Verdict.inconclusive(said)


def judge_drop(now: Measured, live: Baseline | None, max_drop: float) -> Verdict:
    """Whether the share told right is at most `max_drop` below the live release's on the same images.

    Beyond it, the release fails where the interval for the difference lies beyond it too, else it is in doubt.
    """
    if live is None or live.measured is None:
        why = live.source if live else "there is no live release"
        said = f"quality: not compared with the live release: {why}"
        return Verdict.inconclusive(said) if live and live.unknown else Verdict.passed(said)
    lost = sorted(set(now.wrong) - set(live.measured.wrong))
    won = sorted(set(live.measured.wrong) - set(now.wrong))
    said = f"quality: {now.right} of {now.images} right, the live release {live.measured.right} ({live.source})"
    if (len(lost) - len(won)) / now.images <= max_drop:
        return Verdict.passed(f"{said}, at most {max_drop:g} less allowed")
    least, _ = paired_difference(len(lost), len(won), now.images)
    said = f"{said}, at most {max_drop:g} less allowed, {least:.4f} less is the least that chance allows{_named(lost)}"
    return Verdict.failed(said) if least > max_drop else Verdict.inconclusive(said)


def wilson(right: int, images: int) -> tuple[float, float]:
    """The 95 % score interval for a share: Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212."""
    share, spread = right / images, Z * Z / images
    middle = share + spread / 2
    half = Z * math.sqrt(share * (1 - share) / images + spread / (4 * images))
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)


def paired_difference(lost: int, won: int, images: int) -> tuple[float, float]:
    """The 95 % interval for how much smaller a share is than another's of the same images.

    `lost` are right there alone, `won` here alone: Bonett and Price, J. Educ. Behav. Stat. 37 (2012), 479-488.
    """
    there, here = (lost + 1) / (images + 2), (won + 1) / (images + 2)
    half = Z * math.sqrt((there + here - (there - here) ** 2) / (images + 2))
    return there - here - half, there - here + half


def _named(images: Sequence[str]) -> str:
    more = f" and {len(images) - NAMED} more" if len(images) > NAMED else ""
    return f"; such as {', '.join(images[:NAMED])}{more}" if images else ""


def measured_in(record: dict[str, Any], digest: str) -> Measured | None:
    """How a recorded release told this very set when it was gated; None where it was not asked, or another one."""
    for said in record["verdicts"].values():
        found = (said.get("measured") or {}).get("quality")
        if found and found["digest"] == digest:
            return from_dict(Measured, found)
    return None
