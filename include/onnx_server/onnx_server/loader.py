"""Loads the model in a version's folder; joins the runs of several requests if that is asked for or pays."""

import functools
import threading

import numpy as np

from serving_protocol.batching import Batcher, Parameters, parameters_of
from serving_protocol.configs import read_batching
from serving_protocol.models import Model
from serving_protocol.versions import Found
from serving_protocol.words import invalid, log

from .classifier import RunPixels, Shape, load_classifier
from .description import Description, ModelRefused
from .flags import ServerFlags
from .joining import choose, measure, render_choice
from .session import INPUT, OUTPUT
from .warmup import warm_up

RUNTIME = "ONNX"  # its label in the metrics
MOST_THREADS = 64


class Loader:
    """Loads the model in a folder and answers its warmup requests."""

    def __init__(self, flags: ServerFlags) -> None:
        """Join requests if the flags say so, or if it pays."""
        self._flags = flags
        self._chosen = parameters_of(read_batching(flags.batching_parameters_file)) if flags.enable_batching else None
        self._batcher = functools.cache(Batcher)  # one for each set of parameters: it has threads
        # More threads may wait for a batch, but an image of 8192 x 8192 pixels takes 200 MB while it is decoded.
        self._decoding = threading.BoundedSemaphore(flags.threads)
        self.together = _threads_for(self._chosen)  # how many threads it takes to fill batches

    def __call__(self, found: Found) -> Model:
        """The model in this folder, warmed up. Raises ServingError."""
        model = self.model_in(found)
        warm_up(model, found, self._flags)
        return model

    def model_in(self, found: Found) -> Model:
        """The model in this folder. Raises ServingError."""
        flags = self._flags
        try:
            classifier = load_classifier(
                found.folder, threads=flags.threads, joined=self._joined, decoding=self._decoding
            )
        except ModelRefused as refused:
            raise invalid(str(refused)) from refused
        return Model(flags.model_name, found.version, classifier.signatures, classifier.run, RUNTIME)

    def _joined(self, description: Description, shape: Shape, run: RunPixels) -> RunPixels:
        """Joins runs by the file that the flags name; without one if it pays. A model that may not be joined never is."""
        if not description.may_join:
            log("requests are not joined: this model's answer depends on the images that are computed with it")
            return run
        parameters = self._chosen or _measured(shape, run)
        if parameters is None:
            return run
        self.together = max(self.together, _threads_for(parameters))
        joined = self._batcher(parameters).wrap(lambda feeds, _, deadline_s: [run(feeds[INPUT], deadline_s)])

        def run_joined(pixels: np.ndarray, deadline_s: float | None) -> np.ndarray:
            if self._chosen is None and len(pixels) > parameters.max_batch_size:
                return run(pixels, deadline_s)
            return np.asarray(joined({INPUT: pixels}, [OUTPUT], deadline_s)[0])

        return run_joined


def _threads_for(parameters: Parameters | None) -> int:
    """The threads that can fill one batch while another runs."""
    return min(2 * parameters.max_batch_size, MOST_THREADS) if parameters else 1


def _measured(shape: Shape, run: RunPixels) -> Parameters | None:
    """How runs are joined, by what they cost; None if they are not. No request waits for others: only what waits anyway is joined."""
    costs = measure(lambda size: run(np.zeros((size, *shape), np.float32), None))
    size = choose(costs)
    log(render_choice(costs, size))
    if size == 1:
        return None
    return Parameters(max_batch_size=size, batch_timeout_s=0, max_enqueued_batches=MOST_THREADS, num_batch_threads=1)
