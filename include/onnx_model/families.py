"""Exports a tiny checkpoint of every family that 🤗 classifies images with, and writes the table of docs/runtimes.md.

`make onnx-families` runs it in this folder's environment. It writes between the marks of the page that it is given. Each family
is exported and judged by the exporter's own code.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import ExportRefused
from export_onnx import OnnxRuntime
from exporting import export_checkpoint, packages
from family_checkpoints import FAMILIES, colourful, make_checkpoint, processor_settings
from parity import Comparison, compare, judge_count, judge_parity, one_level, summary
from process import plain_line
from reference_pixels import upright_pixels
from request import Settings
from sample_images import SampleImage, built_in
from toolchain import NoReference
from torch_checkpoint import prepared, refuse_other_inputs

BEGIN = "<!-- written by `make onnx-families`, which replaces all text between these marks -->"
END = "<!-- end of make onnx-families -->"
SIDE = 224  # of the processors' images
HALF = 0.5  # of a level; less is the order of arithmetic
SHOWN = 160  # characters of a reason
ANSWERS = 2  # different labels that 🤗 must give: a model that gives one label for all images proves little
HEAD = "| family | processor | largest difference of a probability | of a pixel, in levels | labels equal | different labels |"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a family: the figures of its comparison with 🤗, or why it is refused."""

    model_type: str
    processor: str
    answers: int = 0  # how many labels 🤗 gave
    figures: dict[str, Any] | None = None
    why: str = ""

    @property
    def is_proven(self) -> bool:
        """Whether the exported model gives 🤗's answers."""
        return self.figures is not None and not self.why


def try_family(model_type: str, folder: Path, images: list[SampleImage], toolchain: OnnxRuntime) -> Outcome:
    """Make a checkpoint, export it, and compare the export with 🤗."""
    named = f"{FAMILIES[model_type].processor}ImageProcessor"
    try:
        refuse_other_inputs(model_type, where="config.json")
        make_checkpoint(model_type, folder / "checkpoint")
    except ExportRefused as refused:
        return Outcome(model_type=model_type, processor=named, why=first_line(refused))
    except Exception as error:  # whatever 🤗 raises: the family cannot be had here
        return Outcome(model_type=model_type, processor=named, why=f"not made: {first_line(error)}")
    settings = Settings()
    try:
        checkpoint = export_checkpoint(folder / "checkpoint", folder / "model", settings, toolchain)
    except ExportRefused as refused:
        return Outcome(model_type=model_type, processor=named, why=first_line(refused))
    graph, reader = toolchain.open(folder / "model"), toolchain.reader(checkpoint, settings)
    try:
        found, skipped = compare(checkpoint, reader, graph, images)
    except ExportRefused as refused:
        return Outcome(model_type=model_type, processor=named, why=first_line(refused))
    return Outcome(
        model_type=model_type,
        processor=named,
        answers=len({one.reference.label for one in found}),
        figures=summary(found, skipped),
        why=first_line(judge_count(len(found), skipped) or judge_parity(found) or judge_labels(found) or ""),
    )


def judge_labels(found: Sequence[Comparison]) -> str | None:
    """Why the labels prove nothing; None if all are equal, and 🤗 gives several different ones."""
    other = sum(one.graph.label != one.reference.label for one in found)
    if other:
        return f"{other} of {len(found)} images have another label than 🤗's"
    answers = len({one.reference.label for one in found})
    return (
        None
        if answers >= ANSWERS
        else f"🤗's labels for all images are {answers} different: the model tells no images apart"
    )


def judge_list(known: Iterable[str], all_of_them: Iterable[str]) -> str | None:
    """Which families this program does not try, or 🤗 no longer has; None if the two lists are equal."""
    ours, theirs = set(known), set(all_of_them)
    said = {"has not": sorted(theirs - ours), "has too many": sorted(ours - theirs)}
    if not any(said.values()):
        return None
    shown = "; ".join(f"it {what} {', '.join(names)}" for what, names in said.items() if names)
    return f"family_checkpoints.FAMILIES is not 🤗's AutoModelForImageClassification: {shown}. Next: add them there, or remove them."


def judge_again(outcomes: Iterable[Outcome], before: Collection[str]) -> str | None:
    """Which families the page's table has as exported and are not now; None if there are none."""
    lost = [one for one in outcomes if not one.is_proven and one.model_type in before]
    if not lost:
        return None
    shown = "; ".join(f"{one.model_type}: {one.why}" for one in lost)
    return f"{len(lost)} families of the page's table are no longer exported ({shown}). Next: mend them, or delete their rows."


def exported_before(page: str) -> set[str]:
    """The families that the page's table has as exported."""
    _, _, after = page.partition(BEGIN)
    table = after.partition(END)[0].partition(HEAD)[2].partition("\n\n")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    return set(rows[1:])  # without the line below the head


def first_line(said: object) -> str:
    """What an error says, without what to do next and where it was."""
    text = plain_line(str(said)).partition(" Next: ")[0]
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def measure_processors(images: list[SampleImage]) -> dict[str, dict[str, tuple[float, float]]]:
    """By processor and by 🤗's library for it: the largest difference in levels, and the share of values that differ."""
    from onnx_file import plan_of
    from served_onnx import ServerReader

    found: dict[str, dict[str, tuple[float, float]]] = {}
    seen = [(image, upright_pixels(image.data)) for image in images]
    for name in sorted({family.processor for family in FAMILIES.values()}):
        found[name] = {}
        for library, kind in classes(name).items():
            processor = kind(**processor_settings(name, SIDE))
            try:
                reader = ServerReader(plan_of(processor), Settings())
            except ExportRefused:
                continue
            found[name][library] = largest(reader, processor, seen)
            print(f"{name}, {library}: {found[name][library]}", flush=True)
    return {name: libraries for name, libraries in found.items() if libraries}


def classes(name: str) -> dict[str, Any]:
    """A processor's classes by the library that they compute with."""
    import transformers

    kinds = {"PIL": f"{name}ImageProcessorPil", "torchvision": f"{name}ImageProcessor"}
    return {
        library: found for library, kind in kinds.items() if (found := getattr(transformers, kind, None)) is not None
    }


def largest(reader: Any, processor: Any, seen: Iterable[tuple[SampleImage, Any]]) -> tuple[float, float]:
    """The largest difference of a value from the processor's, in levels, and the share of values that differ by half a level."""
    import numpy as np

    level, levels, different, values = one_level(reader.steps), 0.0, 0, 0
    for image, pixels in seen:
        try:
            theirs = prepared(processor, pixels)[0]
        except NoReference:
            continue
        apart = np.abs(reader.pixels(image.data) - theirs) / level
        levels, different, values = (
            max(levels, float(apart.max())),
            different + int((apart > HALF).sum()),
            values + apart.size,
        )
    return levels, different / values


def render(
    outcomes: list[Outcome], processors: dict[str, dict[str, tuple[float, float]]], versions: dict[str, str]
) -> str:
    """The text between the marks."""
    exported = [one for one in outcomes if one.is_proven]
    lines = [
        f"On {', '.join(f'{name} {version}' for name, version in versions.items())}. Each model is tiny and has random weights, spread so that",
        "its answers differ between images. The pixels and probabilities of the exported model, as the server computes them, are compared",
        "with 🤗's own processor and PyTorch model, on all image files that 🤗's processor takes. A family counts as exported if each label is",
        f"🤗's, and 🤗 gives at least {ANSWERS} different ones. {len(exported)} of {len(outcomes)} families are exported.",
        "",
        HEAD,
        "| --- | --- | --- | --- | --- | --- |",
        *(row(one) for one in exported),
        "",
        "| refused family | why |",
        "| --- | --- |",
        *(f"| {one.model_type} | {one.why.replace('|', chr(92) + '|')} |" for one in outcomes if one not in exported),
        "",
        "The largest difference of a pixel between the server and each of 🤗's classes of a processor, at 224 x 224, in levels of 0 to 255,",
        "and the share of values that differ:",
        "",
        "| processor | with PIL (slow) | with torchvision (fast) |",
        "| --- | --- | --- |",
        *(
            f"| {name} | {shown(found.get('PIL'))} | {shown(found.get('torchvision'))} |"
            for name, found in processors.items()
        ),
    ]
    return "\n".join(lines)


def row(outcome: Outcome) -> str:
    """A family's line of the table."""
    figures = outcome.figures or {}
    return (
        f"| {outcome.model_type} | {outcome.processor} | {figures['largest_difference']:.5f} | {figures['largest_levels']:g} | "
        f"{figures['labels_equal']} of {figures['images']} | {outcome.answers} |"
    )


def shown(found: tuple[float, float] | None) -> str:
    """A cell of the processors' table."""
    return "-" if found is None else f"{found[0]:.3g}" + (f", {found[1]:.2%}" if found[1] else "")


def place(page: str, text: str) -> str:
    """Put the text between the marks of the page, or at its end if it has none."""
    if BEGIN not in page:
        page = f"{page.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def outcomes(names: Iterable[str], toolchain: OnnxRuntime) -> Iterator[Outcome]:
    """What became of each family."""
    images = [*built_in(), *colourful()]
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            outcome = try_family(name, Path(folder), images, toolchain)
        said = outcome.why or row(outcome)
        print(f"{name}: {said}", flush=True)
        yield outcome


def main() -> int:
    """Try every family and write the page. Status 1, and no page, if 🤗 has other families or the page's table has more."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="a Markdown page")
    parser.add_argument("--only", nargs="+", choices=sorted(FAMILIES), help="print these families and write nothing")
    options = parser.parse_args()
    toolchain = OnnxRuntime()
    toolchain.quiet()
    toolchain.load()
    if problem := judge_list(FAMILIES, families_of_transformers()):
        return failed(problem)
    page = options.page.read_text(encoding="utf-8") if options.page.exists() else "# Runtimes\n"
    found = list(outcomes(options.only or FAMILIES, toolchain))
    if problem := judge_again(found, exported_before(page)):
        return failed(problem)
    if not options.only:
        text = render(found, measure_processors(built_in()), packages(toolchain))
        options.page.write_text(place(page, text), encoding="utf-8")
    return 0


def families_of_transformers() -> list[str]:
    """The model types that 🤗's AutoModelForImageClassification has."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    return list(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)


def failed(problem: str) -> int:
    """Say in one line what is wrong. Returns the exit status."""
    print(f"make onnx-families: {problem}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
