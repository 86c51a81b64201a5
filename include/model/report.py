"""The figures of docs/model.md: how near the exported graph is to 🤗, what it answers, what an export costs.

`make model-report` runs it in the exporter's environment; it writes between the marks of the page that it is given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export import export_checkpoint, quiet
from golden import ExportedGraph, web_safe
from parity import compare, judge_parity, one_level, summary
from pictures import Picture, report_set
from reproducible import fix_hash_seed
from request import Settings
from upright import is_cmyk, prepare, upright_pixels

BEGIN = "<!-- measured by `make model-report`; what stands between these marks is written over -->"
END = "<!-- end of what is measured -->"
SERVED = Path(__file__).resolve().parents[1] / "served" / "digits-vit"
MOST_BYTES = 3 * 10**9  # of memory, for an export of ViT-B/16
SHOWN = 24  # characters of a base64 text that the page shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """How far a picture's values are from those of a processor, by the graph."""

    picture: Picture
    levels: float  # the largest difference
    values: int
    others: int  # of these values, those that are not the same


def measure_pixels(pictures: Sequence[Picture]) -> dict[str, list[Apart]]:
    """Every picture through every kind of processor, in the graph and by 🤗's own."""
    seen = [(picture, upright_pixels(picture.data)) for picture in pictures]
    return {name: _apart(processor, seen) for name, processor in _processors().items()}


def _processors() -> dict[str, Any]:
    from transformers import ConvNextImageProcessor, DeiTImageProcessor, MobileViTImageProcessor, ViTImageProcessor

    return {
        "ViT: 224 x 224, bilinear": ViTImageProcessor(),
        "Swin: 224 x 224, bicubic": ViTImageProcessor(resample=3),
        "ViT: 224 x 224, Hamming": ViTImageProcessor(resample=5),
        "ViT: 224 x 224, Lanczos": ViTImageProcessor(resample=1),
        "ViT: 224 x 224, box": ViTImageProcessor(resample=4),
        "DeiT: 256 x 256, bicubic, crop": DeiTImageProcessor(),
        "ConvNeXt: shortest edge, bilinear, crop": ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875),
        "MobileViT: shortest edge, bilinear, crop": MobileViTImageProcessor(
            size={"shortest_edge": 288}, crop_size={"height": 256, "width": 256}, resample=2
        ),
    }


def _apart(processor: Any, seen: Iterable[tuple[Picture, Any]]) -> list[Apart]:
    import numpy as np
    import tensorflow as tf
    from decode import Limits, read_image
    from preprocess import apply, plan_preprocess

    steps, defaults = plan_preprocess(type(processor).__name__, processor.to_dict()), Settings()
    limits = Limits(max_file_bytes=defaults.max_file_bytes, max_side=defaults.max_side)
    ours = tf.function(
        lambda data: apply(steps, read_image(data, limits)[0]),
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
    )
    found = []
    for picture, pixels in seen:
        apart = np.abs(ours(picture.data).numpy() - prepare(processor, pixels)[0]) / one_level(steps)
        others = int(np.count_nonzero(apart))
        found.append(Apart(picture=picture, levels=float(apart.max()), values=apart.size, others=others))
    return found


def render_pixels(columns: dict[str, list[Apart]]) -> Iterator[str]:
    """The table of the largest differences by kind of file."""
    kinds = Counter(one.picture.kind for one in next(iter(columns.values())))
    yield "| kind of file | images | " + " | ".join(columns) + " |"
    yield "| --- " * (len(columns) + 2) + "|"
    for kind, count in sorted(kinds.items()):
        largest = [max(one.levels for one in found if one.picture.kind == kind) for found in columns.values()]
        yield f"| {kind} | {count} | " + " | ".join(f"{levels:.3g}" for levels in largest) + " |"


def render_others(columns: dict[str, list[Apart]]) -> Iterator[str]:
    """How many values are not the same, where the decoder does not see to that already."""
    for name, found in columns.items():
        exact = [one for one in found if not is_cmyk(one.picture.data)]
        others = [one.others for one in exact if one.others]
        if others:
            yield (
                f"{name}: {sum(others)} of {sum(one.values for one in exact):,} values are not the same, "
                f"in {len(others)} of the {len(exact)} pictures that are not in CMYK."
            )


def measure_digits(pictures: Sequence[Picture], scratch: Path) -> tuple[dict[str, Any], ExportedGraph]:
    """digits-vit's probabilities on every picture, from the SavedModel and from 🤗; ends the program beyond the bounds."""
    from served_graph import ImageReader

    checkpoint = export_checkpoint(SERVED / "checkpoint", scratch / "digits-vit", Settings())
    graph = ExportedGraph(scratch / "digits-vit")
    found = compare(checkpoint, ImageReader(checkpoint, Settings()), graph, pictures)
    if problem := judge_parity(found):
        raise SystemExit(problem)
    return summary(found), graph


def render_signatures(graph: ExportedGraph) -> Iterator[str]:
    """A request and its answer for each signature, as TF Serving's REST API writes them in rows."""
    three, seven = ((SERVED / "golden" / f"{name}.png").read_bytes() for name in ("three", "seven"))
    asked = {
        "serving_default": ([web_safe(three)], [f"{web_safe(three)[:SHOWN]}…"]),
        "raw_bytes": ([three, seven], [{"b64": f"{web_safe(image)[:SHOWN]}…"} for image in (three, seven)]),
        "top_k": ([three], [{"b64": f"{web_safe(three)[:SHOWN]}…"}]),
    }
    for signature, (files, shown) in asked.items():
        said = graph.call(signature, files)
        rows = [{name: _plain(values[row]) for name, values in said.items()} for row in range(len(files))]
        yield f"`{signature}`:"
        yield "```json"
        yield json.dumps({"signature_name": signature, "instances": shown}, ensure_ascii=False)
        yield json.dumps({"predictions": rows}, ensure_ascii=False)
        yield "```"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return [_plain(item) for item in value] if getattr(value, "ndim", 0) else round(float(value), 6)


def measure_export(scratch: Path) -> dict[str, Any]:
    """The card of an export of ViT-B/16 with random weights, by the exporter as a program; ends this one if it took too much."""
    program = [sys.executable, __file__, "--make-vit-base", str(scratch / "vit-base")]
    subprocess.run(program, check=True)  # in a process of its own: its memory is not the exporter's
    request, out = scratch / "request.json", scratch / "out"
    source = {"kind": "folder", "path": str(scratch / "vit-base")}
    request.write_text(json.dumps({"model": "vit-base", "source": source, "golden": []}), encoding="utf-8")
    exporter = Path(__file__).with_name("export.py")
    subprocess.run([sys.executable, str(exporter), "--request", str(request), "--out", str(out)], check=True)
    card = json.loads((out / "card" / "card.json").read_text(encoding="utf-8"))
    if card["measured"]["peak_rss_bytes"] > MOST_BYTES:
        raise SystemExit(f"ViT-B/16: the export took {card['measured']['peak_rss_bytes']:,} bytes of memory")
    return card


def make_vit_base(folder: Path) -> None:
    """A checkpoint in the shape of google/vit-base-patch16-224, with random weights: the Hub may be out of reach."""
    import tensorflow as tf
    from transformers import TFViTForImageClassification, ViTConfig, ViTImageProcessor

    tf.keras.utils.set_random_seed(7)
    config = ViTConfig(num_labels=1000)
    model = TFViTForImageClassification(config)
    model.build_in_name_scope()
    model.save_pretrained(folder, safe_serialization=True)
    ViTImageProcessor().save_pretrained(folder)


def render(columns: dict[str, list[Apart]], digits: dict[str, Any], card: dict[str, Any]) -> str:
    """All that is measured, but the signatures' requests and answers."""
    versions = ", ".join(f"{name} {version}" for name, version in card["toolchain"].items())
    measured = card["measured"]
    lines = [
        f"On {versions}.",
        "",
        "**Pixels.** The largest difference between what the graph makes of a file and what 🤗's own processor makes of it,",
        f"in levels of 0 to 255, over {digits['images'] + digits['cmyk']['images']} files:",
        "",
        *render_pixels(columns),
        "",
        *render_others(columns),
        "",
        "**Probabilities.** digits-vit from the SavedModel beside 🤗's processor and TensorFlow class, on those",
        f"{digits['images']} files that are not in CMYK: {digits['labels_equal']} labels equal, {digits['ties']} ties; probabilities apart by",
        f"{digits['largest_difference']:.5f} at most, {digits['mean_difference']:.5f} on average (both rounded upwards).",
        f"On the {digits['cmyk']['images']} in CMYK: {digits['cmyk']['labels_equal']} labels equal, {digits['cmyk']['ties']} ties;",
        f"{digits['cmyk']['largest_difference']:.5f} at most, {digits['cmyk']['mean_difference']:.5f} on average.",
        "",
        f"**Cost.** An export of ViT-B/16 ({card['parameters']:,} parameters, random weights, {card['bytes']:,} bytes of",
        f"SavedModel) took {measured['seconds']:.0f} s and {measured['peak_rss_bytes'] / 2**30:.2f} GiB at its peak:",
        "",
        "| step | seconds |",
        "| --- | --- |",
        *(f"| {stage} | {seconds:.1f} |" for stage, seconds in measured["stages"].items()),
    ]
    return "\n".join(lines)


def place(page: str, text: str) -> str:
    """The page with this text between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def main() -> None:
    """Measure all of it and write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="?", type=Path, help="a Markdown page with the marks")
    parser.add_argument("--make-vit-base", type=Path, metavar="FOLDER", help="leave a random ViT-B/16 there, and end")
    asked = parser.parse_args()
    fix_hash_seed()
    quiet()
    if asked.make_vit_base:
        return make_vit_base(asked.make_vit_base)
    pictures = report_set()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        card = measure_export(scratch)
        columns = measure_pixels(pictures)
        digits, graph = measure_digits(pictures, scratch)
        text = render(columns, digits, card)
        answers = "\n".join(render_signatures(graph))
    shown = f"{text}\n\n**A request and its answer** for each signature, digits-vit, bytes shortened:\n\n{answers}"
    asked.page.write_text(place(asked.page.read_text(encoding="utf-8"), shown), encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
