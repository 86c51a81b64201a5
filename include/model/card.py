"""The model card: source, signatures, golden answers and parity with 🤗, as JSON and as a page with images.

Two runs of the same export differ only under `measured`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from golden import Answer, Reference, read_image
from reference_pixels import upright_pixels
from request import GoldenImage

THUMBNAIL = 160  # pixels, the longer side


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenFact:
    """A golden case with both answers."""

    case: GoldenImage
    graph: Answer
    reference: Reference | None


def write_card(folder: Path, facts: dict[str, Any], golden: Sequence[GoldenFact]) -> None:
    """Write card.json, README.md and a thumbnail of each golden image to `folder`."""
    folder.mkdir()
    card = {**facts, "golden": [_golden(fact) for fact in golden]}
    for fact in golden:
        (folder / f"{fact.case.name}.png").write_bytes(thumbnail(read_image(fact.case)))
    (folder / "card.json").write_text(json.dumps(card, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(render_card(card), encoding="utf-8")


def _golden(fact: GoldenFact) -> dict[str, Any]:
    return {
        "name": fact.case.name,
        "thumbnail": f"{fact.case.name}.png",
        "promised": {"label": " or ".join(fact.case.labels), "min_confidence": fact.case.min_confidence},
        "graph": _rounded(fact.graph),
        "reference": _rounded(fact.reference) if fact.reference else None,
    }


def _rounded(answer: Answer) -> dict[str, Any]:
    return {**asdict(answer), "confidence": round(answer.confidence, 4)}


def thumbnail(data: bytes) -> bytes:
    """The image upright and small, as PNG."""
    from PIL import Image

    small, out = Image.fromarray(upright_pixels(data)), io.BytesIO()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    small.save(out, "PNG")
    return out.getvalue()


def render_card(card: dict[str, Any]) -> str:
    """The card as a page."""
    parts = [
        [f"# {card['model']}"],
        _table(("fact", "value"), _facts(card)),
        ["## Signatures", "", *_table(("signature", "inputs", "outputs"), _signatures(card["signatures"]))],
        [
            "## Golden answers",
            "",
            *_table(("image", "case", "promised", "exported graph", "🤗"), _answers(card["golden"])),
        ],
        ["## Parity with 🤗", "", *_parity(card["parity"])],
        *([["## int8 against float32", "", *_int8(card["int8"])]] if "int8" in card else []),
        ["## Toolchain and cost", "", *_table(("what", "value"), _toolchain(card))],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> list[str]:
    lines = [head, tuple("---" for _ in head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _facts(card: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    yield from card["source"].items()
    yield "checkpoint", card["checkpoint"] or "none: a SavedModel archive"
    if card["class"]:
        yield "class", card["class"]
        yield "labels", f"{card['labels']}"
        yield "parameters", f"{card['parameters']:,}"
        yield "graph", card["graph"]
        yield "preprocessing", "; ".join(card["preprocessing"])
    yield card["content"], f"{card['bytes']:,} bytes"
    for name, value in card["settings"].items():
        yield name, f"{value}"


def _signatures(signatures: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    def named(tensors: dict[str, Any]) -> str:
        return ", ".join(f"`{name}` {info['dtype']} {info['shape']}" for name, info in tensors.items())

    for name, signature in signatures.items():
        yield f"`{name}`", named(signature["inputs"]), named(signature["outputs"])


def _answers(golden: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    def shown(answer: dict[str, Any] | None) -> str:
        return f"{answer['label']} ({answer['confidence']:.4f})" if answer else "not known"

    for case in golden:
        promised = case["promised"]
        yield (
            f"![{case['name']}]({case['thumbnail']})",
            case["name"],
            f"{promised['label']} (at least {promised['min_confidence']})",
            shown(case["graph"]),
            shown(case["reference"]),
        )


def _parity(parity: dict[str, Any] | None) -> list[str]:
    if parity is None:
        return ["Not known: a SavedModel archive has no checkpoint to compare with."]
    lines = [
        f"{found['images']} {images}: {found['labels_equal']} labels equal, {found['ties']} ties; "
        f"largest difference of a probability {found['largest_difference']:.5f}, mean {found['mean_difference']:.5f}; "
        f"largest difference of a pixel {found['largest_levels']:g} of 255 levels."
        for found, images in ((parity, "images (golden and built-in)"), (parity["cmyk"], "CMYK images"))
        if found["images"]
    ]
    if parity["skipped"]:
        lines.append(f"{parity['skipped']} more images are not compared, because 🤗's own processor refuses them.")
    rows = ((kind, f"{levels:g}") for kind, levels in parity["levels_by_kind"].items())
    return [*lines, "", *_table(("kind of file", "largest difference of a pixel, in levels"), rows)]


def _int8(int8: dict[str, Any]) -> list[str]:
    said = (
        f"On {int8['images']} images of the labelled set, which it was not calibrated with ({int8['calibration_images']} others): "
        f"{int8['labels_changed']} labels changed; {int8['correct_float32']} classified correctly in float32, {int8['correct_int8']} in int8; "
        f"largest difference of a confidence {int8['largest_difference']:.4f}. Measured on the machine that exported. "
        "The figures of the parity are those of the float32 graph that it was made from."
    )
    return [said]


def _toolchain(card: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    yield from card["toolchain"].items()
    for name, seconds in card["measured"]["stages"].items():
        yield name, f"{seconds:.1f} s"
    yield "sandbox", card["measured"]["sandbox"]
    yield "peak memory", f"{card['measured']['peak_rss_bytes'] / 2**30:.2f} GiB"
