"""Leaves out masks that hide nothing: 🤗 gives its attention one of all true, which would be added to every product of two tokens."""

from __future__ import annotations

from typing import Any

MASK = 3  # its place among the inputs of Attention


def drop_open_masks(model: Any) -> int:
    """Change the graph in place. Returns how many masks are gone."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    found = [
        node
        for node in model.graph
        if node.op_type == "Attention" and len(node.inputs) > MASK and is_open(node.inputs[MASK])
    ]
    for node in found:
        node.replace_input_with(MASK, None)
    if found:
        RemoveUnusedNodesPass()(model)
    return len(found)


def is_open(mask: Any) -> bool:
    """True for a constant of all true, expanded or not."""
    maker = mask.producer() if mask is not None else None
    constant = maker.inputs[0] if maker is not None and maker.op_type == "Expand" else mask
    if constant is None or constant.const_value is None:
        return False
    values = constant.const_value.numpy()
    return bool(values.dtype == bool and values.all())
