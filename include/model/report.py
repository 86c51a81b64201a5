"""Measures the figures of docs/model.md: parity of the exported graph with 🤗, its answers, the cost of an export.

`make model-report` runs it in the exporter's environment. It writes between the marks of the page that it is given.
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

from export import TensorFlow
from exporting import export_checkpoint
from golden import web_safe
from parity import compare, judge_count, judge_parity, one_level, summary
from reference_pixels import is_cmyk, prepare, upright_pixels
from reproducible import fix_hash_seed
from request import Settings
from sample_images import SampleImage, report_set
from savedmodel import ExportedGraph

BEGIN = "<!-- written by `make model-report`, which replaces all text between these marks -->"
END = "<!-- end of make model-report -->"
SERVED = Path(__file__).resolve().parents[1] / "served" / "digits-vit"
MOST_BYTES = 3 * 10**9  # the most memory that an export of ViT-B/16 may take
SHOWN = 24  # characters of a base64 text that the page shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """How far the graph's values of an image are from the processor's."""

    image: SampleImage
    levels: float  # the largest difference
    values: int
    different: int  # of these values, those that differ


def measure_pixels(images: Sequence[SampleImage]) -> dict[str, list[Deviation]]:
    """Compare the graph with every kind of 🤗 processor on every image."""
    seen = [(image, upright_pixels(image.data)) for image in images]
    return {name: _deviations(processor, seen) for name, processor in _processors().items()}


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


def _deviations(processor: Any, seen: Iterable[tuple[SampleImage, Any]]) -> list[Deviation]:
    import numpy as np
    import tensorflow as tf
    from decode import Limits, read_image
    from preprocess import apply
    from processor import plan_preprocess

    steps, defaults = plan_preprocess(type(processor).__name__, processor.to_dict()), Settings()
    limits = Limits(max_file_bytes=defaults.max_file_bytes, max_side=defaults.max_side)
    ours = tf.function(
        lambda data: apply(steps, read_image(data, limits)[0]),
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
    )
    found = []
    for image, pixels in seen:
        levels = np.abs(ours(image.data).numpy() - prepare(processor, pixels)[0]) / one_level(steps)
        different = int(np.count_nonzero(levels))
        found.append(Deviation(image=image, levels=float(levels.max()), values=levels.size, different=different))
    return found


def render_pixels(columns: dict[str, list[Deviation]]) -> Iterator[str]:
    """The table of the largest differences, by kind of file."""
    kinds = Counter(one.image.kind for one in next(iter(columns.values())))
    yield "| kind of file | images | " + " | ".join(columns) + " |"
    yield "| --- " * (len(columns) + 2) + "|"
    for kind, count in sorted(kinds.items()):
        largest = [max(one.levels for one in found if one.image.kind == kind) for found in columns.values()]
        yield f"| {kind} | {count} | " + " | ".join(f"{levels:.3g}" for levels in largest) + " |"


def render_different(columns: dict[str, list[Deviation]]) -> Iterator[str]:
    """How many values differ in images that are not in CMYK; the decoder alone explains CMYK."""
    for name, found in columns.items():
        exact = [one for one in found if not is_cmyk(one.image.data)]
        different = [one.different for one in exact if one.different]
        if different:
            yield (
                f"{name}: {sum(different)} of {sum(one.values for one in exact):,} values differ, "
                f"in {len(different)} of the {len(exact)} images that are not in CMYK."
            )


def measure_digits(images: Sequence[SampleImage], scratch: Path) -> tuple[dict[str, Any], ExportedGraph]:
    """Compare digits-vit's SavedModel with 🤗 on every image; exits if a difference exceeds the bounds."""
    toolchain, saved = TensorFlow(), scratch / "digits-vit"
    checkpoint = export_checkpoint(SERVED / "checkpoint", saved, Settings(), toolchain)
    graph = ExportedGraph(saved)
    found, skipped = compare(checkpoint, toolchain.reader(checkpoint, Settings()), graph, images)
    if problem := judge_count(len(found), skipped) or judge_parity(found):
        raise SystemExit(problem)
    return summary(found, skipped), graph


def render_signatures(graph: ExportedGraph) -> Iterator[str]:
    """A request and its answer for each signature, in the row format of TF Serving's REST API."""
    three, seven = ((SERVED / "golden" / f"{name}.png").read_bytes() for name in ("three", "seven"))
    requests = {
        "serving_default": ([web_safe(three)], [f"{web_safe(three)[:SHOWN]}…"]),
        "raw_bytes": ([three, seven], [{"b64": f"{web_safe(image)[:SHOWN]}…"} for image in (three, seven)]),
        "top_k": ([three], [{"b64": f"{web_safe(three)[:SHOWN]}…"}]),
    }
    for signature, (files, shown) in requests.items():
        outputs = graph.call(signature, files)
        rows = [{name: _plain(values[row]) for name, values in outputs.items()} for row in range(len(files))]
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
    """Run the exporter on a ViT-B/16 with random weights. Returns the model card; exits if the export took too much memory."""
    program = [sys.executable, __file__, "--make-vit-base", str(scratch / "vit-base")]
    subprocess.run(program, check=True)  # in its own process, so that its memory does not count as the exporter's
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
    """Make a checkpoint with the shape of google/vit-base-patch16-224 and random weights; it needs no Hub."""
    import tensorflow as tf
    from transformers import TFViTForImageClassification, ViTConfig, ViTImageProcessor

    tf.keras.utils.set_random_seed(7)
    config = ViTConfig(num_labels=1000)
    model = TFViTForImageClassification(config)
    model.build_in_name_scope()
    model.save_pretrained(folder, safe_serialization=True)
    ViTImageProcessor().save_pretrained(folder)


def render(columns: dict[str, list[Deviation]], digits: dict[str, Any], card: dict[str, Any]) -> str:
    """All measured figures, without the signatures' requests and answers."""
    versions = ", ".join(f"{name} {version}" for name, version in card["toolchain"].items())
    measured = card["measured"]
    lines = [
        f"On {versions}.",
        "",
        "**Pixels.** The largest difference between the pixels that the graph and 🤗's own processor compute from a file,",
        f"in levels of 0 to 255, over {digits['images'] + digits['cmyk']['images']} files:",
        "",
        *render_pixels(columns),
        "",
        *render_different(columns),
        "",
        "**Probabilities.** digits-vit's SavedModel compared with 🤗's processor and TensorFlow class, on the",
        f"{digits['images']} files that are not in CMYK: {digits['labels_equal']} labels equal, {digits['ties']} ties. Largest difference of a",
        f"probability: {digits['largest_difference']:.5f}; mean: {digits['mean_difference']:.5f} (both rounded up).",
        f"On the {digits['cmyk']['images']} files in CMYK: {digits['cmyk']['labels_equal']} labels equal, {digits['cmyk']['ties']} ties.",
        f"Largest difference: {digits['cmyk']['largest_difference']:.5f}; mean: {digits['cmyk']['mean_difference']:.5f}.",
        "",
        f"**Graph.** ViT-B/16's is {card['graph']}.",
        "",
        f"**Cost.** An export of ViT-B/16 ({card['parameters']:,} parameters, random weights, {card['bytes']:,} bytes of",
        f"SavedModel) took {measured['seconds']:.0f} s and at most {measured['peak_rss_bytes'] / 2**30:.2f} GiB of memory:",
        "",
        "| step | seconds |",
        "| --- | --- |",
        *(f"| {stage} | {seconds:.1f} |" for stage, seconds in measured["stages"].items()),
    ]
    return "\n".join(lines)


def place(page: str, text: str) -> str:
    """Put the text between the marks of the page."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="?", type=Path, help="a Markdown page with the marks")
    parser.add_argument("--make-vit-base", type=Path, metavar="FOLDER", help="write a random ViT-B/16 there, and exit")
    options = parser.parse_args()
    fix_hash_seed()
    TensorFlow().quiet()
    if options.make_vit_base:
        return make_vit_base(options.make_vit_base)
    images = report_set()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        card = measure_export(scratch)
        columns = measure_pixels(images)
        digits, graph = measure_digits(images, scratch)
        text = render(columns, digits, card)
        answers = "\n".join(render_signatures(graph))
    shown = f"{text}\n\n**A request and its answer** for each signature, digits-vit, bytes shortened:\n\n{answers}"
    options.page.write_text(place(options.page.read_text(encoding="utf-8"), shown), encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
