"""The road of every export: from a request to a complete folder, whatever libraries the program exports with.

It writes the served model, the golden cases, the descriptors, the card and export.json, after judging them; it shuts itself in
before it opens the model.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from card import GoldenFact, write_card
from errors import ExportRefused, PromiseBroken
from golden import (
    INT8_TOLERANCE,
    SIGNATURE,
    ask,
    judge_case,
    read_image,
    reference_answer,
    web_safe,
    write_case,
)
from labelled import choose_calibration, classify, compare_answers, read_labelled
from process import MIB, end_with_stdin, exit_status, limit
from processor import output_size
from reproducible import fix_hash_seed
from request import Archive, Folder, Request, Settings, read_request
from sandbox import Sandbox, shut_in
from sources import check_archive, check_checkpoint, find_savedmodel, is_old, plain_url, unpack
from toolchain import Checkpoint, Served, Toolchain

STAGES: dict[str, float] = {}  # seconds by step; this program exports once


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Time a step, print one line when it is done, and keep the time."""
    began = time.monotonic()
    yield
    STAGES[name] = round(time.monotonic() - began, 1)
    print(f"{name} … {STAGES[name]:.1f} s", flush=True)


def export(request: Request, out: Path, sandbox: Sandbox, toolchain: Toolchain) -> dict[str, Any]:
    """Write everything below the folder `out`. Returns the facts of export.json."""
    began = time.monotonic()
    for case in request.golden:
        read_image(case)  # reports a missing one at once, not after a minute
    with step("opening the source"):
        scratch = out / ".scratch"
        scratch.mkdir()
        opened = open_source(request, scratch)
        check_sandbox(request, opened, sandbox)
    with step(f"loading {toolchain.name}"):
        toolchain.load()
    saved = out / toolchain.folder
    checkpoint: Checkpoint | None = None
    parity: dict[str, Any] | None = None
    int8: dict[str, Any] | None = None
    if isinstance(request.source, Archive):
        with step(f"taking the {toolchain.content}"):
            toolchain.take_archive(opened, saved, where=plain_url(request.source.url))
    else:
        checkpoint = export_checkpoint(opened, saved, request.settings, toolchain)
        toolchain.check(saved, where=f"{opened}: its exported graph")
        if request.labelled:
            parity, int8 = reduce_to_int8(request, checkpoint, saved, toolchain)
        warm_up(request, saved, toolchain)
    shutil.rmtree(scratch)
    graph, golden = write_golden(request, checkpoint, out, toolchain)
    if checkpoint and parity is None:
        parity = prove_parity(request, checkpoint, graph, toolchain)
    signatures = toolchain.signatures(saved)
    facts = {
        "model": request.model,
        "source": describe_source(request),
        **toolchain.versions(checkpoint),
        "exporter": toolchain.exporter,
        "signature": signatures["serving_default"],
        "labels": list(checkpoint.labels) if checkpoint else None,
        **({"int8": int8["labels"]} if int8 else {}),
    }
    measured = {
        "seconds": round(time.monotonic() - began, 1),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "sandbox": str(sandbox),
    }
    card = {
        "model": request.model,
        "source": asdict(request.origin) if request.origin else facts["source"],
        **describe_model(checkpoint, request.settings, toolchain),
        "content": toolchain.content,
        "bytes": sum(file.stat().st_size for file in saved.rglob("*") if file.is_file()),
        "signatures": signatures,
        "parity": parity,
        **({"int8": int8["summary"]} if int8 else {}),
        "toolchain": packages(toolchain),
        "measured": {**measured, "stages": dict(STAGES)},
    }
    write_card(out / "card", card, golden)
    text = json.dumps({**facts, **measured}, ensure_ascii=False, indent=2)
    (out / "export.json").write_text(text + "\n", encoding="utf-8")
    return {**facts, **measured}


def open_source(request: Request, scratch: Path) -> Path:
    """The folder of the checkpoint, or of the archive's SavedModel. Raises ExportRefused."""
    source = request.source
    if isinstance(source, Folder):
        return check_checkpoint(source.path, source.allow)
    if not source.kept.exists():
        raise ExportRefused(f"source.kept: no {source.kept}. Next: run fetch.py with this request.")
    if not isinstance(source, Archive):
        return check_checkpoint(source.kept, source.allow)
    where, unpacked = plain_url(source.url), scratch / "archive"
    check_archive(source, source.kept)
    unpack(source.kept, unpacked, where=where, max_bytes=request.limits.disk_mib * MIB)
    return find_savedmodel(unpacked, where=where)


def check_sandbox(request: Request, opened: Path, sandbox: Sandbox) -> None:
    """Refuse what only a sandbox makes safe where this process is not completely in one, unless the request allows it."""
    print(f"sandbox: {sandbox}", flush=True)
    if sandbox.is_complete or request.without_sandbox:
        return
    if isinstance(request.source, Archive):
        what = f"source: {plain_url(request.source.url)}: a SavedModel is a program"
    elif is_old(opened):
        what = f"source: {opened}: HDF5 is an old format, whose reader has had many faults"
    else:
        return
    raise ExportRefused(
        f"{what}, and this worker cannot shut it in: {sandbox}. Next: run the worker on Linux 5.13 or newer, or let the Variable "
        "slipway_without_sandbox be true if you trust who made it."
    )


def export_checkpoint(folder: Path, saved: Path, settings: Settings, toolchain: Toolchain) -> Checkpoint:
    """Load a checkpoint and save what is served. Returns it with how its graph was made.

    From then on, its `prepare` raises PromiseBroken if 🤗's processor gives another size than the steps that were read from it.
    """
    with step("loading the checkpoint"):
        checkpoint = toolchain.load_checkpoint(folder)
    with step(f"saving the {toolchain.content}"):
        graph = toolchain.save(checkpoint, saved, settings)
    print(f"the model's graph: {graph}", flush=True)
    size = output_size(toolchain.reader(checkpoint, settings).steps)
    return replace(checkpoint, graph=graph, prepare=lambda pixels: of_size(size, checkpoint.prepare(pixels)))


def of_size(size: tuple[int, int], prepared: Any) -> Any:
    """What 🤗's processor gave for an image, (1, 3, height, width). Raises PromiseBroken if height and width are not these."""
    if prepared.shape != (1, 3, *size):
        raise PromiseBroken(
            f"preprocessor_config.json: 🤗's own processor gives arrays of {prepared.shape}, and the steps that are read from its settings "
            f"{(1, 3, *size)}. Next: report it with the checkpoint."
        )
    return prepared


def reduce_to_int8(
    request: Request, checkpoint: Checkpoint, saved: Path, toolchain: Toolchain
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Prove the float32 graph, and let it compute in int8. Returns the parity in float32, and what int8 changed.

    Labels are by the names of the images that are judged: those that int8 was not calibrated with.
    """
    images, graph = read_labelled(request.labelled), toolchain.open(saved)
    parity = prove_parity(request, checkpoint, graph, toolchain)
    with step(f"classifying {len(images)} labelled images in float32"):
        before = classify(graph, images)
    del graph
    chosen = choose_calibration(images, before) if request.settings.calibration == "labelled" else ()
    with step(f"quantising to int8, calibrated with {len(chosen)} images"):
        reader = toolchain.reader(checkpoint, request.settings)
        toolchain.quantise(saved, [reader.pixels(image.file) for image in chosen])
    judged = [image for image in images if image not in chosen]
    with step(f"classifying {len(judged)} labelled images in int8"):
        after = classify(toolchain.open(saved), judged)
    figures = compare_answers(judged, len(chosen), before, after)
    print(
        f"int8: {figures['labels_changed']} of {figures['images']} labels changed, {figures['correct_int8']} correct "
        f"(in float32 {figures['correct_float32']}), confidences at most {figures['largest_difference']:.4f} apart",
        flush=True,
    )
    labels = {
        name: {image.name: answer and answer.label for image in judged for answer in [answers[image.name]]}
        for name, answers in (("float32", before), ("int8", after))
    }
    return parity, {"labels": labels, "summary": figures}


def warm_up(request: Request, saved: Path, toolchain: Toolchain) -> None:
    """Write a warmup request for each signature and batch size; the server runs them before it is ready."""
    images = [read_image(case) for case in request.golden]
    if not images:
        return
    raw = {
        (signature, count): [images[place % len(images)] for place in range(count)]
        for signature in ("serving_default", "raw_bytes", "top_k")
        for count in request.settings.warmup_batches
    }
    requests = [
        toolchain.predict_request(request.model, "string_input", [web_safe(image) for image in batch], signature)
        if signature == SIGNATURE
        else toolchain.predict_request(request.model, "image_bytes", batch, signature)
        for (signature, _), batch in raw.items()
    ]
    toolchain.write_warmup(saved, requests)


def prove_parity(request: Request, checkpoint: Checkpoint, graph: Served, toolchain: Toolchain) -> dict[str, Any]:
    """Compare the written graph with 🤗 on the golden images and the built-in set. Returns the figures; raises PromiseBroken."""
    from parity import compare, judge_count, judge_parity, summary
    from sample_images import SampleImage, built_in, within

    golden = [SampleImage("golden", case.name, read_image(case)) for case in request.golden]
    limits = {"max_file_bytes": request.settings.max_file_bytes, "max_side": request.settings.max_side}
    others = within(built_in(), **limits)
    if not golden and not others:
        raise ExportRefused(
            "settings: no image is small enough for the comparison with 🤗. Next: raise max_side or max_file_bytes."
        )
    with step(f"comparing with 🤗 on {len(golden)} golden and {len(others)} other images"):
        reader = toolchain.reader(checkpoint, request.settings)
        found, skipped = compare(checkpoint, reader, graph, [*golden, *others])
    for image in skipped:
        print(f"parity: not compared, because 🤗's own processor refuses it: {image}", flush=True)
    if problem := judge_count(len(found), skipped):
        raise ExportRefused(f"{problem}. Next: use the checkpoint's own preprocessor_config.json.")
    figures = summary(found, skipped)
    print(
        f"parity: {len(found)} images compared, {len(skipped)} not; {figures['labels_equal']} of {figures['images']} labels equal, "
        f"probabilities at most {figures['largest_difference']:.5f} apart, pixels at most {figures['largest_levels']:g} levels",
        flush=True,
    )
    if problem := judge_parity(found):
        raise PromiseBroken(
            f"{problem}. Next: report it with the checkpoint; the graph does not do what its processor does."
        )
    return figures


def describe_model(checkpoint: Checkpoint | None, settings: Settings, toolchain: Toolchain) -> dict[str, Any]:
    """The card's facts about the model; empty for an archive, of which only the files are known."""
    if checkpoint is None:
        return {
            "class": None,
            "checkpoint": None,
            "labels": None,
            "parameters": None,
            "graph": None,
            "preprocessing": [],
            "settings": {},
        }
    return {
        "class": type(checkpoint.model).__name__,
        "checkpoint": checkpoint.weights_hash,
        "labels": len(checkpoint.labels),
        "parameters": checkpoint.parameters,
        "graph": checkpoint.graph,
        "preprocessing": [str(step) for step in toolchain.reader(checkpoint, settings).steps],
        "settings": asdict(settings),
    }


def packages(toolchain: Toolchain) -> dict[str, str]:
    """The versions of the packages that decide what is exported."""
    import platform
    from importlib.metadata import version

    found = {name: version(name) for name in toolchain.packages}
    return {"exporter": toolchain.exporter, "python": platform.python_version(), **found}


def write_golden(
    request: Request, checkpoint: Checkpoint | None, out: Path, toolchain: Toolchain
) -> tuple[Served, list[GoldenFact]]:
    """Run every golden case on the written model, judge the answers, and save the cases and the descriptors."""
    facts = []
    with step(f"running {len(request.golden)} golden cases"):
        graph = toolchain.open(out / toolchain.folder)
        for case in request.golden:
            image = read_image(case)
            reference = reference_answer(checkpoint, case, image, graph) if checkpoint else None
            if reference and request.settings.precision == "int8":
                reference = replace(reference, tolerance=INT8_TOLERANCE)
            answer = ask(graph, case, image)
            if problem := judge_case(case, answer, reference):
                raise PromiseBroken(f"{problem}. Next: fix the golden case, or find out what the model learned.")
            predict = toolchain.predict_request(request.model, graph.input_name, [web_safe(image)], SIGNATURE)
            write_case(out / "golden" / case.name, predict, case, image, reference)
            facts.append(GoldenFact(case=case, graph=answer, reference=reference))
            print(f"golden case {case.name}: {answer}, 🤗's own {reference or 'answer is not known'}", flush=True)
        (out / "descriptors.bin").write_bytes(toolchain.descriptors())
    return graph, facts


def describe_source(request: Request) -> dict[str, Any]:
    """The source as a record may show it: no credentials."""
    facts = {name: str(value) for name, value in asdict(request.source).items() if name not in {"kept", "allow"}}
    if isinstance(request.source, Archive):
        facts["url"] = plain_url(request.source.url)
    return {"kind": {"Folder": "folder", "Hub": "hub", "Archive": "savedmodel"}[type(request.source).__name__], **facts}


def run(toolchain: Toolchain, description: str, arguments: list[str] | None = None) -> int:
    """Export as the command line says. Returns 0 when OUT is complete; 1 or 65 when nothing was written."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--request", type=Path, required=True, metavar="REQUEST.json")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder to make; must not exist yet")
    parser.add_argument(
        "--end-with-stdin", action="store_true", help="kill this process group when standard input ends"
    )
    options = parser.parse_args(arguments)
    fix_hash_seed()
    toolchain.quiet()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a stopped task leaves no half export either
    try:
        request = read_request(options.request)
        toolchain.refuse_settings(request.settings)
        facts = export_to(request, options.out, toolchain, end_with_input=options.end_with_stdin)
    except ExportRefused as refused:
        return exit_status(refused)
    print(f"exported {request.model} to {options.out} in {facts['seconds']} s")
    return 0


def export_to(request: Request, out: Path, toolchain: Toolchain, *, end_with_input: bool = False) -> dict[str, Any]:
    """Export, shut in, into a folder next to OUT and rename it at the end, so that OUT is complete or absent."""
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise ExportRefused(f"{out}: is not empty. Next: name a new folder with --out.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise ExportRefused(f"{out}: {error.strerror}. Next: name a folder that can be made with --out.") from error
    try:
        sandbox = enter_sandbox(request, out, toolchain)
        if end_with_input:  # from here on: a thread that was there before the sandbox would be outside
            end_with_stdin()
        facts = export(request, partial, sandbox, toolchain)
        partial.chmod(0o755)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return facts


def enter_sandbox(request: Request, out: Path, toolchain: Toolchain) -> Sandbox:
    """Leave this process its input and the folder of OUT, within the request's limits."""
    source = request.source
    given = source.path if isinstance(source, Folder) else source.kept
    os.environ["TMPDIR"] = os.environ["HOME"] = str(out.parent)
    limit(request.limits, file_mib=request.limits.disk_mib)
    files = [given, *(case.image for case in request.golden), *([request.labelled] if request.labelled else [])]
    return shut_in(read=[*files, *toolchain.code], write=[out.parent])
