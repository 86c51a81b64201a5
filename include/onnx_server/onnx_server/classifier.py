"""The three signatures of an image classifier: image files in, labels and confidences out.

serving_default  string_input, files in web-safe base64        label, confidence
raw_bytes        image_bytes, files as they are                label, confidence
top_k            image_bytes, files as they are                labels, scores: the k most likely, best first
"""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from serving_protocol.messages import SignatureDef
from serving_protocol.tensors import FLOAT, STRING
from serving_protocol.words import invalid, too_late

from .decode import BadImage, read_base64, read_image
from .description import Description, ModelRefused, read_description
from .joining import SIZES
from .preprocess import Preprocess
from .processors import processors
from .session import Session

MARK = "!bad image: "  # prefix of a bad image's label if bad images are marked
BASE64, RAW, TOP_K = "serving_default", "raw_bytes", "top_k"
AT_ONCE = 32  # images of a request that are in memory as pixels: a large request takes no more than that
# Images in one run. More gain little and take more memory: processor time for 8 images in runs of 1, 2, 4 and 8, with one thread, of
# ViT-B/16 3037, 2976, 3119 and 3266 ms (AMD EPYC); of digits-vit 1.6, 1.2, 1.0 and 0.9 ms (Intel Xeon).
IN_A_RUN = SIZES[-1]
INPUTS = {BASE64: "string_input", RAW: "image_bytes", TOP_K: "image_bytes"}

Shape = tuple[int, int, int]  # of one image's pixels
# From the pixels of a batch to the probabilities, until the deadline by time.monotonic().
RunPixels = Callable[[np.ndarray, float | None], np.ndarray]
# May join the runs of a model, for images of this shape.
Joined = Callable[[Description, Shape, RunPixels], RunPixels]


class Classifier:
    """A model folder's model. `run` may be called from many threads."""

    def __init__(
        self, description: Description, run_pixels: RunPixels, decoding: AbstractContextManager[Any] | None = None
    ) -> None:
        """Prepare images as the description says, and classify them with `run_pixels`. `decoding` is held for each image."""
        self._description = description
        self._run_pixels = run_pixels
        self._decoding = decoding or nullcontext()
        self._preprocess = Preprocess(description.steps)
        self._labels = np.array([label.encode() for label in description.labels], dtype=object)
        self.signatures = signatures(description.top_k)

    def run(
        self, signature: str, inputs: dict[str, np.ndarray], names: list[str], deadline_s: float | None
    ) -> list[np.ndarray]:
        """The outputs with these names. Raises ServingError."""
        files = _texts(INPUTS[signature], inputs)
        chances = np.zeros((len(files), len(self._labels)), np.float32)
        reasons = [""] * len(files)
        for first in range(0, len(files), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            pixels = self._read(files[part], first, reasons, is_base64=signature == BASE64, deadline_s=deadline_s)
            good = [place for place in range(len(pixels)) if not reasons[first + place]]
            if good:
                chances[part][good] = self._run_pixels(pixels if len(good) == len(pixels) else pixels[good], deadline_s)
        outputs = self._best(chances) if signature == TOP_K else self._single(chances)
        for place, reason in enumerate(reasons):
            if reason:
                _mark(outputs, place, reason)
        return [outputs[name] for name in names]

    def _read(
        self, files: list[bytes], first: int, reasons: list[str], *, is_base64: bool, deadline_s: float | None
    ) -> np.ndarray:
        """The pixels of these files. `first` is the place of the first one; `reasons` gets why one has no answer.

        If bad images are not marked, the first one is INVALID_ARGUMENT for the whole request.
        """
        pixels = np.empty((len(files), 3, self._preprocess.height, self._preprocess.width), np.float32)
        for place, file in enumerate(files):
            try:
                with self._decoding:
                    if deadline_s is not None and time.monotonic() > deadline_s:
                        raise too_late()
                    self._decode(read_base64(file) if is_base64 else file, pixels[place])
            except BadImage as bad:
                if not self._description.marks_bad_images:
                    raise invalid(f"image {first + place + 1} {bad}") from bad
                reasons[first + place] = str(bad)
        return pixels

    def _decode(self, file: bytes, out: np.ndarray) -> None:
        """Write one image's pixels. The decoded image is gone when this returns, not when the request is answered."""
        self._preprocess.apply(read_image(file, self._description.limits), out)

    def _single(self, chances: np.ndarray) -> dict[str, np.ndarray]:
        return {"label": self._labels[chances.argmax(axis=1)], "confidence": chances.max(axis=1)}

    def _best(self, chances: np.ndarray) -> dict[str, np.ndarray]:
        places = np.argsort(-chances, axis=1, kind="stable")[:, : self._description.top_k]  # the first of equal ones
        return {"labels": self._labels[places], "scores": np.take_along_axis(chances, places, axis=1)}


def _texts(name: str, inputs: dict[str, np.ndarray]) -> list[bytes]:
    """The files in the one input. Raises ServingError if they are not texts in one dimension."""
    given = inputs[name]
    if given.dtype != object:
        raise invalid(f"Expects {name} to be string but {given.dtype.name} is provided")
    if given.ndim != 1:
        raise invalid(f"Expects {name} to have one dimension but its shape is {list(given.shape)}")
    return list(given)


def _mark(outputs: dict[str, np.ndarray], place: int, reason: str) -> None:
    """Write a bad image's answer: the mark and the reason as its (first) label, a confidence of 0."""
    for name, values in outputs.items():
        values[place] = 0 if name in {"confidence", "scores"} else b""
        if name == "label":
            values[place] = (MARK + reason).encode()
        if name == "labels":
            values[place, 0] = (MARK + reason).encode()


def signatures(top_k: int) -> dict[str, Any]:
    """The SignatureDefs, with the names, types and shapes of the TensorFlow graph's."""
    single = {"label": (STRING, ()), "confidence": (FLOAT, ())}
    best = {"labels": (STRING, (top_k,)), "scores": (FLOAT, (top_k,))}
    found = {}
    for name, alias in INPUTS.items():
        definition = SignatureDef(method_name="tensorflow/serving/predict")
        _describe(definition.inputs[alias], f"{name}_{alias}:0", STRING.number, ())
        for output, (dtype, sizes) in (best if name == TOP_K else single).items():
            _describe(definition.outputs[output], f"{name}_{output}:0", dtype.number, sizes)
        found[name] = definition
    return found


def _describe(info: Any, name: str, dtype: int, sizes: tuple[int, ...]) -> None:
    info.name, info.dtype = name, dtype
    for size in (-1, *sizes):  # any number of images
        info.tensor_shape.dim.add(size=size)


def unjoined(_description: Description, _shape: Shape, run: RunPixels) -> RunPixels:
    """Joins no requests."""
    return run


def load_classifier(
    folder: Path, *, threads: int, joined: Joined = unjoined, decoding: AbstractContextManager[Any] | None = None
) -> Classifier:
    """The model in a folder. `joined` may join the runs of several requests; `decoding` is held while an image is decoded.

    Raises ModelRefused.
    """
    description = read_description(folder)
    session = Session(folder, threads=threads)
    # Each run uses all of the session's threads. Runs at the same time would only take the threads and the caches from each other.
    turns = threading.Semaphore(max(processors() // threads, 1) if threads else 1)

    def run(pixels: np.ndarray, deadline_s: float | None) -> np.ndarray:
        found = []
        for first in range(0, len(pixels), IN_A_RUN):
            with turns:
                if deadline_s is not None and time.monotonic() > deadline_s:
                    raise too_late()
                found.append(session.run(pixels[first : first + IN_A_RUN]))
        return found[0] if len(found) == 1 else np.concatenate(found)

    try:
        preprocess = Preprocess(description.steps)
    except ValueError as error:
        raise ModelRefused(f"{folder}: {error}") from error
    shape = (3, preprocess.height, preprocess.width)
    if any(isinstance(given, int) and given != size for given, size in zip(session.shape[1:], shape, strict=True)):
        raise ModelRefused(f"{folder}: its steps give {shape}, and its model takes {session.shape[1:]}")
    return Classifier(description, joined(description, shape, run), decoding)
