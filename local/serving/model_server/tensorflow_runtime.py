"""TensorFlow's session and SavedModel loader. No other module imports TensorFlow itself."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.client import session as tf_session
from tensorflow.python.framework import dtypes, errors, ops, tensor_util
from tensorflow.python.lib.io import _pywrap_record_io
from tensorflow.python.platform import tf_logging
from tensorflow.python.saved_model import loader_impl

from .words import CODE_NAMES, ServingError, invalid

tf_logging.set_verbosity(tf_logging.ERROR)

DIMENSIONS = 32  # of a tensor: TensorFlow allows 254, but crashes on an array of more than 32

# The field of a TensorProto that has the values of each type (AsProtoField: one field of values, never tensor_content).
VALUE_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "int32": "int_val",
    "int16": "int_val",
    "int8": "int_val",
    "uint16": "int_val",
    "uint8": "int_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "int64": "int64_val",
    "bool": "bool_val",
    "string": "string_val",
}


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
        self.signatures: dict[str, Any] = dict(loaded.signature_def)

    def run(self, feeds: dict[str, np.ndarray], fetches: list[str], timeout_ms: int) -> list[np.ndarray]:
        """The tensors with these names, in order. Only TensorFlow itself converts or checks the inputs."""
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


def _as_serving_error(error: Any) -> ServingError:
    return ServingError(CODE_NAMES.get(error.error_code, "UNKNOWN"), error.message)


def array_of(alias: str, proto: Any) -> np.ndarray:
    """The values of a TensorProto."""
    if len(proto.tensor_shape.dim) > DIMENSIONS:
        raise invalid(f"tensor parsing error: {alias}: more than {DIMENSIONS} dimensions")
    try:
        return np.asarray(tensor_util.MakeNdarray(proto))
    except (TypeError, ValueError) as error:
        raise invalid(f"tensor parsing error: {alias}") from error


def fill_proto(proto: Any, value: np.ndarray) -> None:
    """Write an array into a TensorProto as `Tensor::AsProtoField` does."""
    dtype = dtypes.string if value.dtype.kind in "OSU" else dtypes.as_dtype(value.dtype)
    if dtype.name not in VALUE_FIELDS:
        proto.CopyFrom(tensor_util.make_tensor_proto(value))
        return
    proto.dtype = dtype.as_datatype_enum
    for size in value.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, VALUE_FIELDS[dtype.name]).extend(value.reshape(-1).tolist())


def type_of(info: Any) -> Any:
    """The type of a tensor in a signature."""
    return dtypes.as_dtype(info.dtype)


def read_records(path: str) -> Iterator[bytes]:
    """The records of a TFRecord file. Raises ServingError with DATA_LOSS if it is not one."""
    try:
        yield from _pywrap_record_io.RecordIterator(path, "")
    except errors.OpError as error:
        raise _as_serving_error(error) from error
