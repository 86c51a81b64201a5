"""Export a 🤗 vision model as a SavedModel for TF Serving, with golden cases.

REQUEST.json:
  {"model": "digits-vit",
   "source": {"kind": "folder", "path": "/…/checkpoint"}
           | {"kind": "hub", "repo": "google/vit-base-patch16-224", "revision": "<40 hex>", "kept": "/…/folder"}
           | {"kind": "savedmodel", "url": "https://…tar.gz", "sha256": "<64 hex>", "kept": "/…/file"},
  `kept` is where fetch.py, which reads the same request, has put the source; a checkpoint may have "allow": ["h5"]
   "golden": [{"name": "three", "image": "/…/three.png", "label": "3" or ["3", "8"], "min_confidence": 0.85}],
   "settings": {"top_k": 5, "max_file_bytes": 16777216, "max_side": 8192, "on_bad_image": "refuse" or "mark",
                "warmup_batches": [1, 4]}, optional
   "limits": {"memory_mib": 16384, "cpu_s": 7200, "disk_mib": 32768, "download_mib": 16384}, optional
   "without_sandbox": false, optional: whether archives and old formats are opened where the kernel has no sandbox
   "origin": {"location": "…", "revision": "…"}}, optional: where the source is from, shown on the card

OUT, only after success: savedmodel/, golden/<name>/{rest.json,grpc.bin,case.json}, descriptors.bin, export.json,
card/{card.json,README.md,<name>.png}.
Status 0: OUT is complete. 1: refused. 65: the model does not do what was promised.
It shuts itself in before it opens the model (sandbox.py): no network, and no files but its own.
This program runs in its own environment, made from requirements.txt in this folder.
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
from typing import TYPE_CHECKING, Any

from card import GoldenFact, write_card
from errors import ExportRefused, PromiseBroken
from golden import ExportedGraph, judge_case, read_image, reference_answer, web_safe, write_case
from grpc_files import predict_request, write_warmup
from operations import check_operations
from process import MIB, end_with_stdin, exit_status, limit
from reproducible import fix_hash_seed, normalise
from request import Archive, Folder, Request, Settings, read_request
from sandbox import Sandbox, shut_in
from sources import check_archive, check_checkpoint, find_savedmodel, is_old, plain_url, unpack

if TYPE_CHECKING:
    from served_graph import Checkpoint

EXPORTER = "2.3.1"  # increased when the same checkpoint gives other bytes
STAGES: dict[str, float] = {}  # seconds by step; this program exports once


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Time a step, print one line when it is done, and keep the time."""
    began = time.monotonic()
    yield
    STAGES[name] = round(time.monotonic() - began, 1)
    print(f"{name} … {STAGES[name]:.1f} s", flush=True)


def export(request: Request, out: Path, sandbox: Sandbox) -> dict[str, Any]:
    """Write everything below the folder `out`. Returns the facts of export.json."""
    began = time.monotonic()
    for case in request.golden:
        read_image(case)  # reports a missing one at once, not after a minute
    with step("opening the source"):
        scratch = out / ".scratch"
        scratch.mkdir()
        opened = open_source(request, scratch)
        check_sandbox(request, opened, sandbox)
    with step("loading TensorFlow"):
        import tensorflow as tf
        import transformers
    savedmodel = out / "savedmodel"
    checkpoint: Checkpoint | None = None
    if isinstance(request.source, Archive):
        take_savedmodel(opened, savedmodel, where=plain_url(request.source.url))
    else:
        checkpoint = export_checkpoint(opened, savedmodel, request.settings)
        check_operations(savedmodel, where=f"{opened}: its exported graph")
        warm_up(request, savedmodel)
    shutil.rmtree(scratch)
    graph, golden = write_golden(request, checkpoint, out)
    parity = prove_parity(request, checkpoint, graph) if checkpoint else None
    signatures = read_signatures(savedmodel)
    facts = {
        "model": request.model,
        "source": describe_source(request),
        "tensorflow": tf.__version__,
        "transformers": transformers.__version__ if checkpoint else None,
        "exporter": EXPORTER,
        "signature": signatures["serving_default"],
        "labels": list(checkpoint.labels) if checkpoint else None,
    }
    measured = {
        "seconds": round(time.monotonic() - began, 1),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "sandbox": str(sandbox),
    }
    card = {
        "model": request.model,
        "source": asdict(request.origin) if request.origin else facts["source"],
        **describe_model(checkpoint, request.settings),
        "bytes": sum(file.stat().st_size for file in savedmodel.rglob("*") if file.is_file()),
        "signatures": signatures,
        "parity": parity,
        "toolchain": toolchain(),
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


def export_checkpoint(folder: Path, savedmodel: Path, settings: Settings) -> Checkpoint:
    """Load a checkpoint and save its served graph. Returns it with how that graph was made."""
    from served_graph import load_checkpoint, save_served_graph

    with step("loading the checkpoint"):
        checkpoint = load_checkpoint(folder)
    with step("saving the SavedModel"):
        graph = save_served_graph(checkpoint, savedmodel, settings)
    print(f"the model's graph: {graph}", flush=True)
    return replace(checkpoint, graph=graph)


def warm_up(request: Request, savedmodel: Path) -> None:
    """Write a warmup request for each signature and batch size into the SavedModel; the server runs them before it is ready."""
    images = [read_image(case) for case in request.golden]
    if not images:
        return
    raw = {
        (signature, count): [images[place % len(images)] for place in range(count)]
        for signature in ("serving_default", "raw_bytes", "top_k")
        for count in request.settings.warmup_batches
    }
    requests = [
        predict_request(request.model, "string_input", [web_safe(image) for image in batch])
        if signature == "serving_default"
        else predict_request(request.model, "image_bytes", batch, signature)
        for (signature, _), batch in raw.items()
    ]
    write_warmup(savedmodel, requests)


def prove_parity(request: Request, checkpoint: Checkpoint, graph: ExportedGraph) -> dict[str, Any]:
    """Compare the written graph with 🤗 on the golden images and the built-in set. Returns the figures; raises PromiseBroken."""
    from parity import compare, judge_parity, summary
    from sample_images import SampleImage, built_in, within
    from served_graph import ImageReader

    golden = [SampleImage("golden", case.name, read_image(case)) for case in request.golden]
    limits = {"max_file_bytes": request.settings.max_file_bytes, "max_side": request.settings.max_side}
    others = within(built_in(), **limits)
    with step(f"comparing with 🤗 on {len(golden)} golden and {len(others)} other images"):
        found = compare(checkpoint, ImageReader(checkpoint, request.settings), graph, [*golden, *others])
    if not found:  # the model's limits refuse every image
        raise ExportRefused(
            "settings: no image is small enough for the comparison with 🤗. Next: raise max_side or max_file_bytes."
        )
    figures = summary(found)
    print(
        f"parity: {figures['labels_equal']} of {figures['images']} labels equal, probabilities at most "
        f"{figures['largest_difference']:.5f} apart, pixels at most {figures['largest_levels']:g} levels",
        flush=True,
    )
    if problem := judge_parity(found):
        raise PromiseBroken(
            f"{problem}. Next: report it with the checkpoint; the graph does not do what its processor does."
        )
    return figures


def describe_model(checkpoint: Checkpoint | None, settings: Settings) -> dict[str, Any]:
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
    from served_graph import ImageReader

    return {
        "class": type(checkpoint.model).__name__,
        "checkpoint": checkpoint.weights_hash,
        "labels": len(checkpoint.labels),
        "parameters": int(sum(weight.shape.num_elements() for weight in checkpoint.model.weights)),
        "graph": checkpoint.graph,
        "preprocessing": [str(step) for step in ImageReader(checkpoint, settings).steps],
        "settings": asdict(settings),
    }


def toolchain() -> dict[str, str]:
    """The versions of the packages that decide what is exported."""
    import platform
    from importlib.metadata import version

    packages = ("tensorflow-cpu", "tf-keras", "transformers", "pillow", "numpy")
    return {"exporter": EXPORTER, "python": platform.python_version(), **{name: version(name) for name in packages}}


def take_savedmodel(found: Path, savedmodel: Path, *, where: str) -> None:
    """Move an archive's SavedModel into place. Raises ExportRefused if it does not have the signature that clients use."""
    with step("taking the SavedModel"):
        check_operations(found, where=f"source: {where}")
        refuse_other_signature(read_signatures(found).get("serving_default", {}), where=where)
        found.rename(savedmodel)
        normalise(savedmodel)


def read_signatures(savedmodel: Path) -> dict[str, Any]:
    """Each signature's inputs and outputs by name, with type and shape."""
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel.FromString((savedmodel / "saved_model.pb").read_bytes())
    serving = [graph for graph in proto.meta_graphs if "serve" in graph.meta_info_def.tags]
    found = serving[0].signature_def if serving else {}

    def described(tensors: Any) -> dict[str, Any]:
        return {
            name: {
                "dtype": types_pb2.DataType.Name(info.dtype),
                "shape": None if info.tensor_shape.unknown_rank else [dim.size for dim in info.tensor_shape.dim],
            }
            for name, info in sorted(tensors.items())
        }

    return {
        name: {"inputs": described(found[name].inputs), "outputs": described(found[name].outputs)}
        for name in sorted(found)
        if not name.startswith("__")  # TensorFlow's own
    }


def refuse_other_signature(signature: dict[str, Any], *, where: str) -> None:
    """Refuse a SavedModel that clients could not call; the message says what signature it has."""
    if not signature:
        raise ExportRefused(f"source: {where}: it has no signature serving_default. Next: save it with one.")
    inputs = {name: info["dtype"] for name, info in signature["inputs"].items()}
    outputs = {name: info["dtype"] for name, info in signature["outputs"].items()}
    if list(inputs.values()) != ["DT_STRING"] or outputs != {"label": "DT_STRING", "confidence": "DT_FLOAT"}:
        raise ExportRefused(
            f"source: {where}: its serving_default has inputs {inputs} and outputs {outputs}. "
            "Next: save it with one string input and the outputs label (string) and confidence (float)."
        )


def write_golden(request: Request, checkpoint: Checkpoint | None, out: Path) -> tuple[ExportedGraph, list[GoldenFact]]:
    """Run every golden case on the written SavedModel, judge the answers, and save the cases and the descriptors."""
    from grpc_files import descriptors

    facts = []
    with step(f"running {len(request.golden)} golden cases"):
        graph = ExportedGraph(out / "savedmodel")
        for case in request.golden:
            reference = reference_answer(checkpoint, case) if checkpoint else None
            answer = graph.ask(case, read_image(case))
            if problem := judge_case(case, answer, reference):
                raise PromiseBroken(f"{problem}. Next: fix the golden case, or find out what the model learned.")
            write_case(out / "golden" / case.name, request.model, graph.input_name, case, reference)
            facts.append(GoldenFact(case=case, graph=answer, reference=reference))
            print(f"golden case {case.name}: {answer}, 🤗's own {reference or 'answer is not known'}", flush=True)
        (out / "descriptors.bin").write_bytes(descriptors())
    return graph, facts


def describe_source(request: Request) -> dict[str, Any]:
    """The source as a record may show it: no credentials."""
    facts = {name: str(value) for name, value in asdict(request.source).items() if name not in {"kept", "allow"}}
    if isinstance(request.source, Archive):
        facts["url"] = plain_url(request.source.url)
    return {"kind": {"Folder": "folder", "Hub": "hub", "Archive": "savedmodel"}[type(request.source).__name__], **facts}


def quiet() -> None:
    """Turn off the GPU and TensorFlow's messages: stderr is for the one line that says why an export failed."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", TF_USE_LEGACY_KERAS="1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("JOBLIB_MULTIPROCESSING", "0")  # the sandbox has no semaphores of several processes
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def main(arguments: list[str] | None = None) -> int:
    """Export as the command line says. Returns 0 when OUT is complete; 1 or 65 when nothing was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--request", type=Path, required=True, metavar="REQUEST.json")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder to make; must not exist yet")
    parser.add_argument(
        "--end-with-stdin", action="store_true", help="kill this process group when standard input ends"
    )
    options = parser.parse_args(arguments)
    fix_hash_seed()
    quiet()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a stopped task leaves no half export either
    try:
        request = read_request(options.request)
        facts = export_to(request, options.out, end_with_input=options.end_with_stdin)
    except ExportRefused as refused:
        return exit_status(refused)
    print(f"exported {request.model} to {options.out} in {facts['seconds']} s")
    return 0


def export_to(request: Request, out: Path, *, end_with_input: bool = False) -> dict[str, Any]:
    """Export, shut in, into a folder next to OUT and rename it at the end, so that OUT is complete or absent."""
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise ExportRefused(f"{out}: is not empty. Next: name a new folder with --out.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise ExportRefused(f"{out}: {error.strerror}. Next: name a folder that can be made with --out.") from error
    try:
        sandbox = enter_sandbox(request, out)
        if end_with_input:  # from here on: a thread that was there before the sandbox would be outside
            end_with_stdin()
        facts = export(request, partial, sandbox)
        partial.chmod(0o755)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return facts


def enter_sandbox(request: Request, out: Path) -> Sandbox:
    """Leave this process its input and the folder of OUT, within the request's limits."""
    source = request.source
    given = source.path if isinstance(source, Folder) else source.kept
    os.environ["TMPDIR"] = os.environ["HOME"] = str(out.parent)
    limit(request.limits, file_mib=request.limits.disk_mib)
    return shut_in(read=[given, *(case.image for case in request.golden)], write=[out.parent])


if __name__ == "__main__":
    sys.exit(main())
