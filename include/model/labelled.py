"""Measures what int8 changes: the labels of a labelled set's images, in float32 and in int8."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import ExportRefused
from golden import SIGNATURE, Answer, answer_of
from toolchain import Served

CALIBRATION_SHARE = 4  # one of four images calibrates; the others are judged
MOST_CALIBRATION = 100  # images; more hardly move a smallest and a largest value


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """An image with its true label."""

    name: str
    label: str
    data: str  # the file in web-safe base64

    @property
    def file(self) -> bytes:
        """The image's file."""
        return base64.urlsafe_b64decode(self.data)


def read_labelled(path: Path) -> tuple[LabelledImage, ...]:
    """The images of a labelled set. Raises ExportRefused."""
    try:
        return tuple(LabelledImage(**image) for image in json.loads(path.read_text(encoding="utf-8"))["images"])
    except OSError as error:
        raise ExportRefused(f"labelled: {path}: {error.strerror}. Next: name a readable file.") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ExportRefused(f"labelled: {path}: no labelled set ({error}). Next: see export_onnx.py --help.") from error


def classify(graph: Served, images: Sequence[LabelledImage]) -> dict[str, Answer | None]:
    """The graph's answer to each image by its name, one at a time as clients send them; None if it refuses the image."""
    return {image.name: _answer(graph, image) for image in images}


def _answer(graph: Served, image: LabelledImage) -> Answer | None:
    try:
        return answer_of(graph.call(SIGNATURE, [image.data]))
    except graph.refusals:
        return None


def choose_calibration(
    images: Sequence[LabelledImage], answers: Mapping[str, Answer | None]
) -> tuple[LabelledImage, ...]:
    """The images to calibrate with, among those that have an answer: the same ones wherever they lie. Raises ExportRefused."""
    usable = sorted(
        (image for image in images if answers[image.name] is not None),
        key=lambda image: (hashlib.sha256(image.data.encode()).hexdigest(), image.name),
    )
    chosen = usable[: min(len(usable) // CALIBRATION_SHARE, MOST_CALIBRATION)]
    if not chosen:
        raise ExportRefused(
            f"labelled: {len(usable)} readable images are too few to calibrate int8 with, and to judge it. "
            f"Next: use at least {CALIBRATION_SHARE} images, or let export.calibration be none."
        )
    return tuple(sorted(chosen, key=lambda image: image.name))


def compare_answers(
    images: Sequence[LabelledImage],
    calibrated: int,
    before: Mapping[str, Answer | None],
    after: Mapping[str, Answer | None],
) -> dict[str, Any]:
    """What int8 changed on these images, for the card. The difference is that of the confidences, on the machine that exports."""

    def label(answer: Answer | None) -> str | None:
        return answer and answer.label

    def correct(answers: Mapping[str, Answer | None]) -> int:
        return sum(label(answers[image.name]) == image.label for image in images)

    pairs = [(before[image.name], after[image.name]) for image in images]
    differences = [abs(one.confidence - other.confidence) for one, other in pairs if one and other]
    return {
        "images": len(images),
        "calibration_images": calibrated,
        "labels_changed": sum(label(one) != label(other) for one, other in pairs),
        "correct_float32": correct(before),
        "correct_int8": correct(after),
        "largest_difference": round(max(differences, default=0.0), 4),
    }
