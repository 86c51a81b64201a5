"""Golden cases: the exact requests that the gate will send, and the answers that it may expect."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from errors import ExportRefused
from reference_pixels import upright_pixels
from request import GoldenImage
from toolchain import Checkpoint, NoReference, Served

SIGNATURE = "serving_default"  # the one that golden cases ask

# How far the served confidence may be from 🤗's own. The pixels are equal to the last bit (docs/model.md). What differs
# between CPUs is the order in which float32 values are added: under 0.00001 on the machine that exports. A wrong resize
# (no antialias, another filter) moved digits-vit's confidence by up to 0.10, by 0.0025 on average.
TOLERANCE = 0.01
# TensorFlow's decoder truncates where PIL rounds: a third of a CMYK photograph's values are one level of 255 darker, and the
# graph cannot fix it. That moved digits-vit's confidence by up to 0.023 (on photographs; it was trained on digits).
CMYK_TOLERANCE = 0.1
# int8 moves confidences: digits-vit's by up to 0.1 (docs/runtimes.md). What counts there are the labels of the labelled set.
INT8_TOLERANCE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A label and its confidence, 0 to 1."""

    label: str
    confidence: float

    def __str__(self) -> str:
        """The answer as messages show it."""
        return f"{self.label!r} ({self.confidence:.4f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference(Answer):
    """🤗's own answer, and how far the served confidence may be from it."""

    tolerance: float


def judge_case(case: GoldenImage, graph: Answer, reference: Reference | None) -> str | None:
    """What is wrong with the exported graph's answer to a case; None if it keeps both promise and reference.

    A NaN keeps neither.
    """
    promised = f"{' or '.join(map(repr, case.labels))} (at least {case.min_confidence})"
    if reference and (reference.label not in case.labels or not reference.confidence >= case.min_confidence):
        return f"golden case {case.name}: 🤗's own model answers {reference}; the case promises {promised}"
    if reference and not (
        graph.label == reference.label and abs(graph.confidence - reference.confidence) <= reference.tolerance
    ):
        return f"golden case {case.name}: the exported graph answers {graph}, 🤗's own model {reference} ± {reference.tolerance}"
    if graph.label not in case.labels or not graph.confidence >= case.min_confidence:
        return f"golden case {case.name}: the exported graph answers {graph}; the case promises {promised}"
    return None


def read_image(case: GoldenImage) -> bytes:
    """The bytes of the case's image file. Raises ExportRefused."""
    try:
        return case.image.read_bytes()
    except OSError as error:
        raise ExportRefused(
            f"golden case {case.name}: {case.image}: {error.strerror}. Next: fix its image path."
        ) from error


def web_safe(image: bytes) -> str:
    """The image as the served graph takes it: web-safe base64 with padding."""
    return base64.urlsafe_b64encode(image).decode()


def rest_body(image: bytes) -> str:
    """The body of a REST predict request, as the gate will send it."""
    return json.dumps({"signature_name": SIGNATURE, "instances": [web_safe(image)]})


def reference_probabilities(checkpoint: Checkpoint, data: bytes) -> Any:
    """🤗's own probabilities for a file: opened by PIL, then the checkpoint's processor and model."""
    import numpy as np

    logits = checkpoint.logits(checkpoint.prepare(upright_pixels(data)))
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def reference_answer(checkpoint: Checkpoint, case: GoldenImage, image: bytes, graph: Served) -> Reference:
    """🤗's answer to a case's image, with more tolerance if the served model decodes this kind of file only approximately.

    Raises ExportRefused for a file that PIL cannot open, or that 🤗's processor does not take.
    """
    try:
        probabilities = reference_probabilities(checkpoint, image)
    except (OSError, NoReference) as error:
        raise ExportRefused(
            f"golden case {case.name}: {case.image}: {error}. Next: give it a JPEG, PNG, GIF, BMP or WebP image."
        ) from error
    best = int(probabilities.argmax())
    tolerance = CMYK_TOLERANCE if graph.is_approximate(image) else TOLERANCE
    return Reference(label=checkpoint.labels[best], confidence=float(probabilities[best]), tolerance=tolerance)


def ask(graph: Served, case: GoldenImage, image: bytes) -> Answer:
    """The written model's answer to one image. Raises ExportRefused."""
    try:
        outputs = graph.call(SIGNATURE, [web_safe(image)])
    except graph.refusals as error:
        raise ExportRefused(
            f"golden case {case.name}: {case.image}: the exported graph refuses it ({graph.reason(error)}). "
            "Next: give it a JPEG, PNG, GIF, BMP or WebP image."
        ) from error
    return answer_of(outputs)


def answer_of(outputs: dict[str, Any]) -> Answer:
    """The answer in the outputs of the signature for one image."""
    label, confidence = outputs["label"].reshape(-1)[0], outputs["confidence"].reshape(-1)[0]
    return Answer(label=label.decode(), confidence=float(confidence))


def write_case(folder: Path, predict: Any, case: GoldenImage, image: bytes, reference: Reference | None) -> None:
    """Write a case's folder: the REST body, the gRPC request (a PredictRequest) and the promised answers."""
    folder.mkdir(parents=True)
    (folder / "rest.json").write_text(rest_body(image), encoding="utf-8")
    (folder / "grpc.bin").write_bytes(predict.SerializeToString(deterministic=True))
    facts = {
        "name": case.name,
        "label": case.label,
        "min_confidence": case.min_confidence,
        "reference": asdict(reference) if reference else None,
    }
    (folder / "case.json").write_text(json.dumps(facts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
