"""Leaves out what no answer reads: of a ViT's last layer, all tokens but the one that is classified.

It goes by the graph, not by the model's name: one Gather takes one token, and what is computed only for that Gather, token by token, is
computed for that token alone. include/model/faster_graph.py does the same to TensorFlow's graphs.
"""

from __future__ import annotations

from typing import Any

TOKENS = 1  # the axis of the tokens in [batch, tokens, channels]
RANK = 3
UNARY = {"Cast", "Elu", "Erf", "Gelu", "Identity", "Relu", "Sigmoid", "Sqrt", "Tanh"}
BINARY = {"Add", "Div", "Mul", "Pow", "Sub"}


def read_one_token(model: Any) -> int:
    """Change the graph in place. Returns how many operations now compute one token."""
    graph, count = model.graph, 0
    for gather in [node for node in graph if node.op_type == "Gather" and index_of(node) is not None]:
        nodes = narrowed(graph, gather)
        if nodes:
            write_narrow(graph, gather, nodes)
            count += len(nodes)
    return count


def index_of(gather: Any) -> int | None:
    """The place of the one token that a Gather takes; None if it takes something else."""
    data, place = gather.inputs
    axis = gather.attributes.get("axis")
    constant = place.const_value
    if axis is None or axis.as_int() != TOKENS or constant is None or constant.shape.rank() or tokens_of(data) is None:
        return None
    index = int(constant.numpy())
    return index if index >= 0 else None


def tokens_of(value: Any) -> int | None:
    """The number of tokens in [batch, tokens, channels], more than one; None for another value."""
    if value.shape is None or value.shape.rank() != RANK or value.const_value is not None:
        return None
    size = value.shape[TOKENS]
    return size if isinstance(size, int) and size > 1 else None


def narrowed(graph: Any, gather: Any) -> list[Any]:
    """The operations whose result is read only for that token, and that compute it from the same token; the last one first."""
    readers, tokens = {gather}, tokens_of(gather.inputs[0])
    for node in reversed(list(graph)):
        (*_, last) = node.outputs
        used = [one for output in node.outputs for one in output.consumers()]
        is_read = bool(used) and not any(output.is_graph_output() for output in node.outputs)
        if (
            is_read
            and all(one in readers for one in used)
            and len(node.outputs) == 1
            and tokens_of(last) == tokens
            and is_by_token(node)
        ):
            readers.add(node)
    return [node for node in reversed(list(graph)) if node in readers and node is not gather]


def is_by_token(node: Any) -> bool:
    """True if a token of the result depends on the same token of each input, and on constants that are the same for all tokens."""
    first, *others = node.inputs
    if node.domain not in {"", "ai.onnx"}:
        return False
    if node.op_type in UNARY:
        return tokens_of(first) is not None
    if node.op_type in BINARY:
        size = tokens_of(node.outputs[0])
        return all(tokens_of(value) == size or is_same_for_all(value) for value in node.inputs)
    if node.op_type == "MatMul":
        return tokens_of(first) is not None and is_constant(others[0]) and others[0].shape.rank() == RANK - 1
    if node.op_type == "LayerNormalization":
        axis = node.attributes.get("axis")
        return (axis is None or axis.as_int() in {-1, RANK - 1}) and tokens_of(first) is not None
    return False


def is_constant(value: Any) -> bool:
    """True for a weight or another constant."""
    return bool(value.const_value is not None or value.is_initializer())


def is_same_for_all(value: Any) -> bool:
    """True for a constant that has no axis of tokens, or one of one token."""
    if not is_constant(value) or value.shape is None:
        return False
    return value.shape.rank() < RANK - 1 or value.shape[-2] == 1


def write_narrow(graph: Any, gather: Any, nodes: list[Any]) -> None:
    """Let these operations compute that token alone, as [batch, 1, channels]."""
    import numpy as np
    import onnx_ir as ir

    index, name = index_of(gather), gather.outputs[0].name

    def constant(what: str, value: Any) -> Any:
        made = ir.Value(name=f"{name}.{what}", const_value=ir.tensor(np.array(value, np.int64), name=f"{name}.{what}"))
        made.shape, made.dtype = made.const_value.shape, ir.DataType.INT64
        graph.register_initializer(made)
        return made

    bounds = [constant(what, [value]) for what, value in (("first", index), ("end", index + 1), ("axis", TOKENS))]
    kept = {node.outputs[0] for node in nodes}
    cut: dict[Any, Any] = {}
    for node in reversed(nodes):  # in the order of the graph
        for place, value in enumerate(node.inputs):
            if value is None or value in kept or tokens_of(value) is None:
                continue
            if value not in cut:
                slicing = ir.node("Slice", [value, *bounds], name=f"{name}.slice{len(cut)}")
                (cut[value],) = slicing.outputs
                cut[value].name, cut[value].dtype = f"{name}.token{len(cut)}", value.dtype
                cut[value].shape = one_token(value.shape)
                graph.insert_before(node, slicing)
            node.replace_input_with(place, cut[value])
    for node in nodes:
        node.outputs[0].shape = one_token(node.outputs[0].shape)
    first = ir.Value(name=f"{name}.only", const_value=ir.tensor(np.array(0, np.int64), name=f"{name}.only"))
    first.shape, first.dtype = first.const_value.shape, ir.DataType.INT64
    graph.register_initializer(first)
    before = gather.inputs[1]
    gather.replace_input_with(1, first)
    if before.is_initializer() and not before.uses():
        del graph.initializers[before.name]


def one_token(shape: Any) -> Any:
    """The shape with one token."""
    import onnx_ir as ir

    return ir.Shape([1 if axis == TOKENS else size for axis, size in enumerate(shape)])
