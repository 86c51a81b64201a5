"""Runs small graphs of tokens before and after `read_one_token`, and prints how many operations changed and how far the answers are apart.

Every graph takes x, float32 [batch, 5, 4]: the token that it reads is what the name says.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from read_token import read_one_token

HEAD = "g (float[batch, 5, 4] x) => (float[batch, 4] y) <int64 place = {place}, int64[1] tokens = {{1}}, float[4, 4] w, float[4] b, float[1, 5, 4] by_token> {{ "
PER_TOKEN = "n = LayerNormalization(x, b, b) m = MatMul(n, w) a = Add(m, b) g = Gelu(a) s = Add(g, x) "
READ = "y = Gather<axis = 1>(s, place) }}"
GRAPHS = {
    "the first token": PER_TOKEN + READ,
    "the third token": PER_TOKEN + READ,
    "a mean of tokens": PER_TOKEN
    + "t = ReduceMean<keepdims = 1>(s, tokens) u = Add(s, t) y = Gather<axis = 1>(u, place) }}",
    "another reader": PER_TOKEN
    + "t = Gather<axis = 1>(s, place) u = Identity(t) r = ReduceMax<keepdims = 0>(s, tokens) y = Add(u, r) }}",
    "a constant of its own for each token": "s = Add(x, by_token) " + READ,
    "a softmax between": "a = Add(x, b) f = Softmax<axis = 1>(a) s = Mul(f, b) " + READ,
}
PLACES = {"the third token": 2}


def graph_of(text: str, place: int) -> onnx.ModelProto:
    """The model, with its weights."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 23]> ' + (HEAD + text).format(place="{%d}" % place)  # noqa: UP031
    )
    draw = np.random.default_rng(3)
    for name, shape in (("w", (4, 4)), ("b", (4,)), ("by_token", (1, 5, 4))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(draw.normal(size=shape).astype(np.float32), name))
    return onnx.shape_inference.infer_shapes(model)


def answer(file: Path, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime computes."""
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def main() -> None:
    """Try every graph."""
    found, x = {}, np.random.default_rng(4).normal(size=(3, 5, 4)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in GRAPHS.items():
            before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
            onnx.save(graph_of(text, PLACES.get(name, 0)), before)
            model = ir.load(before)
            count = read_one_token(model)
            ir.save(model, after)
            onnx.checker.check_model(after, full_check=True)
            widths = {node.op_type: [str(size) for size in node.outputs[0].shape or ()] for node in model.graph}
            apart = float(np.abs(answer(before, x) - answer(after, x)).max())
            found[name] = {"count": count, "apart": apart, "matmul": widths.get("MatMul")}
    print(json.dumps(found))


main()
