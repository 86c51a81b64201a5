"""Weights stored in 16 bits: half the file. The arithmetic stays in 32 bits: ONNX Runtime casts each weight once, when it loads the model."""

from __future__ import annotations

from typing import Any

LARGEST = 65504.0  # that a float16 holds


def halve_weights(model: Any) -> int:
    """Store the matrices and kernels of an ONNX IR model as float16, each with a Cast after it. Returns how many."""
    import numpy as np
    import onnx_ir as ir

    graph, halved = model.graph, 0
    for name, value in list(graph.initializers.items()):
        weight = value.const_value.numpy() if value.const_value is not None else None
        if weight is None or weight.dtype != np.float32 or weight.ndim < 2 or np.abs(weight).max(initial=0) > LARGEST:  # noqa: PLR2004
            continue  # vectors are small, and statistics and biases are the most sensitive
        stored = ir.tensor(weight.astype(np.float16), name=f"{name}_float16")
        half = ir.Value(
            name=stored.name, shape=stored.shape, type=ir.TensorType(ir.DataType.FLOAT16), const_value=stored
        )
        cast = ir.node("Cast", [half], {"to": ir.DataType.FLOAT.value}, name=f"{name}_cast")
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        del graph.initializers[name]
        cast.outputs[0].name = name
        graph.register_initializer(half)
        graph.insert_before(graph[0], cast)
        halved += 1
    return halved
