"""Measure how fast a ViT-B/16 is in the served graph, and in the graph that the seed exports: `make bench-model`.

Each SavedModel is loaded into TensorFlow's runtime in a process of its own, without a server. The processes are asked in turn for
the same JPEG of 640 x 480; the others wait meanwhile. A ratio is the median of the ratios of the same round. The weights are
random: the time does not depend on them. Beside the graphs, the rate of a large matrix product is measured, which is what
the processor can do at most. The figures go into docs/model.md; the exit status is 1 if the served graph is slower than the seed's or
answers otherwise, or if decode and resize take too long.
"""

import argparse
import base64
import contextlib
import io
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.own_stand import PROJECT
from benchmarks.refresh_times import machine, place

PAGE = PROJECT / "docs" / "model.md"
BEGIN, END = (
    "<!-- written by `make bench-model`, which replaces all text between these marks -->",
    "<!-- end of make bench-model -->",
)
SIDE, TOKENS, WIDTH, LAYERS, LABELS = 224, 197, 768, 12, 1000  # ViT-B/16
HEAD_SCALE = 12  # random weights under a larger head give answers that differ between images
SQUARE = 2048  # side of the matrices of the large product
ROUNDS, WARM = 9, 2
BATCHES, THREADS = (1, 8), (1, 2)
PREPARED = 20  # images in one measurement of decode and resize
MOST_TO_PREPARE = 0.05  # the share of the model's time that decode and resize may take
MOST_APART = 0.001  # that the confidences of the two graphs may differ
INTER_OP = "SLIPWAY_BENCH_INTER_OP"  # a worker's inter-op threads; one if it is not set
QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "TF_USE_LEGACY_KERAS": "1", "TRANSFORMERS_VERBOSITY": "error",
}  # fmt: skip
FROZEN = {"TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": "1"}  # oneDNN packs each weight once, as it does for constants
SEED, SERVED = "the seed's graph", "the served graph"
GRAPHS: dict[
    str, tuple[str, dict[str, str]]
] = {  # by what the table says: the SavedModel, and the process's environment
    SEED: ("seed", {}),
    SERVED: ("served", {}),
}
TRIED: dict[str, tuple[str, dict[str, str]]] = {  # with one thread only
    "… as traced": ("traced", {}),
    "… weights packed once": ("served", FROZEN),
    "… bfloat16": ("served", {**FROZEN, "TF_SET_ONEDNN_FPMATH_MODE": "BF16"}),
    "… without oneDNN": ("served", {"TF_ENABLE_ONEDNN_OPTS": "0"}),
    "… 2 inter-op threads": ("served", {INTER_OP: "2"}),
    "… XLA": ("served", {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A graph at one batch size and number of threads: milliseconds for an image, round by round, and the answer."""

    graph: str
    threads: int
    batch: int
    ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    answer: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the processor does with one number of threads."""

    threads: int
    gflop_per_s: float  # of a large product, for a second of one processor
    prepare_ms: float  # of a processor, to decode and resize an image


class Worker:
    """A process that measures one thing when it is asked, and waits otherwise."""

    def __init__(self, what: str, folder: Path, threads: int, environment: Mapping[str, str]) -> None:
        """Start it."""
        spawn = multiprocessing.get_context("spawn")
        self._ours, theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(theirs, what, folder, threads, environment), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, batch: int = 1) -> dict[str, Any]:
        """Measure once."""
        self._ours.send(batch)
        found: dict[str, Any] = self._ours.recv()
        return found

    def end(self) -> None:
        """End the process."""
        self._ours.close()
        self._process.join()


def serve(connection: Connection, what: str, folder: Path, threads: int, environment: Mapping[str, str]) -> None:
    """A worker's side: measure at each batch size that it is sent."""
    os.environ.update(environment)  # before TensorFlow is loaded
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(inter_op_threads())
    kinds = {"graph": run_graph, "digit": run_digit, "product": multiply, "prepare": prepare}
    measure = kinds[what](folder, threads)
    with contextlib.suppress(EOFError):
        while True:
            connection.send(measure(connection.recv()))


def inter_op_threads() -> int:
    """The inter-op threads of this worker."""
    return int(os.environ.get(INTER_OP, "1"))


def timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Milliseconds of the clock and of the processor, and the result."""
    began, cpu = time.perf_counter(), time.process_time()
    found = call()
    return (time.perf_counter() - began) * 1000, (time.process_time() - cpu) * 1000, found


def run_digit(folder: Path, threads: int) -> Callable[[int], dict[str, Any]]:
    """Run the SavedModel of digits-vit with one of its golden images."""
    return run_graph(folder, threads, image=(PROJECT / "include/served/digits-vit/golden/three.png").read_bytes())


def run_graph(folder: Path, threads: int, *, image: bytes | None = None) -> Callable[[int], dict[str, Any]]:
    """Run the SavedModel's serving_default in a session, which is how TensorFlow Serving runs it; by default with a photograph."""
    import numpy as np
    import tensorflow as tf

    v1 = tf.compat.v1
    config = v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=inter_op_threads())
    session = v1.Session(graph=v1.Graph(), config=config)
    with session.graph.as_default():
        signature = v1.saved_model.load(session, ["serve"], str(folder)).signature_def["serving_default"]
    (given,) = signature.inputs.values()
    run = session.make_callable([output.name for output in signature.outputs.values()], feed_list=[given.name])

    def ask(file: bytes, batch: int) -> tuple[float, float, dict[str, Any]]:
        text = base64.urlsafe_b64encode(file)
        ms, cpu_ms, outputs = timed(lambda: run(np.array([text] * batch, object)))
        first = {name: output[0] for name, output in zip(signature.outputs, outputs, strict=True)}
        return ms / batch, cpu_ms / batch, {"label": first["label"].decode(), "confidence": float(first["confidence"])}

    *_, answer = ask(
        image or photo((SIDE, SIDE), "PNG"), 1
    )  # nothing to resize: all graphs compute with the same pixels
    timed_image = image or photo()

    def measure(batch: int) -> dict[str, Any]:
        ms, cpu_ms, _ = ask(timed_image, batch)
        return {"ms": ms, "cpu_ms": cpu_ms, "answer": answer}

    return measure


def multiply(_folder: Path, _threads: int) -> Callable[[int], dict[str, Any]]:
    """The rate of a large product of float32 matrices, for a second of one processor."""
    import tensorflow as tf

    left, right = (tf.random.stateless_normal([SQUARE, SQUARE], [7, seed]) for seed in (1, 2))
    return lambda _batch: {"gflop_per_s": 2 * SQUARE**3 / timed(lambda: tf.matmul(left, right).numpy())[1] / 1e6}


def prepare(folder: Path, _threads: int) -> Callable[[int], dict[str, Any]]:
    """The processor's time to decode and resize an image in the graph."""
    from request import Settings
    from served_graph import ImageReader, load_checkpoint

    reader, image = ImageReader(load_checkpoint(folder), Settings()), photo()
    return lambda _batch: {"ms": timed(lambda: [reader.prepare(image) for _ in range(PREPARED)])[1] / PREPARED}


def photo(size: tuple[int, int] = (640, 480), kind: str = "JPEG") -> bytes:
    """A photograph of this width and height as a file of this kind."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    out = io.BytesIO()
    Image.fromarray(load_sample_image("china.jpg")).resize(size).save(out, kind, quality=92)
    return out.getvalue()


def make_checkpoint(scratch: Path) -> Any:
    """Write a checkpoint with random weights; what the exporter reads of it."""
    import tensorflow as tf
    from served_graph import load_checkpoint
    from transformers import TFViTForImageClassification, ViTConfig, ViTImageProcessor

    tf.keras.utils.set_random_seed(7)
    model = TFViTForImageClassification(ViTConfig(num_labels=LABELS))
    model.build_in_name_scope()
    model.classifier.kernel.assign(model.classifier.kernel * HEAD_SCALE)
    model.save_pretrained(scratch / "checkpoint", safe_serialization=True)
    ViTImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(scratch / "checkpoint")
    return load_checkpoint(scratch / "checkpoint")


def make(scratch: Path) -> None:
    """Write a checkpoint with random weights, and its SavedModels."""
    import served_graph
    from faster_graph import Served
    from request import Settings

    checkpoint = make_checkpoint(scratch)
    save_seed_graph(checkpoint.model, checkpoint.labels, scratch / "seed")
    print(served_graph.save_served_graph(checkpoint, scratch / "served", Settings()))
    served_graph.faster = lambda function: Served(function=function, how="as traced")
    served_graph.save_served_graph(checkpoint, scratch / "traced", Settings())


def save_seed_graph(model: Any, labels: Sequence[str], folder: Path, *, side: int = SIDE) -> None:
    """Save the model as the seed does: decode, resize and normalise, channels first, then 🤗's TensorFlow class."""
    import tensorflow as tf

    def pixels(text: Any) -> Any:
        image = tf.io.decode_jpeg(tf.io.decode_base64(text), channels=3)
        image = tf.image.resize(image, (side, side)) / 255.0
        return tf.transpose((image - 0.5) / 0.5, [2, 0, 1])

    def answers(string_input: Any) -> dict[str, Any]:
        images = tf.map_fn(pixels, string_input, fn_output_signature=tf.float32)
        logits = model(pixel_values=images, training=False).logits
        best = tf.gather(tf.constant(labels), tf.argmax(logits, axis=-1))
        return {"label": best, "confidence": tf.reduce_max(tf.nn.softmax(logits, axis=-1), axis=-1)}

    serving_default = tf.function(answers, input_signature=[tf.TensorSpec([None], tf.string, name="string_input")])
    module = tf.Module()
    module.weights = list(model.weights)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serving_default})


def measure(scratch: Path, threads: int, rounds: int, graphs: Mapping[str, Any]) -> tuple[list[Series], Machine]:
    """Ask all graphs in turn, round by round, and measure the processor in between."""
    with ExitStack() as stack:

        def start(what: str, folder: str, environment: Mapping[str, str]) -> Worker:
            worker = Worker(what, scratch / folder, threads, environment)
            stack.callback(worker.end)
            return worker

        workers = {name: start("graph", *how) for name, how in graphs.items()}
        rate, prepared = start("product", "", {}), start("prepare", "checkpoint", {})
        found: dict[tuple[str, int], list[dict[str, Any]]] = {(name, batch): [] for batch in BATCHES for name in graphs}
        rates, times = [], []
        for number in range(rounds + WARM):
            for (name, batch), seen in found.items():
                seen.append(workers[name].ask(batch))
            rates.append(rate.ask()["gflop_per_s"])
            times.append(prepared.ask()["ms"])
            print(f"{threads} threads, round {number + 1} of {rounds + WARM}", flush=True)
    series = [
        Series(
            graph=name,
            threads=threads,
            batch=batch,
            ms=tuple(one["ms"] for one in seen[WARM:]),
            cpu_ms=tuple(one["cpu_ms"] for one in seen[WARM:]),
            answer=seen[-1]["answer"],
        )
        for (name, batch), seen in found.items()
    ]
    rate_found, prepare_found = statistics.median(rates[WARM:]), statistics.median(times[WARM:])
    return series, Machine(threads=threads, gflop_per_s=rate_found, prepare_ms=prepare_found)


def products_gflop(*, last_whole: bool) -> float:
    """What the products of a ViT-B/16 need for an image, in GFLOP: all of them, or those that its answer depends on."""
    keys_and_values, rest = 2 * TOKENS * WIDTH**2, 10 * WIDTH**2
    layers = [keys_and_values + TOKENS * (rest + 2 * TOKENS * WIDTH)] * (LAYERS - 1)
    read = TOKENS if last_whole else 1
    last = keys_and_values + read * (rest + 2 * TOKENS * WIDTH)
    return 2 * (sum(layers) + last + (TOKENS - 1) * WIDTH**2 + WIDTH * LABELS) / 1e9


def render(series: Sequence[Series], machines: Sequence[Machine], where: str) -> str:
    """The figures as a table and sentences."""
    firsts = {(one.threads, one.batch): one for one in series if one.graph == SEED}
    rounds = len(series[0].ms)
    lines = [
        f"Milliseconds for an image, medians of {rounds} rounds, ViT-B/16 with random weights, on {where}.",
        "*Speed* is in images/s as a multiple of the seed's graph in the same round: the median (least to most). Times are of a JPEG of",
        f"640 x 480. Label and confidence are of the photograph in {SIDE} x {SIDE} as PNG: nothing is resized, so all graphs compute with the",
        "same pixels.",
        "",
        "| graph | threads | batch | ms | CPU ms | speed | speed by CPU time | label | confidence |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for one in series:
        first = firsts[one.threads, one.batch]
        times = f"{statistics.median(one.ms):.0f} | {statistics.median(one.cpu_ms):.0f}"
        speeds = f"{_speed(first.ms, one.ms)} | {_speed(first.cpu_ms, one.cpu_ms)}"
        answer = f"{one.answer['label']} | {one.answer['confidence']:.5f}"
        lines.append(f"| {one.graph} | {one.threads} | {one.batch} | {times} | {speeds} | {answer} |")
    lines.append("")
    for found in machines:
        whole, read = (products_gflop(last_whole=whole) / found.gflop_per_s * 1000 for whole in (True, False))
        threads = f"{found.threads} thread{'s' if found.threads > 1 else ''}"
        lines += [
            f"With {threads}, a product of two matrices of {SQUARE} x {SQUARE} runs at {found.gflop_per_s:.0f} GFLOP for a second of one",
            f"processor. At that rate all products of an image take {whole:.0f} ms, and those that its answer depends on {read:.0f} ms. Decode",
            f"and resize take {found.prepare_ms:.1f} ms of a processor, {share(series, found):.1%} of the model. At batch {BATCHES[-1]} the whole",
            f"served graph runs at {rate_share(series, found):.0%} of that rate.",
        ]
    return "\n".join(lines)


def _speed(first: Sequence[float], other: Sequence[float]) -> str:
    ratios = [a / b for a, b in zip(first, other, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def processor_name() -> str:
    """The processor's name, as Linux says it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "an unknown processor")


def the_series(series: Sequence[Series], graph: str, threads: int, batch: int) -> Series:
    """The one series of a graph at this number of threads and this batch size."""
    (found,) = [one for one in series if (one.graph, one.threads, one.batch) == (graph, threads, batch)]
    return found


def share(series: Sequence[Series], found: Machine) -> float:
    """The share of decode and resize in the served graph's CPU time for one image, as a part of the model's."""
    served = the_series(series, SERVED, found.threads, 1)
    return found.prepare_ms / (statistics.median(served.cpu_ms) - found.prepare_ms)


def rate_share(series: Sequence[Series], found: Machine) -> float:
    """The rate of the products that an answer depends on in the served graph's largest batch, as a part of a large product's."""
    served = the_series(series, SERVED, found.threads, BATCHES[-1])
    return products_gflop(last_whole=False) / statistics.median(served.cpu_ms) * 1000 / found.gflop_per_s


def missed(series: Sequence[Series], machines: Sequence[Machine]) -> list[str]:
    """What the served graph promises and does not keep, a line each."""
    found = []
    for one in (one for one in series if one.graph == SERVED):
        seed, where = the_series(series, SEED, one.threads, one.batch), f"{one.threads} threads, batch {one.batch}"
        if one.answer["label"] != seed.answer["label"]:
            found.append(f"{where}: the labels differ")
        if not abs(one.answer["confidence"] - seed.answer["confidence"]) <= MOST_APART:
            found.append(f"{where}: the confidences differ by more than {MOST_APART}")
        if statistics.median(a / b for a, b in zip(seed.cpu_ms, one.cpu_ms, strict=True)) < 1:
            found.append(f"{where}: slower than the seed's graph")
    if (prepared := share(series, machines[0])) > MOST_TO_PREPARE:
        found.append(f"decode and resize take {prepared:.1%} of the model, more than {MOST_TO_PREPARE:.0%}")
    return found


def main(words: Sequence[str]) -> int:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(prog="make bench-model", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args(words).rounds
    series: list[Series] = []
    machines = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        make(scratch)
        for threads in THREADS:
            graphs = GRAPHS | TRIED if threads == 1 else GRAPHS
            found, processor = measure(scratch, threads, rounds, graphs)
            series += found
            machines.append(processor)
    text = render(series, machines, f"{processor_name()}, {machine()}")
    PAGE.write_text(place(PAGE.read_text(encoding="utf-8"), text, BEGIN, END), encoding="utf-8")
    print(text)
    for line in missed(series, machines):
        print(f"missed: {line}")
    return 1 if missed(series, machines) else 0


if __name__ == "__main__":
    os.environ |= QUIET
    sys.exit(main(sys.argv[1:]))
