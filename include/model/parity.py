"""How far the exported graph is from 🤗: the pixels that the model sees, and the probabilities that come out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from golden import Answer, ExportedGraph, reference_chances
from pictures import Picture
from preprocess import Normalise, Rescale, Step
from upright import is_cmyk, prepare, upright_pixels

if TYPE_CHECKING:
    from served_graph import Checkpoint, ImageReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How far apart the two may be."""

    levels: float  # of 256: no pixel may be further off
    difference: float  # of a probability

    def __str__(self) -> str:
        """As a person reads it in a message."""
        return f"{self.levels:g} level{'s' if self.levels > 1 else ''} and {self.difference:g}"


# One level is where a filter's weight ends in a half; float32's order of sums makes about 1e-6 of a probability.
BOUNDS = Bounds(levels=1, difference=1e-3)
# One level before the resize; bicubic and Lanczos, which sharpen, made three of it. What a model makes of a picture that is
# so much darker is its own: an untrained DeiT's probability moved by 0.43. So any number will do, but it must be one.
CMYK_BOUNDS = Bounds(levels=4, difference=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One picture through the graph and through 🤗."""

    kind: str
    name: str
    levels: float  # the largest difference of a pixel, in levels of 0 to 255
    graph: Answer
    reference: Answer
    difference: float  # the largest of a probability, among those that top_k gives
    tie: bool  # labels differ, and 🤗's own probabilities of the two are nearer to each other than the difference
    cmyk: bool = False

    @property
    def bounds(self) -> Bounds:
        """Those that it is held to."""
        return CMYK_BOUNDS if self.cmyk else BOUNDS

    @property
    def is_within(self) -> bool:
        """Whether it keeps them; a NaN keeps none."""
        grace = 1e-3  # a float's worth
        return self.levels <= self.bounds.levels + grace and self.difference <= self.bounds.difference

    @property
    def badness(self) -> tuple[float, ...]:
        """Higher for a worse one: by the probability, then by the pixels."""
        return tuple(math.inf if math.isnan(value) else value for value in (self.difference, self.levels))


def compare(
    checkpoint: Checkpoint, reader: ImageReader, graph: ExportedGraph, pictures: Iterable[Picture]
) -> list[Comparison]:
    """Both answers to every picture."""
    worth = one_level(reader.steps)
    return [_compare(checkpoint, graph, picture, reader, worth) for picture in pictures]


def _compare(
    checkpoint: Checkpoint, graph: ExportedGraph, picture: Picture, reader: ImageReader, worth: Any
) -> Comparison:
    import numpy as np

    apart = np.abs(
        reader.prepare(picture.data)[0].numpy() - prepare(checkpoint.processor, upright_pixels(picture.data))[0]
    )
    said = graph.call("top_k", [picture.data])
    labels, scores = [label.decode() for label in said["labels"][0]], said["scores"][0]
    chances = reference_chances(checkpoint, picture.data)
    ranked = np.sort(chances)[::-1][: len(scores)]
    best = int(chances.argmax())
    difference, cmyk = float(np.abs(scores - ranked).max()), is_cmyk(picture.data)
    near = CMYK_BOUNDS.difference if cmyk else 2 * difference
    rival = max((chances[place] for place, label in enumerate(checkpoint.labels) if label == labels[0]), default=0.0)
    return Comparison(
        kind=picture.kind,
        name=picture.name,
        levels=float((apart / worth).max()),
        graph=Answer(label=labels[0], confidence=float(scores[0])),
        reference=Answer(label=checkpoint.labels[best], confidence=float(chances[best])),
        difference=difference,
        tie=labels[0] != checkpoint.labels[best] and bool(chances[best] - rival <= near),
        cmyk=cmyk,
    )


def one_level(steps: Sequence[Step]) -> Any:
    """How much one level of 0 to 255 is worth after the steps, in each channel: (3, 1, 1)."""
    import numpy as np

    worth = next((step.factor for step in steps if isinstance(step, Rescale)), 1.0)
    spread = next((step.std for step in steps if isinstance(step, Normalise)), (1.0, 1.0, 1.0))
    return worth / np.array(spread)[:, None, None]


def judge_parity(comparisons: Sequence[Comparison]) -> str | None:
    """What is wrong with the worst picture, or None where every one is within its bounds."""
    others = [one for one in comparisons if one.graph.label != one.reference.label and not one.tie]
    far = [one for one in comparisons if not one.is_within]
    if not (others or far):
        return None
    worst = max(others or far, key=lambda one: one.badness)
    return (
        f"parity: {len({*others, *far})} of {len(comparisons)} images are not as 🤗 has them; "
        f"the worst is {worst.kind} {worst.name!r}: the exported graph answers {worst.graph}, 🤗's own model {worst.reference}, "
        f"{worst.difference:.5f} apart, pixels up to {worst.levels:.2f} levels; allowed are {worst.bounds}"
    )


def summary(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The figures of a set, rounded so that they are the same from run to run; those of CMYK pictures apart from the others'."""
    kinds = {}
    for one in comparisons:
        kinds[one.kind] = max(kinds.get(one.kind, 0.0), one.levels)
    return {
        **_figures([one for one in comparisons if not one.cmyk]),
        "levels_by_kind": {kind: round(levels, 2) for kind, levels in sorted(kinds.items())},
        "cmyk": _figures([one for one in comparisons if one.cmyk]),
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
    """Up to a hundred-thousandth, rounded upwards: what is below is float32's noise, and differs from run to run."""
    return round(-(-difference // 1e-5) * 1e-5, 5)
