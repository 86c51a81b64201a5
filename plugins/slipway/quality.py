"""How well a labelled set is told: read and pinned once, judged against a bound and against the live release.

A share that is below its bound by no more than chance explains is neither right nor wrong: the gate is in doubt.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.errors import InputRefused
from slipway.facts import Baseline, Measured, from_dict, to_dict
from slipway.model_file import QualitySettings
from slipway.names import SERVING_SIGNATURE, digest_of, short
from slipway.paths import PROJECT
from slipway.prediction import OK, Answer
from slipway.release import QualityFloor
from slipway.store import Store, read_json
from slipway.verdict import Verdict

Z = 1.959964  # the normal distribution's, for 95 of 100
MOST_IMAGES = 1000
MOST_BYTES = 64 * 1024 * 1024  # the triggerer holds them all
NAMED = 3  # images that a message names


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """One image of a set."""

    name: str  # its path in the set
    label: str
    data: str  # base64, in the URL's alphabet

    @property
    def rest_body(self) -> str:
        """The body of the REST request."""
        return json.dumps({"signature_name": SERVING_SIGNATURE, "instances": [self.data]})


def pin_quality(path: Path, asked: QualitySettings, store: Store, model: str) -> QualityFloor:
    """The set that a model file names, kept in the store by its content. Raises InputRefused, StoreError."""
    images = tuple(_read_set(path, asked.set))
    facts = [to_dict(image) for image in images]
    digest = digest_of(facts)
    key = f"quality/{model}/{short(digest)}.json"
    if not store.exists(key):
        store.put_json({"images": facts}, key)
    return QualityFloor(uri=store.uri_of(key), digest=digest, min_top1=asked.min_top1, max_drop=asked.max_drop)


def read_images(floor: QualityFloor) -> tuple[LabelledImage, ...]:
    """The images of a pinned set. Raises StoreError."""
    return tuple(from_dict(LabelledImage, image) for image in read_json(floor.uri)["images"])


def _read_set(path: Path, name: str) -> Iterator[LabelledImage]:
    """The images of the set of this name beside a model file. Raises InputRefused."""
    shown = path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path
    where = f"{shown}: gate.quality.set: {name}"
    place = (path.parent / name).resolve()
    if not place.exists() or not place.is_relative_to(path.parent.resolve()):
        raise InputRefused(f"{where} is nothing beside the model file. Next: mend it")
    labels = _of_folder(place, where) if place.is_dir() else _of_table(place, where)
    folder = place if place.is_dir() else place.parent
    if not labels or len(labels) > MOST_IMAGES:
        raise InputRefused(f"{where} has {len(labels)} images. Next: give it 1 to {MOST_IMAGES}")
    if missing := [image for image in labels if not (folder / image).is_file()]:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise InputRefused(f"{where}: {missing[0]}{more}: no such file. Next: put it there, or take its line out")
    if (size := sum((folder / image).stat().st_size for image in labels)) > MOST_BYTES:
        raise InputRefused(f"{where} has {size} bytes. Next: use fewer or smaller images, {MOST_BYTES} at most")
    for image, label in sorted(labels.items()):
        data = base64.urlsafe_b64encode((folder / image).read_bytes()).decode()
        yield LabelledImage(name=image, label=label, data=data)


def _of_folder(folder: Path, where: str) -> dict[str, str]:
    """The images of a folder with a folder for each label, by their paths."""
    files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")]
    if stray := next((file for file in files if len(file.parts) != 2), None):  # noqa: PLR2004 - label and file
        raise InputRefused(f"{where}: {stray} is in no label's folder. Next: move it to LABEL/{stray.name}")
    return {file.as_posix(): file.parts[0] for file in files}


def _of_table(file: Path, where: str) -> dict[str, str]:
    """The images of a CSV file with the columns image and label."""
    try:
        rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"))))
    except (OSError, ValueError, csv.Error) as error:
        raise InputRefused(f"{where} is no CSV file: {error}. Next: mend it") from error
    for number, row in enumerate(rows, start=2):
        if not row.get("image") or not row.get("label"):
            raise InputRefused(f"{where}: line {number} has no image or no label. Next: begin it with image,label")
    return {row["image"]: row["label"] for row in rows}


def is_told(image: LabelledImage, answer: Answer) -> bool:
    """Whether an answer names the image's label first; a refusal does not."""
    try:
        label = json.loads(answer.body)["predictions"][0]["label"] if answer.status == OK else None
    except (ValueError, KeyError, IndexError, TypeError):
        return False
    return bool(label == image.label)


def judge_quality(floor: QualityFloor, now: Measured, live: Baseline | None) -> list[Verdict]:
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
    return Verdict.failed(said) if most < min_top1 else Verdict.doubtful(said)


def judge_drop(now: Measured, live: Baseline | None, max_drop: float) -> Verdict:
    """Whether the share told right is at most `max_drop` below the live release's on the same images.

    Beyond it, the release fails where the interval for the difference lies beyond it too, else it is in doubt.
    """
    if live is None or live.measured is None:
        why = live.source if live else "there is no live release"
        said = f"quality: not compared with the live release: {why}"
        return Verdict.doubtful(said) if live and live.unknown else Verdict.passed(said)
    lost = sorted(set(now.wrong) - set(live.measured.wrong))
    won = sorted(set(live.measured.wrong) - set(now.wrong))
    said = f"quality: {now.right} of {now.images} right, the live release {live.measured.right} ({live.source})"
    if (len(lost) - len(won)) / now.images <= max_drop:
        return Verdict.passed(f"{said}, at most {max_drop:g} less allowed")
    least, _ = paired_difference(len(lost), len(won), now.images)
    said = f"{said}, at most {max_drop:g} less allowed, {least:.4f} less is the least that chance allows{_named(lost)}"
    return Verdict.failed(said) if least > max_drop else Verdict.doubtful(said)


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
