"""Golden cases: the very requests that the gate will send, and the answers that it may expect."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpc_files import SIGNATURE, predict_request
from refused import ExportRefused
from request import GoldenImage
from upright import is_cmyk, prepare, upright_pixels

if TYPE_CHECKING:
    from served_graph import Checkpoint

# How far the served confidence may be from 🤗's own. The pixels are the same to the last bit (docs/model.md); what is left
# is float32's order of sums, which differs from CPU to CPU: under 0.00001 on the machine that exports. A wrong resize (no
# antialias, another filter) moved digits-vit's confidence by up to 0.10, by 0.0025 on average.
TOLERANCE = 0.01
# TensorFlow's own decoder cuts off where PIL rounds: a third of a CMYK photograph's values is one level of 255 darker, and
# nothing in the graph can mend it. That moved digits-vit's confidence by up to 0.023 (photographs, of which it knows nothing).
CMYK_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A label and its confidence, 0 to 1."""

    label: str
    confidence: float

    def __str__(self) -> str:
        """As a person reads it in a message."""
        return f"{self.label!r} ({self.confidence:.4f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference(Answer):
    """🤗's own answer, and how far from it the served confidence may be."""

    tolerance: float


def judge_case(case: GoldenImage, graph: Answer, reference: Reference | None) -> str | None:
    """What is wrong with the exported graph's answer to a case, or None when promise and reference both hold.

    A NaN is within no bounds.
    """
    promised = f"{' or '.join(map(repr, case.labels))} (at least {case.min_confidence})"
    if reference and (reference.label not in case.labels or not reference.confidence >= case.min_confidence):
        return f"golden case {case.name}: 🤗's own model answers {reference}, promised is {promised}"
    if reference and not (
        graph.label == reference.label and abs(graph.confidence - reference.confidence) <= reference.tolerance
    ):
        return f"golden case {case.name}: the exported graph answers {graph}, 🤗's own model {reference} ± {reference.tolerance}"
    if graph.label not in case.labels or not graph.confidence >= case.min_confidence:
        return f"golden case {case.name}: the exported graph answers {graph}, promised is {promised}"
    return None


def read_image(case: GoldenImage) -> bytes:
    """The image file's bytes."""
    try:
        return case.image.read_bytes()
    except OSError as error:
        raise ExportRefused(
            f"golden case {case.name}: {case.image}: {error.strerror}. Next: mend its image path."
        ) from error


def web_safe(image: bytes) -> str:
    """The image as the served graph takes it: base64 in the URL's alphabet, with its padding."""
    return base64.urlsafe_b64encode(image).decode()


def rest_body(image: bytes) -> str:
    """The body of a REST predict request, as the gate will send it."""
    return json.dumps({"signature_name": SIGNATURE, "instances": [web_safe(image)]})


def reference_chances(checkpoint: Checkpoint, data: bytes) -> Any:
    """🤗's own probabilities of a file: PIL opens it, the checkpoint's own processor and model do the rest."""
    import numpy as np

    pixels = prepare(checkpoint.processor, upright_pixels(data))
    logits = checkpoint.model(pixel_values=pixels, training=False).logits.numpy()[0]
    chances = np.exp(logits - logits.max())
    return chances / chances.sum()


def reference_answer(checkpoint: Checkpoint, case: GoldenImage) -> Reference:
    """🤗's answer to a case."""
    image = read_image(case)
    try:
        chances = reference_chances(checkpoint, image)
    except OSError as error:
        raise ExportRefused(
            f"golden case {case.name}: {case.image}: {error}. Next: give it a JPEG, PNG, GIF, BMP or WebP image."
        ) from error
    best = int(chances.argmax())
    tolerance = CMYK_TOLERANCE if is_cmyk(image) else TOLERANCE
    return Reference(label=checkpoint.labels[best], confidence=float(chances[best]), tolerance=tolerance)


class ExportedGraph:
    """The SavedModel as it was written, loaded again to be asked."""

    def __init__(self, folder: Path) -> None:
        """Load the SavedModel in that folder."""
        import tensorflow as tf

        self._tf = tf
        self._loaded = tf.saved_model.load(str(folder))
        self.signatures = self._loaded.signatures
        self.input_name: str = self._input(SIGNATURE)

    def _input(self, signature: str) -> str:
        return next(iter(self.signatures[signature].structured_input_signature[1]))

    def call(self, signature: str, files: Sequence[str | bytes]) -> dict[str, Any]:
        """A signature's outputs for these files, as arrays. Raises tf.errors.OpError."""
        said = self.signatures[signature](**{self._input(signature): self._tf.constant(list(files))})
        return {name: value.numpy() for name, value in said.items()}

    def ask(self, case: GoldenImage, image: bytes) -> Answer:
        """The graph's answer to one image."""
        try:
            said = self.call(SIGNATURE, [web_safe(image)])
        except self._tf.errors.OpError as error:
            raise ExportRefused(
                f"golden case {case.name}: {case.image}: the exported graph refuses it "
                f"({error.message.splitlines()[0]}). Next: give it a JPEG, PNG, GIF, BMP or WebP image."
            ) from error
        label, confidence = said["label"].reshape(-1)[0], said["confidence"].reshape(-1)[0]
        return Answer(label=label.decode(), confidence=float(confidence))


def write_case(folder: Path, model: str, input_name: str, case: GoldenImage, reference: Reference | None) -> None:
    """One case's folder: the REST body, the gRPC request and the promised answers."""
    image = read_image(case)
    folder.mkdir(parents=True)
    (folder / "rest.json").write_text(rest_body(image), encoding="utf-8")
    request = predict_request(model, input_name, [web_safe(image)])
    (folder / "grpc.bin").write_bytes(request.SerializeToString(deterministic=True))
    facts = {
        "name": case.name,
        "label": case.label,
        "min_confidence": case.min_confidence,
        "reference": asdict(reference) if reference else None,
    }
    (folder / "case.json").write_text(json.dumps(facts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
