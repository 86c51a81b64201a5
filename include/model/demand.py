"""Which part of each tensor a traced model reads: all of it, or one place along one axis.

A ViT classifies by its first token. The last layer's other tokens are computed and never read, except as keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sizes import Size

COPIES = {"Identity", "StopGradient"}
UNARY = COPIES | {"Neg", "Erf", "Erfc", "Tanh", "Rsqrt", "Sqrt", "Square", "Relu", "Relu6", "Elu", "Sigmoid", "Exp"}
BINARY = {"AddV2", "Add", "Sub", "Mul", "RealDiv", "SquaredDifference", "Maximum", "Minimum"}


@dataclass(frozen=True, slots=True)
class Cut:
    """One place along one axis; the axis stays, with size 1."""

    axis: int
    place: int

    def of(self, size: Size) -> Size:
        """The part's size."""
        return (*size[: self.axis], 1, *size[self.axis + 1 :])


Part = Cut | None
WHOLE = None  # all of a tensor
Parts = list[tuple[Any, Part]]  # of the inputs of an operation, in their order
Sizes = Mapping[str, Size | None]


def read_parts(operations: Iterable[Any], result: Any, sizes: Sizes) -> dict[str, Part]:
    """For each tensor that the result depends on, by name: the part of it that is read."""
    parts: dict[str, Part] = {result.name: WHOLE}
    for operation in reversed(list(operations)):  # what uses a tensor comes before what makes it
        if not any(output.name in parts for output in operation.outputs):
            continue
        output = operation.outputs[0].name
        if (inputs := inputs_for(operation, parts.get(output), sizes)) is None:
            parts[output] = WHOLE
            inputs = inputs_for(operation, WHOLE, sizes) or []
        for tensor, part in inputs:
            parts[tensor.name] = part if parts.get(tensor.name, part) == part else WHOLE
    return parts


def inputs_for(operation: Any, part: Part, sizes: Sizes) -> Parts | None:
    """The inputs that a part of the output depends on, each with its part; None if only the whole can be computed."""
    if layer := dense(operation, sizes):
        given, product = layer
        is_rows = part is WHOLE or part.axis < len(_known(given, sizes)) - 1
        return [(given, part), (product.inputs[1], WHOLE)] if is_rows else None
    if part is WHOLE:
        return _inputs_for_whole(operation, sizes)
    rule = RULES.get(operation.type)
    if rule is None or any(sizes[tensor.name] is None for tensor in (*operation.inputs, operation.outputs[0])):
        return None
    return rule(operation, part, sizes)


def _inputs_for_whole(operation: Any, sizes: Sizes) -> Parts:
    first, *others = [(tensor, WHOLE) for tensor in operation.inputs] or [None]
    if operation.type == "Reshape" and sizes[operation.outputs[0].name] is not None:
        return [first]  # its size is known, so the input that says it is not needed
    if operation.type == "StridedSlice" and (cut := sliced(operation)):
        return [(operation.inputs[0], cut), *others]
    return [(tensor, WHOLE) for tensor in operation.inputs]


def dense(operation: Any, sizes: Sizes) -> tuple[Any, Any] | None:
    """The input and the MatMul of a Dense layer on more than two axes, from the Reshape that ends it; else None."""
    if operation.type != "Reshape" or (product := operation.inputs[0].op).type != "MatMul":
        return None
    if product.get_attr("transpose_a") or (start := product.inputs[0].op).type != "Reshape":
        return None
    given, output, kernel = original(start.inputs[0]), operation.outputs[0], product.inputs[1]
    size, made, weights = (sizes[tensor.name] for tensor in (given, output, kernel))
    if size is None or made is None or weights is None or len(size) <= 2:  # noqa: PLR2004
        return None
    columns, results = reversed(weights) if product.get_attr("transpose_b") else weights
    return (given, product) if (*size[:-1], columns, results) == (*made[:-1], size[-1], made[-1]) else None


def original(tensor: Any) -> Any:
    """The tensor that this one is a copy of; itself if it is none."""
    while tensor.op.type in COPIES or (tensor.op.type == "Transpose" and is_in_order(tensor.op)):
        tensor = tensor.op.inputs[0]
    return tensor


def is_in_order(transpose: Any) -> bool:
    """Whether a Transpose leaves all axes where they are."""
    order = value(transpose.inputs[1])
    return order is not None and list(order) == list(range(len(order)))


def sliced(operation: Any) -> Cut | None:
    """The place that a StridedSlice such as `x[:, 0]` reads; None if it is of another kind."""
    begin, strides = value(operation.inputs[1]), value(operation.inputs[3])
    masks = [operation.get_attr(f"{name}_mask") for name in ("shrink_axis", "begin", "end", "ellipsis", "new_axis")]
    shrink, begins, ends, *others = masks
    if begin is None or strides is None or any(strides != 1) or any(others) or shrink.bit_count() != 1:
        return None
    axis = shrink.bit_length() - 1
    rest = (1 << len(begin)) - 1 - shrink
    is_one_place = begins & rest == rest == ends & rest and not begins & shrink and begin[axis] >= 0
    return Cut(axis, int(begin[axis])) if is_one_place else None


def is_by_row(operation: Any, sizes: Sizes) -> bool:
    """Whether a Softmax, BiasAdd or Mean computes each row, which is all along the last axis, from the same row."""
    match operation.type:
        case "Softmax":
            return True
        case "BiasAdd":
            return operation.get_attr("data_format") == b"NHWC"
        case "Mean":
            axes, last = value(operation.inputs[1]), len(_known(operation.inputs[0], sizes)) - 1
            is_last = axes is not None and axes.reshape(-1).tolist() in ([last], [-1])
            return is_last and operation.get_attr("keep_dims")
    return False


def value(tensor: Any) -> Any:
    """The tensor's value if it is a constant, else None."""
    import tensorflow as tf

    return tf.get_static_value(tensor)


def _known(tensor: Any, sizes: Sizes) -> Size:
    return sizes[tensor.name] or ()


def _element_by_element(operation: Any, part: Cut, sizes: Sizes) -> Parts | None:
    """A smaller input is broadcast."""
    output, found = _known(operation.outputs[0], sizes), []
    for tensor in operation.inputs:
        size = _known(tensor, sizes)
        axis = part.axis - len(output) + len(size)
        found.append((tensor, WHOLE if axis < 0 or size[axis] == 1 else Cut(axis, part.place)))
    return found


def _row_by_row(operation: Any, part: Cut, sizes: Sizes) -> Parts | None:
    first, *others = operation.inputs
    if part.axis == len(_known(first, sizes)) - 1 or not is_by_row(operation, sizes):
        return None
    return [(first, part), *((other, WHOLE) for other in others)]


def _turned(operation: Any, part: Cut, _: Sizes) -> Parts | None:
    order = value(operation.inputs[1])
    if order is None:
        return None
    return [(operation.inputs[0], Cut(int(order[part.axis]), part.place)), (operation.inputs[1], WHOLE)]


def _multiplied(operation: Any, part: Cut, sizes: Sizes) -> Parts | None:
    """A row of the product needs that row of the left matrix; batches of matrices that are broadcast are left alone."""
    left, right = operation.inputs
    size = _known(left, sizes)
    if part.axis != len(size) - 2 or size[:-2] != _known(right, sizes)[:-2]:
        return None
    return [(left, Cut(part.axis + int(operation.get_attr("adj_x")), part.place)), (right, WHOLE)]


def _reshaped(operation: Any, part: Cut, sizes: Sizes) -> Parts | None:
    """A reshape of what follows the axis leaves the places along it."""
    given, until = operation.inputs[0], part.axis + 1
    same = _known(given, sizes)[:until] == _known(operation.outputs[0], sizes)[:until]
    return [(given, part)] if same else None


RULES: dict[str, Callable[[Any, Cut, Sizes], Parts | None]] = {
    **dict.fromkeys(UNARY | BINARY, _element_by_element),
    **dict.fromkeys(("Softmax", "BiasAdd", "Mean"), _row_by_row),
    **dict.fromkeys(("BatchMatMulV2", "BatchMatMulV3"), _multiplied),
    "Transpose": _turned,
    "Reshape": _reshaped,
}
