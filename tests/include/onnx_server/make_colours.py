"""Makes colours.onnx, a model that tells red, green and blue images apart, with any Python that has the package `onnx`.

python tests/include/onnx_server/make_colours.py
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, OPSET, IR_VERSION = 8, 20, 10
WEIGHTS = np.array([[4, -2, -2, 0], [-2, 4, -2, 0], [-2, -2, 4, 0]], np.float32)  # from channels to labels


def colours() -> onnx.ModelProto:
    """Each channel's mean, one dense layer, softmax."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixel_values"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    given = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    returned = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_graph(nodes, "colours", [given], [returned], [numpy_helper.from_array(WEIGHTS, "weights")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    Path(__file__).with_name("colours.onnx").write_bytes(colours().SerializeToString(deterministic=True))
