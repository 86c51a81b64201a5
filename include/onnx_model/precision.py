"""Makes an exported graph smaller: weights stored as float16, or matrix products and convolutions computed in int8."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from errors import ExportRefused

LEAST_VALUES = 1024  # of a weight that is stored as float16: biases and norms are small, and stay exact
PRODUCTS = ("MatMul", "Gemm")
QUANTISED = {"MatMulInteger", "ConvInteger", "QuantizeLinear"}  # a graph without these has nothing in int8


def store_as_float16(model: Any) -> None:
    """Store large weights as float16; ONNX Runtime makes them float32 when it loads the model, and computes as before.

    A weight with a value that float16 does not have stays float32.
    """
    import numpy as np
    import onnx_ir as ir

    casts = []
    for value in list(model.graph.initializers.values()):
        if value.dtype != ir.DataType.FLOAT or len(value.shape) < 2 or value.const_value.size < LEAST_VALUES:  # noqa: PLR2004
            continue
        with np.errstate(over="ignore"):
            half = value.const_value.numpy().astype(np.float16)
        if not np.isfinite(half).all():
            continue
        name = value.name
        stored = ir.Value(
            name=f"{name}.float16",
            shape=value.shape,
            type=ir.TensorType(ir.DataType.FLOAT16),
            const_value=ir.tensor(half),
        )
        cast = ir.node("Cast", [stored], attributes={"to": int(ir.DataType.FLOAT)})
        value.replace_all_uses_with(cast.outputs[0])
        model.graph.initializers.pop(name)
        model.graph.register_initializer(stored)
        cast.outputs[0].name, cast.outputs[0].dtype, cast.outputs[0].shape = name, ir.DataType.FLOAT, value.shape
        casts.append(cast)
    first = next(iter(model.graph), None)
    if first is not None:
        model.graph.insert_before(first, casts)


def quantise(file: Path, calibration: Iterable[Any]) -> Any:
    """The graph in a file with its products in int8, as onnx_ir has it. Raises ExportRefused if it has none.

    With inputs for `calibration`, float32 (3, height, width), the scales of the activations are fixed, and convolutions are
    quantised too. Without, each product finds its scale at each request, from all images that are computed together.

    Activations are unsigned, weights signed with seven of eight bits: two products of them fit into 16 bits. CPUs without VNNI
    add two products in 16 bits; with larger weights they would saturate, and answer otherwise than CPUs with VNNI.
    """
    import onnx_ir as ir
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

    class Inputs(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, pixels: Iterator[Any]) -> None:
            self.pixels = pixels

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.pixels, None)
            return None if image is None else {"pixel_values": image[None]}

    shared: dict[str, Any] = {
        "per_channel": True,
        "reduce_range": True,
        "weight_type": QuantType.QInt8,
        "use_external_data_format": True,  # a large one does not fit into one file
        "extra_options": {"MatMulConstBOnly": True},  # products of two activations lose most
    }
    inputs = list(calibration)
    logging.getLogger().setLevel(logging.ERROR)  # it advises a step that changes nothing in a traced graph
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "model.onnx"
        if inputs:
            kinds = [*PRODUCTS, "Conv"]
            activations = QuantType.QUInt8
            quantize_static(
                file, written, Inputs(iter(inputs)), op_types_to_quantize=kinds, activation_type=activations, **shared
            )
        else:
            quantize_dynamic(file, written, op_types_to_quantize=list(PRODUCTS), **shared)
        model = ir.load(written)
        if not QUANTISED & {node.op_type for node in model.graph}:
            then = "use float32" if inputs else "let export.calibration be labelled, which quantises convolutions too"
            raise ExportRefused(f"settings.precision: the model has no product that int8 computes. Next: {then}.")
        ir.external_data.load_to_model(model)  # the folder goes
    return model
