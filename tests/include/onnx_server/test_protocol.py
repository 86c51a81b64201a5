"""The package that the ONNX server and the stand-in share."""

import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest

from serving_protocol.messages import TensorProto
from serving_protocol.rest import listening
from serving_protocol.tensors import MOST_REPEATED, array_of, fill_proto
from serving_protocol.words import ServingError

SERVER = Path(__file__).parents[3] / "include" / "onnx_server"
KINDS = [
    "float32",
    "float64",
    "int32",
    "uint8",
    "int16",
    "int8",
    "int64",
    "bool",
    "uint16",
    "float16",
    "uint32",
    "uint64",
]


@pytest.mark.model
def test_descriptors_are_those_of_the_package(model_python, tmp_path):
    """The committed file is what the command writes from the locked tensorflow-serving-api."""
    fresh = tmp_path / "descriptors.bin"
    subprocess.run([model_python, SERVER / "write_descriptors.py", fresh], check=True, capture_output=True, timeout=600)
    assert fresh.read_bytes() == (SERVER / "serving_protocol" / "descriptors.bin").read_bytes()


def test_an_answer_does_not_wait_for_an_acknowledgement():
    """Connections send at once: an answer in two writes would otherwise take 40 ms longer (Nagle's algorithm)."""
    with listening(0) as opened, socket.create_connection(("127.0.0.1", opened.getsockname()[1])):
        accepted, _ = opened.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("kind", KINDS)
def test_tensor_is_read_as_it_was_written(kind):
    """Every type and shape, from the field of its values and from its bytes."""
    values = np.array([[0, 1, 2], [3, 4, 5]], kind)
    proto = TensorProto()
    fill_proto(proto, values)
    assert not proto.tensor_content
    read = array_of("x", proto)
    assert (read.dtype, read.tolist()) == (values.dtype, values.tolist())
    proto = TensorProto(dtype=proto.dtype, tensor_shape=proto.tensor_shape, tensor_content=values.tobytes())
    assert array_of("x", proto).tolist() == values.tolist()


def test_text_is_read_as_it_was_written():
    """Bytes of any kind."""
    proto = TensorProto()
    fill_proto(proto, np.array([b"a\0b", b""], object))
    assert array_of("x", proto).tolist() == [b"a\0b", b""]


def tensor(dtype, *sizes, **fields):
    """A TensorProto of this shape."""
    proto = TensorProto(dtype=dtype, **fields)
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    return proto


def test_missing_values_are_like_the_last():
    """As in TensorFlow: one value may stand for a whole tensor, and none for zeros."""
    assert array_of("x", tensor(1, 3, float_val=[1, 2])).tolist() == [1, 2, 2]
    assert array_of("x", tensor(1, 2)).tolist() == [0, 0]
    assert array_of("x", tensor(7, 2)).tolist() == [b"", b""]
    assert array_of("x", tensor(1, float_val=[4])).tolist() == 4
    assert array_of("x", tensor(1, 0)).tolist() == []


@pytest.mark.parametrize(
    "proto",
    [
        tensor(1, 1, float_val=[1, 2]),
        tensor(1, -1, float_val=[1]),
        tensor(1, 2**62, 4, float_val=[1]),
        tensor(1, MOST_REPEATED + 1, float_val=[1]),
        tensor(1, 1, tensor_content=b"abc"),
        tensor(8, 1),
        tensor(0, 1),
        tensor(120, 1),
        tensor(1, *[1] * 33, float_val=[1]),
    ],
)
def test_what_is_no_tensor_is_invalid(proto):
    """It is refused before memory is taken for it."""
    with pytest.raises(ServingError, match="tensor parsing error: x") as refused:
        array_of("x", proto)
    assert refused.value.code == "INVALID_ARGUMENT"
