"""Converts JSON to tensors and back, by the rules of the real server's util/json_tensor.cc (2.20.0)."""

import base64
import binascii
import json
import math
from typing import Any

import numpy as np

from .tensors import DIMENSIONS, type_of
from .words import ServingError, invalid

INTEGERS = {"int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"}
READABLE = INTEGERS | {"float32", "float64", "bool", "string"}
DEBUG_LENGTH = 256


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object of the request. Text after the object is ignored."""
    text = body.decode(errors="surrogateescape").lstrip(" \n\r\t")
    if not text:
        raise invalid("JSON Parse error: The document is empty")
    try:
        value, _ = json.JSONDecoder(strict=False).raw_decode(text)
        if "\\ud" in text.lower():
            written(value)  # half a surrogate pair is not a character and cannot be sent back: refuse it
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(value, dict):
        raise _bad(value, "Is not object")
    if not isinstance(value.get("signature_name", ""), str):
        raise _bad(value, "not formatted correctly. 'signature_name' key must be a string value.")
    return value


def inputs_of(body: dict[str, Any], signature: Any) -> dict[str, np.ndarray]:
    """One array for each input, from the request's `instances` (row format) or `inputs` (column format)."""
    infos = dict(signature.inputs)
    if "instances" in body and "inputs" in body:
        raise _bad(body, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ")
    if "instances" in body:
        rows = body["instances"]
        if not isinstance(rows, list):
            raise _bad(body, "Expecting 'instances' to be an list/array")
        if not rows:
            raise _bad(body, "No values in 'instances' array")
        return _from_rows(rows, infos)
    if "inputs" in body:
        return _from_columns(body["inputs"], infos)
    raise invalid("Missing 'inputs' or 'instances' key")


def _from_rows(rows: list[Any], infos: dict[str, Any]) -> dict[str, np.ndarray]:
    if len(infos) > 1 and not isinstance(rows[0], dict):
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map"
        )
    named = _is_named(rows[0])
    for number, row in enumerate(rows):
        if _is_named(row) != named:
            found = "object but got list" if named else "value/list but got object"
            raise invalid(f"Expecting {found} at item {number} of input list")
        if named:
            _check_keys(number, row, infos)
    if not named:
        return {(name := next(iter(infos))): _stacked(name, rows, infos[name])}
    return {name: _stacked(name, [row[name] for row in rows], infos[name]) for name in infos}


def _check_keys(number: int, row: dict[str, Any], infos: dict[str, Any]) -> None:
    where = f"Failed to process element: {number}"
    for name in row:
        if name not in infos:
            raise invalid(
                f"{where} key: {name} of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named input: {name}"
            )
    if set(row) != set(infos):
        raise invalid(
            f"{where} of 'instances' list. JSON object: {_debug(row)} keys must be equal to: {','.join(sorted(infos))}"
        )


def _stacked(name: str, values: list[Any], info: Any) -> np.ndarray:
    """The rows of one input, stacked into one array. Each row is a tensor of the same shape."""
    dtype, shape, leaves = type_of(info), _shape(values)[1:], []
    for number, value in enumerate(values):
        try:
            leaves += _same_shaped(value, shape, dtype)
        except ServingError as error:
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. Error: {error.code}: {error.message}"
            ) from error
    return _array(name, leaves, (len(values), *shape), dtype)


def _same_shaped(value: Any, shape: tuple[int, ...], dtype: Any) -> list[Any]:
    found = _shape(value)
    leaves = _leaves(value, found, dtype)
    if len(leaves) != math.prod(shape):
        raise invalid(f"Expecting tensor size: {math.prod(shape)} but got: {len(leaves)}")
    if found != shape:
        raise invalid(f"Expecting shape {_shape_text(shape)} but got: {_shape_text(found)}")
    return leaves


def _from_columns(given: Any, infos: dict[str, Any]) -> dict[str, np.ndarray]:
    if not _is_named(given):
        if len(infos) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"
            )
        given = {next(iter(infos)): given}
    for name in infos:
        if name not in given:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _tensor(name, given[name], type_of(info)) for name, info in infos.items()}


def _tensor(name: str, value: Any, dtype: Any) -> np.ndarray:
    shape = _shape(value)
    return _array(name, _leaves(value, shape, dtype), shape, dtype)


def is_b64(value: Any) -> bool:
    """True if a JSON value is an object with the single key `b64` and a string."""
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_b64(value)


def _shape(value: Any) -> tuple[int, ...]:
    sizes: list[int] = []
    while isinstance(value, list):
        if len(sizes) == DIMENSIONS:
            raise invalid(f"Lists are nested deeper than {DIMENSIONS} levels")
        sizes.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(sizes)


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _leaves(value: Any, shape: tuple[int, ...], dtype: Any, level: int = 0) -> list[Any]:
    """The values of a nested list in order. Raises ServingError if the list does not have this shape."""
    if not isinstance(value, list):
        if level != len(shape):
            raise _bad(value, f"found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {len(shape)}")
        return [_leaf(value, dtype)]
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    return [leaf for item in value for leaf in _leaves(item, shape, dtype, level + 1)]


def _leaf(value: Any, dtype: Any) -> Any:
    if dtype.name not in READABLE:
        raise ServingError("UNIMPLEMENTED", f"Conversion of JSON Value: {_debug(value)} to type: {_type_name(dtype)}")
    if dtype.name == "string" and isinstance(value, dict):
        return _decoded(value)
    if dtype.name == "string" and isinstance(value, str):
        return value.encode(errors="surrogateescape")
    whole = isinstance(value, int) and not isinstance(value, bool)
    fits = {
        "string": False,
        "bool": isinstance(value, bool),
        "float32": whole or isinstance(value, float),
        "float64": whole or isinstance(value, float),
    }
    if not fits.get(dtype.name, whole):
        raise _bad(value, f"Type: {_json_type(value)} is not of expected type: {_type_name(dtype)}")
    return value


def _type_name(dtype: Any) -> str:
    """TensorFlow's name of a type."""
    return {"float16": "half", "float32": "float", "float64": "double"}.get(dtype.name, str(dtype.name))


def _decoded(value: dict[str, Any]) -> bytes:
    if not is_b64(value):
        raise _bad(value, "not formatted correctly for base64 data")
    text = "".join(value["b64"].split()).rstrip("=")  # spaces are ignored, and the padding is optional
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def _array(name: str, leaves: list[Any], shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    array = np.empty(len(leaves), dtype=dtype.array_type)
    try:
        array[:] = leaves
    except (OverflowError, ValueError) as error:
        raise invalid(f"tensor parsing error: {name}: {error}") from error
    return array.reshape(shape)


def answer_of(outputs: dict[str, np.ndarray], *, rows: bool) -> bytes:
    """The body of the response: `predictions` by row or `outputs` by column. A single output has no name."""
    columns = {name: _plain(name, np.asarray(value)) for name, value in outputs.items()}
    alone = next(iter(columns.values())) if len(columns) == 1 else None
    if not rows:
        return written({"outputs": columns if alone is None else alone})
    _check_rows(outputs)
    if alone is None:
        alone = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return written({"predictions": alone})


def _check_rows(outputs: dict[str, np.ndarray]) -> None:
    expected = None
    for name, value in outputs.items():
        if not np.ndim(value):
            raise invalid(f"Tensor name: {name} has no shape information ")
        if expected not in {None, len(value)}:
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(value)} expecting: {expected}")
        expected = len(value)


def _plain(name: str, value: np.ndarray) -> Any:
    if value.dtype.kind == "f":
        digits = 9 if value.dtype == np.float32 else 17
        return _mapped(value.tolist(), lambda number: _shortest(number, value.dtype, digits))
    if value.dtype.kind in "OSU":
        encode = _as_b64 if name.endswith("_bytes") else _as_text
        return _mapped(value.tolist(), encode)
    return value.tolist()


def _mapped(value: Any, change: Any) -> Any:
    return [_mapped(item, change) for item in value] if isinstance(value, list) else change(value)


def _shortest(number: float, dtype: Any, digits: int) -> float:
    """The number with six digits if they are exact for its type, otherwise with `digits` (json_tensor.cc:125-170)."""
    six = float(f"{number:.6g}")
    return six if dtype.type(six) == number else float(f"{number:.{digits}g}")


def _as_b64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _as_text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")


def written(body: dict[str, Any]) -> bytes:
    """The JSON text. Bytes that are not UTF-8 are written unchanged."""
    return json.dumps(body, indent=4, ensure_ascii=False).encode(errors="surrogateescape")


def _json_type(value: Any) -> str:
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    names: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def _debug(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)[:DEBUG_LENGTH]
    except RecursionError:
        return "[…]"


def _bad(value: Any, problem: str) -> ServingError:
    return invalid(f"JSON Value: {_debug(value)} {problem}")
