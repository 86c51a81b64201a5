"""Tensors: their element types by TensorFlow's numbers, and the conversion between protos and arrays."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .words import invalid

DIMENSIONS = 32  # of a tensor: TensorFlow allows 254, NumPy fewer
MOST_REPEATED = 1 << 24  # elements of a tensor whose message gives fewer values, the last of which stands for the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementType:
    """An element type. Those without an array type can neither be read nor written."""

    number: int  # in types.proto
    name: str
    array_type: Any = None
    field: str = ""  # of a TensorProto, with the values


def _type(number: int, name: str, field: str) -> ElementType:
    return ElementType(number=number, name=name, array_type=object if name == "string" else np.dtype(name), field=field)


# The fields are those of AsProtoField: one field of values, never tensor_content.
TYPES = {
    known.number: known
    for known in (
        _type(1, "float32", "float_val"),
        _type(2, "float64", "double_val"),
        _type(3, "int32", "int_val"),
        _type(4, "uint8", "int_val"),
        _type(5, "int16", "int_val"),
        _type(6, "int8", "int_val"),
        _type(7, "string", "string_val"),
        _type(9, "int64", "int64_val"),
        _type(10, "bool", "bool_val"),
        _type(17, "uint16", "int_val"),
        _type(19, "float16", "half_val"),
        _type(22, "uint32", "uint32_val"),
        _type(23, "uint64", "uint64_val"),
    )
}
STRING, FLOAT = TYPES[7], TYPES[1]


def type_of(info: Any) -> ElementType:
    """The type of a tensor in a signature, or of a TensorProto."""
    return TYPES.get(info.dtype) or ElementType(number=info.dtype, name=f"type {info.dtype}")


def array_of(alias: str, proto: Any) -> np.ndarray:
    """The values of a TensorProto. Raises ServingError with INVALID_ARGUMENT if it is not a tensor."""
    if len(proto.tensor_shape.dim) > DIMENSIONS:
        raise invalid(f"tensor parsing error: {alias}: more than {DIMENSIONS} dimensions")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    dtype = type_of(proto)
    if dtype.array_type is None or proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise invalid(f"tensor parsing error: {alias}")
    try:
        return _filled(_values(proto, dtype), math.prod(shape), dtype).reshape(shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise invalid(f"tensor parsing error: {alias}") from error


def _values(proto: Any, dtype: ElementType) -> np.ndarray:
    if proto.tensor_content and dtype is not STRING:
        return np.frombuffer(proto.tensor_content, dtype.array_type)
    given = getattr(proto, dtype.field)
    if dtype.field == "half_val":  # the bits of 16-bit floats
        return np.array(given, np.uint16).view(dtype.array_type)
    values = np.empty(len(given), dtype.array_type)
    values[:] = given
    return values


def _filled(values: np.ndarray, count: int, dtype: ElementType) -> np.ndarray:
    """So many elements: missing ones are like the last one, as in TensorFlow."""
    if len(values) == count:
        return values
    if len(values) > count or count > MOST_REPEATED:
        raise ValueError(f"{len(values)} values for {count} elements")
    last = values[-1] if len(values) else b"" if dtype is STRING else dtype.array_type.type(0)
    filled = np.full(count, last, dtype.array_type)
    filled[: len(values)] = values
    return filled


def fill_proto(proto: Any, value: np.ndarray) -> None:
    """Write an array into a TensorProto as `Tensor::AsProtoField` does. Raises ValueError for a type that has no field."""
    dtype = STRING if value.dtype.kind in "OSU" else _BY_NAME.get(value.dtype.name)
    if dtype is None:
        raise ValueError(f"tensors of {value.dtype} are not supported")
    proto.dtype = dtype.number
    for size in value.shape:
        proto.tensor_shape.dim.add(size=size)
    flat = value.reshape(-1)
    getattr(proto, dtype.field).extend((flat.view(np.uint16) if dtype.field == "half_val" else flat).tolist())


_BY_NAME = {known.name: known for known in TYPES.values()}


def support(dtype: ElementType) -> None:
    """Add an element type that NumPy itself does not have."""
    TYPES[dtype.number] = _BY_NAME[dtype.name] = dtype
