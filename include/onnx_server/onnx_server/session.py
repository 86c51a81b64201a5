"""ONNX Runtime's session: from the model's input to probabilities."""

from pathlib import Path

import numpy as np
import onnxruntime

from .description import ModelRefused
from .memory import weights_apart

FILE = "model.onnx"
INPUT, OUTPUT = "pixel_values", "probabilities"
FATAL = 4  # the runtime's errors are raised, not logged too

onnxruntime.set_default_logger_severity(FATAL)


class Session:
    """A model on ONNX Runtime. `run` may be called from many threads."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        """Load the model; 0 threads are one for each processor. Raises ModelRefused."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # A thread that waits for work by spinning takes the processor from the threads that decode images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # An operation's parts are small and shared out as the threads get to them: a thread that waits for a processor delays the others less.
        options.add_session_config_entry("session.dynamic_block_base", "4")
        # The arena keeps the most memory that any run has taken: 160 MB more for ViT-B/16 after one batch of eight. It saves no time.
        options.enable_cpu_mem_arena = False
        try:
            with weights_apart():
                self._session = onnxruntime.InferenceSession(
                    folder / FILE, sess_options=options, providers=["CPUExecutionProvider"]
                )
        except Exception as error:  # the runtime's errors have no base class but Exception
            raise ModelRefused(f"{folder / FILE}: {_first_line(error)}") from error
        given, returned = (
            {tensor.name: (tensor.type, tensor.shape) for tensor in tensors}
            for tensors in (self._session.get_inputs(), self._session.get_outputs())
        )
        if set(given) != {INPUT} or OUTPUT not in returned:
            raise ModelRefused(
                f"{folder / FILE}: it takes {', '.join(given)} and returns {', '.join(returned)}, "
                f"and not {INPUT} and {OUTPUT}"
            )
        kind, self.shape = given[INPUT]
        if kind != "tensor(float)":
            raise ModelRefused(f"{folder / FILE}: {INPUT} is a {kind}, and not a tensor(float)")

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """The probabilities of a batch, float32 (images, labels)."""
        (probabilities,) = self._session.run([OUTPUT], {INPUT: pixels})
        return np.asarray(probabilities)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]
