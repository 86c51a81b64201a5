"""Refuses a SavedModel that could do more than compute: its operations run in the model server, with the server's rights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from errors import ExportRefused

LIST = Path(__file__).with_name("operations.txt")
# The operations on files, and which of their inputs name one.
FILES = {"SaveV2": (0,), "RestoreV2": (0,), "MergeV2Checkpoints": (0, 1)}
# How the saver makes a name from the one that the server gives: which inputs count, None for all.
NAMING = {
    "Identity": (0,),
    "StringJoin": None,
    "Pack": None,
    "ShardedFilename": (0,),
    "Select": (1, 2),
    "SelectV2": (1, 2),
}
PART = re.compile(rb"(\.|/|_temp(_[0-9a-f]+)?/)part")  # what the saver adds to the name


@cache
def allowed() -> frozenset[str]:
    """The operations that a SavedModel may hold."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def check_operations(savedmodel: Path, *, where: str) -> None:
    """Refuse a SavedModel with an operation that is not on the list, or one that names a file by itself. Raises ExportRefused."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        proto = saved_model_pb2.SavedModel.FromString((savedmodel / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise ExportRefused(f"{where}: its saved_model.pb is damaged. Next: save the model again.") from error
    for meta in proto.meta_graphs:
        graph = meta.graph_def
        for node in (*graph.node, *(node for function in graph.library.function for node in function.node_def)):
            if node.op not in allowed():
                raise ExportRefused(
                    f"{where}: its graph has the operation {node.op!r}, which is not in include/model/operations.txt. "
                    "Next: save the model without it: a served model may compute, and nothing else."
                )
        for name in _foreign_names(meta):
            raise ExportRefused(
                f"{where}: its operation {name!r} names a file by itself. Next: find out who made the SavedModel."
            )


def _foreign_names(meta: Any) -> Iterator[str]:
    """The operations on files whose file is not the one that the server gives to the saver."""
    saver = meta.saver_def
    filename = saver.filename_tensor_name.partition(":")[0]
    own = {saver.save_tensor_name.partition(":")[0], saver.restore_op_name}
    graph = {node.name: node for node in meta.graph_def.node}
    yield from (node.name for node in graph.values() if not _names_only(node, graph, {filename}))
    functions = {function.signature.name: function for function in meta.graph_def.library.function}
    with_files = {name for name, function in functions.items() if any(node.op in FILES for node in function.node_def)}
    for function in functions.values():
        nodes = {node.name: node for node in function.node_def}
        first = {argument.name for argument in function.signature.input_arg[:1]}
        yield from (node.name for node in nodes.values() if not _names_only(node, nodes, first))
    callers = [node for function in functions.values() for node in function.node_def]
    yield from (node.name for node in callers if with_files & set(called(node)))
    for node in graph.values():
        is_saver = node.name in own and node.input and _node(node.input[0]) == filename
        if with_files & set(called(node)) and not is_saver:
            yield node.name


def _names_only(node: Any, nodes: dict[str, Any], given: set[str]) -> bool:
    """Whether a node is no operation on files, or all its files' names come from `given` and what the saver adds."""
    inputs = [name for name in node.input if not name.startswith("^")]
    return all(_is_given(inputs[place], nodes, given) for place in FILES.get(node.op, ()) if place < len(inputs))


def _is_given(tensor: str, nodes: dict[str, Any], given: set[str], depth: int = 0) -> bool:
    name = _node(tensor)
    if name in given:
        return True
    node = nodes.get(name)
    if node is None or depth > len(NAMING) * 2:
        return False
    if node.op == "Const":
        return all(PART.fullmatch(value) for value in node.attr["value"].tensor.string_val)
    if node.op not in NAMING:
        return False
    inputs = [found for found in node.input if not found.startswith("^")]
    places = NAMING[node.op]
    wanted = inputs if places is None else [inputs[place] for place in places if place < len(inputs)]
    return all(_is_given(found, nodes, given, depth + 1) for found in wanted)


def _node(tensor: str) -> str:
    """The name of the node, or of the argument, that a tensor comes from."""
    return tensor.lstrip("^").partition(":")[0]


def called(node: Any) -> Iterator[str]:
    """The functions that a node names."""
    for value in node.attr.values():
        for function in (value.func, *value.list.func):
            if function.name:
                yield function.name
