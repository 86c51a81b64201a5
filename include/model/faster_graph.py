"""Writes a traced model anew as a graph that gives the same answers in less time. It goes by the graph, not by the model's name.

1. A Dense layer on [batch, tokens, channels] is a product between two reshapes. The second one separates the product from its
   bias, its activation and the sum after it, so that TensorFlow cannot compute them together. Here tensors stay matrices
   from layer to layer.
2. What nothing reads is not computed (demand.py): of a ViT's last layer, all tokens but the first.

A graph that this module does not understand, or whose answers would change, is served as it was traced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from demand import (
    BINARY,
    COPIES,
    UNARY,
    WHOLE,
    Cut,
    Part,
    dense,
    inputs_for,
    is_by_row,
    is_in_order,
    read_parts,
    sliced,
)
from sizes import Size, again, begin, read_sizes

READS = {"Placeholder", "ReadVariableOp", "ResourceGather"}  # operations with a state that only read it
BATCHES = (1, 3)  # for which the answers of both graphs are compared
MOST_APART = 1e-4  # of a probability. The order in which float32 values are added moves it by about 1e-6


class NotUnderstood(Exception):
    """Why a graph is served as it was traced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The function to serve, and in one line how its graph was made."""

    function: Any
    how: str


def faster(function: Any) -> Served:
    """A function of images to probabilities, with its graph written anew if that can be done."""
    try:
        written, how = _written(function.get_concrete_function())
        _check_answers(function, written)
    except NotUnderstood as why:
        return Served(function=function, how=f"as traced: {why}")
    return Served(function=written, how=how)


def _written(traced: Any) -> tuple[Any, str]:
    import tensorflow as tf

    _check_operations(traced)
    given, writers = traced.inputs[0], []

    @tf.function(input_signature=[tf.TensorSpec(given.shape, given.dtype)], autograph=False)
    def chances(pixels: tf.Tensor) -> tf.Tensor:
        writers.append(Writer(traced, sizes, pixels))
        return writers[-1].result()

    try:
        sizes = read_sizes(traced)
        chances.get_concrete_function()
    except ValueError as error:  # TensorFlow's, if an operation cannot be made again
        raise NotUnderstood(_first_line(error)) from error
    return chances, writers[-1].summary()


def _check_operations(traced: Any) -> None:
    if len(traced.inputs) - len(traced.captured_inputs) != 1 or len(traced.outputs) != 1:
        raise NotUnderstood("it has more than one input or output")
    for operation in traced.graph.get_operations():
        if operation.op_def.is_stateful and operation.type not in READS:
            raise NotUnderstood(f"its operation {operation.type} may do more than compute")


def _check_answers(function: Any, written: Any) -> None:
    """Compare both graphs on noise."""
    import numpy as np
    import tensorflow as tf

    shape = function.get_concrete_function().inputs[0].shape[1:]
    for batch in BATCHES:
        pixels = np.random.default_rng(batch).standard_normal((batch, *shape)).astype(np.float32)
        expected = function(pixels).numpy()
        try:
            apart = np.abs(expected - written(pixels).numpy()).max()
        except tf.errors.OpError as error:
            raise NotUnderstood(f"written anew, it would fail: {_first_line(error)}") from error
        if not apart <= MOST_APART:  # nor if it is NaN
            raise NotUnderstood(f"written anew, its probabilities would differ by more than {MOST_APART}")


def _first_line(error: Exception) -> str:
    return f"{error}".strip().partition("\n")[0]


class Writer:
    """Makes each operation of a traced function that is needed in the graph that is being traced now.

    A tensor is made in one of two forms: with the axes that it has in the traced graph, or as a matrix whose rows are all axes
    but the last one. Only the part of it that is read is made.
    """

    def __init__(self, traced: Any, sizes: dict[str, Size | None], pixels: Any) -> None:
        """Find out what is read. `pixels` is the new function's input."""
        self._operations, self._result = traced.graph.get_operations(), traced.outputs[0]
        self._sizes = sizes
        self._parts = read_parts(self._operations, self._result, sizes)
        self._whole: dict[tuple[str, Part], Any] = {
            (name, WHOLE): tensor for name, tensor in begin(traced, pixels).items()
        }
        self._rows: dict[tuple[str, Part], Any] = {}
        self._layers: list[Part] = []  # the Dense layers, each with the part that is computed

    def result(self) -> Any:
        """The new function's output. Raises NotUnderstood if nothing can be gained."""
        for operation in self._operations:  # inputs come before what uses them
            if any(output.name in self._parts for output in operation.outputs):
                self._write(operation)
        if not self._layers:
            raise NotUnderstood("it has no Dense layer on more than two axes")
        return self._as_traced(self._result)

    def summary(self) -> str:
        """What was written, in one line."""
        cut = sum(part is not WHOLE for part in self._layers)
        return f"written anew: {len(self._layers)} Dense layers as plain products, {cut} of them only for the token that is read"

    def _write(self, operation: Any) -> None:
        output = operation.outputs[0]
        key = (output.name, self._parts.get(output.name))
        if key in self._whole:  # the input, or what is captured
            return
        inputs = inputs_for(operation, key[1], self._sizes) or []
        size = self._size(*key)
        if layer := dense(operation, self._sizes):
            self._layers.append(key[1])
            (given, part), (kernel, _) = inputs
            self._rows[key] = again(layer[1], [self._as_rows(given, part), self._as_traced(kernel)])[0]
        elif operation.type in COPIES or (operation.type == "Transpose" and is_in_order(operation)):
            self._copy(key, *inputs[0])
        elif size is not None and (operation.type == "Reshape" or _is_cut(operation, inputs)):
            self._whole[key] = _reshape(self._as_made(*inputs[0]), size)
        elif self._is_by_row(operation) and any((tensor.name, part) in self._rows for tensor, part in inputs):
            self._rows[key] = self._by_row(operation, inputs)
        else:
            made = again(operation, [self._as_traced(*given) for given in inputs])
            self._whole |= {(old.name, key[1]): new for old, new in zip(operation.outputs, made, strict=True)}

    def _size(self, name: str, part: Part) -> Size | None:
        size = self._sizes[name]
        return part.of(size) if isinstance(part, Cut) and size is not None else size

    def _as_made(self, tensor: Any, part: Part) -> Any:
        """A part of a tensor in the form that it was made in."""
        key = (tensor.name, part)
        return self._rows[key] if key in self._rows and key not in self._whole else self._as_traced(tensor, part)

    def _as_traced(self, tensor: Any, part: Part = WHOLE) -> Any:
        """A part of a tensor, with the axes of the traced graph."""
        import tensorflow as tf

        key = (tensor.name, part)
        if key not in self._whole and key in self._rows:
            self._whole[key] = _reshape(self._rows[key], self._size(*key))
        elif key not in self._whole:
            self._whole[key] = tf.gather(self._as_traced(tensor), [part.place], axis=part.axis)
        return self._whole[key]

    def _as_rows(self, tensor: Any, part: Part) -> Any:
        """A part of a tensor as a matrix."""
        key = (tensor.name, part)
        if key not in self._rows:
            self._rows[key] = _reshape(self._as_traced(tensor, part), (-1, self._size(*key)[-1]))
        return self._rows[key]

    def _copy(self, key: tuple[str, Part], tensor: Any, part: Part) -> None:
        self._as_made(tensor, part)
        for form in (self._whole, self._rows):
            if (tensor.name, part) in form:
                form[key] = form[tensor.name, part]

    def _is_by_row(self, operation: Any) -> bool:
        """Whether each row of the output depends on the same row of the inputs, and on inputs without rows."""
        output = self._sizes[operation.outputs[0].name]
        if output is None or len(output) <= 2:  # noqa: PLR2004
            return False
        if operation.type in UNARY | BINARY:
            sizes = [self._sizes[tensor.name] for tensor in operation.inputs]
            return all(size is not None and (len(size) <= 1 or size[:-1] == output[:-1]) for size in sizes)
        return is_by_row(operation, self._sizes)

    def _by_row(self, operation: Any, inputs: list[tuple[Any, Part]]) -> Any:
        import tensorflow as tf

        if operation.type == "Mean":
            return tf.reduce_mean(self._as_rows(*inputs[0]), axis=1, keepdims=True)
        has_rows = [len(self._sizes[tensor.name]) > 1 for tensor, _ in inputs]
        forms: list[Callable[..., Any]] = [self._as_rows if rows else self._as_traced for rows in has_rows]
        return again(operation, [form(*given) for form, given in zip(forms, inputs, strict=True)])[0]


def _is_cut(operation: Any, inputs: list[tuple[Any, Part]]) -> bool:
    """Whether a StridedSlice only drops the axis of the part that it reads."""
    return operation.type == "StridedSlice" and inputs[0][1] is not WHOLE and sliced(operation) == inputs[0][1]


def _reshape(tensor: Any, size: Size) -> Any:
    """The tensor in another shape; TensorFlow infers the axis that grows with the batch."""
    import tensorflow as tf

    return tf.reshape(tensor, [-1 if axis < 0 else axis for axis in size])
