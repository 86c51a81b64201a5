"""TensorFlow's session and SavedModel loader. No other module imports TensorFlow itself."""

import ctypes
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.client import session as tf_session
from tensorflow.python.framework import dtypes, errors, ops
from tensorflow.python.lib.io import _pywrap_record_io
from tensorflow.python.platform import tf_logging
from tensorflow.python.saved_model import loader_impl

from serving_protocol.batching import Run
from serving_protocol.messages import SignatureDef
from serving_protocol.models import RunSignature
from serving_protocol.tensors import ElementType, support
from serving_protocol.words import CODE_NAMES, ServingError, invalid, too_late

tf_logging.set_verbosity(tf_logging.ERROR)

LONGEST_TIMEOUT_MS = 2**31 - 1

# NumPy itself has no bfloat16: TensorFlow's tensors of that type are read like those of float16.
support(ElementType(number=14, name="bfloat16", array_type=dtypes.bfloat16.as_numpy_dtype, field="half_val"))


def refuse_xla() -> None:
    """Let TensorFlow refuse to compile with XLA until this process ends: the function that the real server calls."""
    library = Path(pywrap_tf_session.__file__).parents[2] / "libtensorflow_cc.so.2"
    ctypes.CDLL(str(library))._ZN10tensorflow21DisableXlaCompilationEv()  # tensorflow::DisableXlaCompilation()


class Session:
    """A SavedModel in a session. `run` may be called from many threads."""

    def __init__(self, folder: str, tags: list[str], *, inter_op_threads: int, intra_op_threads: int) -> None:
        """Load the SavedModel. Raises ServingError with TensorFlow's message if it cannot be loaded."""
        config = config_pb2.ConfigProto(
            inter_op_parallelism_threads=inter_op_threads, intra_op_parallelism_threads=intra_op_threads
        )
        self._session = tf_session.Session(graph=ops.Graph(), config=config)
        try:
            with self._session.graph.as_default():
                loaded = loader_impl.load(self._session, tags, folder)
        except errors.OpError as error:
            raise _as_serving_error(error) from error
        except Exception as error:
            raise ServingError("UNKNOWN", f"{type(error).__name__}: {error}") from error
        self.signatures: dict[str, Any] = {
            name: SignatureDef.FromString(found.SerializeToString()) for name, found in loaded.signature_def.items()
        }

    def run(self, feeds: dict[str, np.ndarray], fetches: list[str], deadline_s: float | None) -> list[np.ndarray]:
        """The tensors with these names, in order. Only TensorFlow itself converts or checks the inputs."""
        timeout_ms = 0  # no limit
        if deadline_s is not None:
            timeout_ms = min(int((deadline_s - time.monotonic()) * 1000), LONGEST_TIMEOUT_MS)
            if timeout_ms < 1:
                raise too_late()
        inputs = {self._output(name): value for name, value in feeds.items()}
        outputs = [self._output(name) for name in fetches]
        options = config_pb2.RunOptions(timeout_in_ms=timeout_ms).SerializeToString()
        buffer = pywrap_tf_session.TF_NewBufferFromString(options)
        try:
            # Session.run would cast types and check shapes first; the real server does not.
            return list(self._session._call_tf_sessionrun(buffer, inputs, outputs, [], None))
        except errors.OpError as error:
            raise _as_serving_error(error) from error
        except (TypeError, ValueError) as error:
            raise invalid(str(error)) from error
        finally:
            pywrap_tf_session.TF_DeleteBuffer(buffer)

    def _output(self, name: str) -> Any:
        return self._session.graph.get_tensor_by_name(name)._as_tf_output()  # the type that _call_tf_sessionrun takes


def signature_runner(session: Session, run: Run) -> RunSignature:
    """Runs signatures through `run`, which takes the tensors' own names."""

    def run_signature(
        signature_name: str, inputs: dict[str, np.ndarray], names: list[str], deadline_s: float | None
    ) -> Sequence[np.ndarray]:
        signature = session.signatures[signature_name]
        feeds = {signature.inputs[name].name: value for name, value in inputs.items()}
        return run(feeds, [signature.outputs[name].name for name in names], deadline_s)

    return run_signature


def _as_serving_error(error: Any) -> ServingError:
    return ServingError(CODE_NAMES.get(error.error_code, "UNKNOWN"), error.message)


def read_records(path: str) -> Iterator[bytes]:
    """The records of a TFRecord file. Raises ServingError with DATA_LOSS if it is not one."""
    try:
        yield from _pywrap_record_io.RecordIterator(path, "")
    except errors.OpError as error:
        raise _as_serving_error(error) from error
