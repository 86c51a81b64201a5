"""Writes what the server serves: the graph from pixels to probabilities, and beside it how to read an image."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from errors import ExportRefused
from open_masks import drop_open_masks
from precision import quantise, store_as_float16
from processor import Step, output_size, plan_preprocess
from read_token import read_one_token
from request import Settings
from toolchain import Checkpoint
from torch_checkpoint import logits_of

FORMAT = 1  # of model.json
OPSET = 23  # the first with a fused attention
BATCH = 2  # of the traced example: with one image, the tracer would take the batch for a constant
MOST_BYTES = 2 << 30  # of a protobuf message; larger weights lie beside it
SHOWN = 200  # characters of an error
MODEL, WEIGHTS, DESCRIPTION = "model.onnx", "model.onnx.data", "model.json"


def save_model(checkpoint: Checkpoint, folder: Path, settings: Settings) -> str:
    """Write the folder. Returns in one line how the graph was made."""
    steps = plan(checkpoint)
    refuse_other_outputs(checkpoint, output_size(steps))
    folder.mkdir(parents=True)
    graph, how = export_graph(checkpoint.model, output_size(steps))
    drop_open_masks(graph)
    if narrowed := read_one_token(graph):
        how += f", {narrowed} operations only for the token that is read"
    if settings.precision == "float16_weights":
        store_as_float16(graph)
        how += ", weights stored as float16"
    count = write_normalised(graph, folder)
    (folder / DESCRIPTION).write_text(render_description(checkpoint, steps, settings), encoding="utf-8")
    return f"torch.export, ONNX opset {OPSET}, {count} nodes{how}"


def refuse_other_outputs(checkpoint: Checkpoint, size: tuple[int, int]) -> None:
    """Refuse a model that does not take images of this size, or has not one output for each label. Raises ExportRefused."""
    import numpy as np

    try:
        outputs = len(checkpoint.logits(np.zeros((1, 3, *size), np.float32)))
    except Exception as error:  # whatever the model raises
        reason = " ".join(str(error).split())[:SHOWN]
        raise ExportRefused(
            f"config.json: the model does not take the {size[0]} x {size[1]} pixels of its image processor ({reason}). "
            "Next: use the checkpoint's own preprocessor_config.json."
        ) from error
    if outputs != len(checkpoint.labels):
        raise ExportRefused(
            f"config.json: id2label has {len(checkpoint.labels)} labels, and the model {outputs} outputs. Next: correct id2label."
        )


def plan(checkpoint: Checkpoint) -> tuple[Step, ...]:
    """The steps of a checkpoint's processor. Raises ExportRefused."""
    return plan_of(checkpoint.processor)


def plan_of(processor: Any) -> tuple[Step, ...]:
    """The steps of a 🤗 image processor. Raises ExportRefused."""
    return plan_preprocess(type(processor).__name__, processor.to_dict(), getattr(processor, "backend", "pil"))


def render_description(checkpoint: Checkpoint, steps: tuple[Step, ...], settings: Settings) -> str:
    """The text of model.json."""
    described = {
        "format": FORMAT,
        "labels": list(checkpoint.labels),
        "top_k": min(settings.top_k, len(checkpoint.labels)),
        "max_file_bytes": settings.max_file_bytes,
        "max_side": settings.max_side,
        "on_bad_image": settings.on_bad_image,
        "processor": type(checkpoint.processor).__name__,
        "steps": [describe_step(step) for step in steps],
        "precision": settings.precision,
        "opset": OPSET,
        # With dynamic scales an answer depends on the images that are computed with it.
        "may_join": settings.precision != "int8" or settings.calibration != "none",
    }
    return json.dumps(described, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def describe_step(step: Step) -> dict[str, Any]:
    """A step as model.json has it: its fields, and its kind in lower case with underscores."""
    return {"kind": re.sub(r"(?<!^)(?=[A-Z])", "_", type(step).__name__).lower(), **asdict(step)}


def save_quantised(folder: Path, calibration: Iterable[Any]) -> None:
    """Replace a folder's graph by one with products in int8. Raises ExportRefused."""
    model = quantise(folder / MODEL, calibration)
    (folder / WEIGHTS).unlink(missing_ok=True)
    write_normalised(model, folder)


def export_graph(model: Any, size: tuple[int, int]) -> tuple[Any, str]:
    """The model's graph for images of this height and width, and what is special about it. Raises ExportRefused."""
    try:
        return traced(model, size), ""
    except Exception as error:  # the exporter wraps whatever the model raises
        failure = error
    try:
        return traced(with_plain_attention(model), size), ", attention as plain products"
    except Exception:
        reason = " ".join(str(failure.__cause__ or failure).split())[:SHOWN]
        raise ExportRefused(
            f"{type(model).__name__}: PyTorch cannot export it to ONNX ({reason}). Next: use a model of another type."
        ) from failure


def with_plain_attention(model: Any) -> Any:
    """The model, with the same weights, built anew without fused attention: some classes choose their layers when they are built."""
    plain = type(model)._from_config(copy.deepcopy(model.config), attn_implementation="eager")
    plain.load_state_dict(model.state_dict(), assign=True)
    return plain.eval()


def traced(model: Any, size: tuple[int, int]) -> Any:
    """The model with its softmax as an ONNX program, for any number of images."""
    import torch

    class Probabilities(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return torch.softmax(logits_of(self.model(pixel_values=pixel_values)), dim=-1)

    program = torch.onnx.export(
        Probabilities().eval(),
        (torch.zeros(BATCH, 3, *size),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["pixel_values"],
        output_names=["probabilities"],
        dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch")}},
        verbose=False,
    )
    return program.model


def write_normalised(model: Any, folder: Path) -> int:
    """Write the graph without what differs from machine to machine: stack traces and paths. Returns the number of nodes."""
    import onnx_ir as ir

    model.metadata_props.clear()
    model.doc_string = None
    graphs = [model.graph, *model.functions.values()]
    for graph in graphs:
        graph.metadata_props.clear()
        graph.doc_string = None
        for node in ir.traversal.RecursiveGraphIterator(getattr(graph, "graph", graph)):
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
                value.doc_string = None
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    ir.save(model, folder / MODEL, external_data=WEIGHTS if size >= MOST_BYTES else None)
    return sum(1 for _ in model.graph)
