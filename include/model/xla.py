"""Keeps XLA out of a SavedModel: TensorFlow Serving refuses to compile with it unless a flag allows it.

A function marked for XLA (Keras marks convolutions in groups; `jit_compile=True`) has no other way to run: the server answers
INTERNAL, `XLA compilation disabled`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from errors import ExportRefused
from operations import called

MUST_COMPILE = "_XlaMustCompile"  # TensorFlow's attribute of what only XLA may run; it may also be false


def leave_xla_out(savedmodel: Path) -> None:
    """Let a SavedModel's functions run without XLA, on TensorFlow's own kernels."""
    from tensorflow.core.protobuf import saved_model_pb2

    file = savedmodel / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for meta in proto.meta_graphs:
        functions = meta.graph_def.library.function
        nodes = [node for function in functions for node in function.node_def]
        for item in (*meta.graph_def.node, *functions, *nodes):
            if MUST_COMPILE in item.attr:
                del item.attr[MUST_COMPILE]
    file.write_bytes(proto.SerializeToString(deterministic=True))


def refuse_xla(savedmodel: Path, *, where: str) -> None:
    """Refuse a SavedModel of others that cannot run without XLA. Raises ExportRefused.

    Its marks stay: without its author's model to compare with, nothing would prove that it computes the same without XLA.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel.FromString((savedmodel / "saved_model.pb").read_bytes())
    for meta in proto.meta_graphs:
        for name in _compiled(meta.graph_def):
            raise ExportRefused(
                f"{where}: {name!r} runs only if XLA compiles it, which TensorFlow Serving refuses by default. "
                "Next: save the model without jit_compile=True."
            )


def _compiled(graph: Any) -> Iterator[str]:
    """What the graph runs and only XLA may run. A function that nothing calls never runs."""
    functions = {function.signature.name: function for function in graph.library.function}
    nodes = list(graph.node)
    while nodes:
        node = nodes.pop()
        if node.attr[MUST_COMPILE].b:
            yield node.name
        for name in called(node):
            function = functions.pop(name, None)  # each is looked at once
            if function is None:
                continue
            if function.attr[MUST_COMPILE].b:
                yield name
            nodes.extend(function.node_def)
