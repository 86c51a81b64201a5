"""Runs attention with several masks before and after `drop_open_masks`, and prints how many masks went and how far the answers are apart."""

import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from open_masks import drop_open_masks

TEXT = """<ir_version: 10, opset_import: ["" : 23]>
g (float[batch, 2, 3, 4] x) => (float[batch, 2, 3, 4] y) <int64[4] whole = {{1, 1, 3, 3}}> {{
  {lines}
}}"""
MASKS = {  # the graph's lines, and the constant
    "all true": ("m = Expand(given, whole) y = Attention(x, x, x, m)", np.ones((1, 1, 3, 1), bool)),
    "all true, as it is": ("y = Attention(x, x, x, given)", np.ones((1, 1, 3, 3), bool)),
    "one false": (
        "m = Expand(given, whole) y = Attention(x, x, x, m)",
        np.array([True, False, True]).reshape(1, 1, 1, 3),
    ),
    "numbers": ("m = Expand(given, whole) y = Attention(x, x, x, m)", np.ones((1, 1, 3, 1), np.float32)),
    "computed": (
        "e = Expand(given, whole) m = Not(e) y = Attention(x, x, x, m)",
        np.array([True, False, True]).reshape(1, 1, 1, 3),
    ),
}


def answer(file: Path, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime computes."""
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def main() -> None:
    """Try every mask."""
    found, x = {}, np.random.default_rng(4).normal(size=(2, 2, 3, 4)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        for name, (lines, constant) in MASKS.items():
            before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
            model = onnx.parser.parse_model(TEXT.format(lines=lines))
            model.graph.initializer.append(onnx.numpy_helper.from_array(constant, "given"))
            onnx.save(model, before)
            written = ir.load(before)
            count = drop_open_masks(written)
            ir.save(written, after)
            onnx.checker.check_model(after, full_check=True)
            apart = float(np.abs(answer(before, x) - answer(after, x)).max())
            found[name] = {"count": count, "apart": apart, "operations": [node.op_type for node in written.graph]}
    print(json.dumps(found))


main()
