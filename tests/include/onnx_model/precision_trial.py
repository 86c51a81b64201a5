"""Prints what is in exported graphs, and how graphs without products are quantised. Runs in the second exporter's environment."""

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from errors import ExportRefused
from onnx import TensorProto, helper, numpy_helper
from precision import quantise, store_as_float16


def describe(file):
    """Number of nodes by operation, and of each type of weight: how many, the largest rank and the most values, least and largest."""
    graph = onnx.load(file).graph
    weights = {}
    for initializer in graph.initializer:
        values = numpy_helper.to_array(initializer)
        weights.setdefault(str(values.dtype), []).append(values)
    return {
        "operations": Counter(node.op_type for node in graph.node),
        "weights": {
            kind: {
                "least": float(min(values.min() for values in found)),
                "largest": float(max(values.max() for values in found)),
                "ranks": sorted({values.ndim for values in found}),
                "most_values": max(values.size for values in found),
            }
            for kind, found in weights.items()
        },
    }


def refuse(calibration):
    """Why a graph without a product is refused."""
    value = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, 4, 4])
    result = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3, 4, 4])
    graph = helper.make_graph([helper.make_node("Relu", ["pixel_values"], ["probabilities"])], "g", [value], [result])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "relu.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), file)
        try:
            quantise(file, calibration)
        except ExportRefused as refused:
            return str(refused)
    return "not refused"


def stored():
    """The type in which each weight is stored, by what is special about it."""
    weights = {
        "large": np.ones((40, 40)),
        "too large a value": np.full((40, 40), 1e6),
        "few values": np.ones((20, 40)),
        "one dimension": np.ones(2000),
    }
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 23}), ir_version=10)
    for name, values in weights.items():
        tensor = ir.tensor(values.astype(np.float32))
        value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        model.graph.register_initializer(value)
        model.graph.append(ir.node("Identity", [value]))
    store_as_float16(model)
    return {name.removesuffix(".float16"): value.dtype.name for name, value in model.graph.initializers.items()}


print(
    json.dumps(
        {
            "graphs": [describe(file) for file in sys.argv[1:]],
            "stored": stored(),
            "refusals": [refuse([]), refuse([np.ones((3, 4, 4), np.float32)])],
        }
    )
)
