"""How far the exported graph is from 🤗: the pixels that the model sees, and the probabilities that come out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from golden import Answer, ExportedGraph, reference_chances
from pictures import Picture
from preprocess import Normalise, Rescale, Step
from upright import prepare, upright_pixels

if TYPE_CHECKING:
    from served_graph import Checkpoint, ImageReader

LEVELS = 1.0  # of 256: no pixel may be further off; one more or less is where a filter's weight ends in a half
DIFFERENCE = 1e-3  # of a probability; float32's order of sums makes about 1e-6


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


def compare(
    checkpoint: Checkpoint, reader: ImageReader, graph: ExportedGraph, pictures: Iterable[Picture]
) -> list[Comparison]:
    """Both answers to every picture."""
    worth = one_level(reader.steps)
    return [_compare(checkpoint, graph, picture, reader, worth) for picture in pictures]


def _compare(
    checkpoint: Checkpoint, graph: ExportedGraph, picture: Picture, reader: ImageReader, worth: float
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
    difference = float(np.abs(scores - ranked).max())
    rival = max((chances[place] for place, label in enumerate(checkpoint.labels) if label == labels[0]), default=0.0)
    return Comparison(
        kind=picture.kind,
        name=picture.name,
        levels=float(apart.max()) / worth,
        graph=Answer(label=labels[0], confidence=float(scores[0])),
        reference=Answer(label=checkpoint.labels[best], confidence=float(chances[best])),
        difference=difference,
        tie=labels[0] != checkpoint.labels[best] and bool(chances[best] - rival <= 2 * difference),
    )


def one_level(steps: Sequence[Step]) -> float:
    """How much one level of 0 to 255 is worth after the steps, in the least spread channel."""
    worth = next((step.factor for step in steps if isinstance(step, Rescale)), 1.0)
    return worth / max((max(step.std) for step in steps if isinstance(step, Normalise)), default=1.0)


def judge_parity(comparisons: Sequence[Comparison]) -> str | None:
    """What is wrong with the worst picture, or None where every one is within its bounds."""
    others = [one for one in comparisons if one.graph.label != one.reference.label and not one.tie]
    far = [one for one in comparisons if one.difference > DIFFERENCE]
    off = [one for one in comparisons if one.levels > LEVELS + 1e-3]  # a float's worth of grace
    bounds = f"allowed are {LEVELS:g} level and {DIFFERENCE:g}"
    if not (others or far or off):
        return None
    worst = max(others or far or off, key=lambda one: (one.difference, one.levels))
    return (
        f"parity: {len({*others, *far, *off})} of {len(comparisons)} images are not as 🤗 has them; "
        f"the worst is {worst.kind} {worst.name!r}: the exported graph answers {worst.graph}, 🤗's own model {worst.reference}, "
        f"{worst.difference:.5f} apart, pixels up to {worst.levels:.2f} levels; {bounds}"
    )


def summary(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The figures of a set, rounded so that they are the same from run to run."""
    kinds = {}
    for one in comparisons:
        kinds[one.kind] = max(kinds.get(one.kind, 0.0), one.levels)
    return {
        "images": len(comparisons),
        "largest_levels": round(max(kinds.values()), 2),
        "levels_by_kind": {kind: round(levels, 2) for kind, levels in sorted(kinds.items())},
        "largest_difference": _shown(max(one.difference for one in comparisons)),
        "mean_difference": _shown(sum(one.difference for one in comparisons) / len(comparisons)),
        "labels_equal": sum(one.graph.label == one.reference.label for one in comparisons),
        "ties": sum(one.tie for one in comparisons),
    }


def _shown(difference: float) -> float:
    """Up to a hundred-thousandth, rounded upwards: what is below is float32's noise, and differs from run to run."""
    return round(-(-difference // 1e-5) * 1e-5, 5)
