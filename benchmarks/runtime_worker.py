"""Runs a model in process and measures when it is asked: the other end of benchmarks.runtimes.Worker.

    python runtime_worker.py KIND FOLDER THREADS IMAGE

Each kind runs in the environment of its own runtime, so that nothing here is imported before it is known. Reads {"batch", "calls"} as a
line of JSON; writes the milliseconds of the clock and of the processor for each image, and the first image's answer.
"""

import base64
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SERVER = Path(__file__).resolve().parents[1] / "include" / "onnx_server"
SQUARE = 2048  # side of the matrices of the large product
SEED = 7
SIGNATURE, INPUT = "serving_default", "string_input"
NAMES = ["label", "confidence"]

# From the texts of a batch to the labels and confidences; a product of matrices, and a session, ignore the texts.
Run = Callable[[list[bytes]], Any]


def tensorflow(folder: Path, threads: int) -> Run:
    """A SavedModel's serving_default in a session, which is how TensorFlow Serving runs it."""
    import numpy as np
    import tensorflow as tf

    v1 = tf.compat.v1
    config = v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    session = v1.Session(graph=v1.Graph(), config=config)
    with session.graph.as_default():
        signature = v1.saved_model.load(session, ["serve"], str(folder)).signature_def[SIGNATURE]
    given = signature.inputs[INPUT].name
    run = session.make_callable([signature.outputs[name].name for name in NAMES], feed_list=[given])
    return lambda texts: run(np.array(texts, object))


def onnx(folder: Path, threads: int) -> Run:
    """A model folder's serving_default, as the ONNX server runs it."""
    import numpy as np

    from onnx_server.classifier import load_classifier

    classifier = load_classifier(folder, threads=threads)
    return lambda texts: classifier.run(SIGNATURE, {INPUT: np.array(texts, object)}, NAMES, None)


def session(folder: Path, threads: int) -> Run:
    """A model folder's bare session, from pixels to probabilities, in one run for each batch."""
    import numpy as np

    from onnx_server.session import Session

    opened = Session(folder, threads=threads)
    pixels = np.random.default_rng(SEED).normal(size=(1, *opened.shape[1:])).astype(np.float32)
    return lambda texts: opened.run(np.repeat(pixels, len(texts), axis=0))


def openvino(folder: Path, threads: int, precision: str = "f32") -> Run:
    """The ONNX file on OpenVINO, behind the server's own decoder."""
    import numpy as np
    import openvino

    from onnx_server.classifier import Classifier
    from onnx_server.description import read_description

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if precision:
        settings["INFERENCE_PRECISION_HINT"] = precision
    compiled = openvino.Core().compile_model(folder / "model.onnx", "CPU", settings)
    classifier = Classifier(
        read_description(folder), lambda pixels, _deadline_s: np.array(compiled({"pixel_values": pixels})[0])
    )
    return lambda texts: classifier.run(SIGNATURE, {INPUT: np.array(texts, object)}, NAMES, None)


def openvino_own(folder: Path, threads: int) -> Run:
    """The same with the precision that OpenVINO chooses: bfloat16 where the processor computes with it."""
    return openvino(folder, threads, "")


def product(_folder: Path, threads: int) -> Run:
    """A large product of float32 matrices."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    left, right = (tf.random.stateless_normal([SQUARE, SQUARE], [SEED, number]) for number in (1, 2))
    return lambda _texts: tf.matmul(left, right).numpy()


KINDS = {
    kind.__name__: kind for kind in (tensorflow, onnx, session, openvino, openvino_own, product)
}  # by the word on the command line


def measured(run: Run, texts: list[bytes], calls: int) -> dict[str, Any]:
    """Milliseconds for each image: of the clock by call, of the processor over all calls; and the last call's answer."""
    ms, found, cpu = [], None, time.process_time()
    for _ in range(calls):
        began = time.perf_counter()
        found = run(texts)
        ms.append((time.perf_counter() - began) * 1000 / len(texts))
    cpu_ms = (time.process_time() - cpu) * 1000 / calls / len(texts)
    return {"ms": ms, "cpu_ms": cpu_ms, "answer": answer_of(found)}


def answer_of(found: Any) -> list[Any] | None:
    """The first image's label and confidence; None if there are no labels."""
    if not isinstance(found, list):
        return None
    labels, confidences = found
    return [labels[0].decode(), round(float(confidences[0]), 5)]


def main(words: list[str]) -> None:
    """Measure at each line, until there are no more."""
    sys.path.append(str(SERVER))
    kind, folder, threads, image = words
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is not an answer
    run = KINDS[kind](Path(folder), int(threads))
    text = base64.urlsafe_b64encode(Path(image).read_bytes())
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(measured(run, [text] * asked["batch"], asked["calls"])), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
