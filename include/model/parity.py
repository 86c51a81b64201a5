"""How far the exported graph is from 🤗: the pixels that go into the model, and the probabilities that come out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from golden import Answer, reference_probabilities
from process import plain_line
from processor import FlipChannels, Normalise, Rescale, Step
from reference_pixels import upright_pixels
from sample_images import SampleImage
from toolchain import Checkpoint, NoReference, Reader, Served


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The largest differences that are allowed."""

    levels: float  # of a pixel, in levels of 0 to 255
    difference: float  # of a probability

    def __str__(self) -> str:
        """The bounds as messages show them."""
        return f"{self.levels:g} level{'s' if self.levels > 1 else ''} and {self.difference:g}"


# One level: a weight of a filter may end in a half and be rounded the other way. The order in which float32 values are
# added moves a probability by about 1e-6.
BOUNDS = Bounds(levels=1, difference=1e-3)
# One level before the resize; bicubic and Lanczos sharpen and turned it into three. How far that moves a probability
# depends on the model: an untrained DeiT's moved by 0.43. So any difference is allowed, but it must be a number.
CMYK_BOUNDS = Bounds(levels=4, difference=1)
SHOWN = 200  # characters of an error


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The results of one image in the graph and in 🤗."""

    kind: str
    name: str
    levels: float  # the largest difference of a pixel, in levels of 0 to 255
    graph: Answer
    reference: Answer
    difference: float  # the largest difference of a probability, among those that top_k returns
    tie: bool  # labels differ, but `difference` (for CMYK its bound) can explain it
    cmyk: bool = False

    @property
    def bounds(self) -> Bounds:
        """The bounds for this image."""
        return CMYK_BOUNDS if self.cmyk else BOUNDS

    @property
    def is_within(self) -> bool:
        """Whether it is within its bounds; a NaN is not."""
        rounding = 1e-3  # of floats
        return self.levels <= self.bounds.levels + rounding and self.difference <= self.bounds.difference

    @property
    def severity(self) -> tuple[float, ...]:
        """Larger is worse: by the probability, then by the pixels."""
        return tuple(math.inf if math.isnan(value) else value for value in (self.difference, self.levels))


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """An image that cannot be compared, because 🤗's own processor raises an error for it."""

    kind: str
    name: str
    why: str

    def __str__(self) -> str:
        """The image as messages show it."""
        return f"{self.kind} {self.name!r} ({self.why})"


def compare(
    checkpoint: Checkpoint, reader: Reader, graph: Served, images: Iterable[SampleImage]
) -> tuple[list[Comparison], list[Skipped]]:
    """Compare graph and 🤗 on every image that 🤗 itself can prepare. Returns also the images that it cannot."""
    level, found, skipped = one_level(reader.steps), [], []
    for image in images:
        try:
            found.append(_compare(checkpoint, graph, image, reader, level))
        except NoReference as error:
            skipped.append(Skipped(kind=image.kind, name=image.name, why=plain_line(str(error))[:SHOWN]))
    return found, skipped


def _compare(checkpoint: Checkpoint, graph: Served, image: SampleImage, reader: Reader, level: Any) -> Comparison:
    import numpy as np

    theirs = checkpoint.prepare(upright_pixels(image.data))[0]
    ours = reader.pixels(image.data)
    outputs = graph.call("top_k", [image.data])
    labels, scores = [label.decode() for label in outputs["labels"][0]], outputs["scores"][0]
    expected = reference_probabilities(checkpoint, image.data)
    ranked = np.sort(expected)[::-1][: len(scores)]
    best = int(expected.argmax())
    difference, cmyk = float(np.abs(scores - ranked).max()), graph.is_approximate(image.data)
    near = CMYK_BOUNDS.difference if cmyk else 2 * difference
    other = max((expected[place] for place, label in enumerate(checkpoint.labels) if label == labels[0]), default=0.0)
    return Comparison(
        kind=image.kind,
        name=image.name,
        levels=float((np.abs(ours - theirs) / level).max()),
        graph=Answer(label=labels[0], confidence=float(scores[0])),
        reference=Answer(label=checkpoint.labels[best], confidence=float(expected[best])),
        difference=difference,
        tie=labels[0] != checkpoint.labels[best] and bool(expected[best] - other <= near),
        cmyk=cmyk,
    )


def one_level(steps: Sequence[Step]) -> Any:
    """The size of one level of 0 to 255 after the steps, per channel: (3, 1, 1)."""
    import numpy as np

    level: Any = np.ones(3)
    for step in steps:
        match step:
            case Rescale():
                level = level * step.factor
            case Normalise():
                level = level / step.std
            case FlipChannels():
                level = level[::-1]
    return level[:, None, None]


def judge_count(compared: int, skipped: Sequence[Skipped]) -> str | None:
    """What is wrong with the number of images that were compared; None if they are at least half."""
    if compared >= len(skipped):
        return None
    return (
        f"parity: only {compared} of {compared + len(skipped)} images are compared; 🤗's own processor refuses the others, "
        f"such as {skipped[0]}"
    )


def judge_parity(comparisons: Sequence[Comparison]) -> str | None:
    """What is wrong with the worst image; None if all are within their bounds."""
    mislabelled = [one for one in comparisons if one.graph.label != one.reference.label and not one.tie]
    far = [one for one in comparisons if not one.is_within]
    if not (mislabelled or far):
        return None
    worst = max(mislabelled or far, key=lambda one: one.severity)
    return (
        f"parity: {len({*mislabelled, *far})} of {len(comparisons)} images differ from 🤗; "
        f"the worst is {worst.kind} {worst.name!r}: the exported graph answers {worst.graph}, 🤗's own model {worst.reference}, "
        f"{worst.difference:.5f} apart, pixels up to {worst.levels:.2f} levels; allowed: {worst.bounds}"
    )


def summary(comparisons: Sequence[Comparison], skipped: Sequence[Skipped] = ()) -> dict[str, Any]:
    """The figures of a set, rounded so that every run gives the same ones; CMYK images are counted separately."""
    kinds = {}
    for one in comparisons:
        kinds[one.kind] = max(kinds.get(one.kind, 0.0), one.levels)
    return {
        **_figures([one for one in comparisons if not one.cmyk]),
        "levels_by_kind": {kind: round(levels, 2) for kind, levels in sorted(kinds.items())},
        "cmyk": _figures([one for one in comparisons if one.cmyk]),
        "skipped": len(skipped),
    }


def _figures(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    differences = [one.difference for one in comparisons] or [0.0]
    return {
        "images": len(comparisons),
        "largest_levels": round(max((one.levels for one in comparisons), default=0.0), 2),
        "largest_difference": _shown(max(differences)),
        "mean_difference": _shown(sum(differences) / len(differences)),
        "labels_equal": sum(one.graph.label == one.reference.label for one in comparisons),
        "ties": sum(one.tie for one in comparisons),
    }


def _shown(difference: float) -> float:
    """Round up to 0.00001: smaller differences are float32 noise, which changes from run to run."""
    return round(-(-difference // 1e-5) * 1e-5, 5)
