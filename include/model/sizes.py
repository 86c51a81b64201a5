"""The sizes of a traced model's tensors, as constants and multiples of the batch.

TensorFlow knows few of them while the batch is open. So the model is made again for a batch of two and for one of three: what
is equal in both is a constant, and what grows with the batch is a multiple of it. Nothing is computed for that.
"""

from __future__ import annotations

from typing import Any

Size = tuple[int, ...]  # of each axis; -k stands for k times the batch
BATCHES = (2, 3)
# Attributes that name operations of the old graph, that TensorFlow derives again, or that only training needs.
LEFT_OUT = {"_class", "_output_shapes", "_gradient_op_type"}


def read_sizes(traced: Any) -> dict[str, Size | None]:
    """The size of each tensor by its name; None if it depends on anything but the batch."""
    first, second = (_sizes_at(traced, batch) for batch in BATCHES)
    return {name: _as_size(first[name], second[name]) for name in first}


def _sizes_at(traced: Any, batch: int) -> dict[str, Any]:
    """TensorFlow's own sizes of all tensors at that batch."""
    import tensorflow as tf

    given, found = traced.inputs[0], {}

    def model(pixels: Any) -> Any:
        made = begin(traced, pixels)
        for operation in traced.graph.get_operations():
            if any(output.name not in made for output in operation.outputs):
                outputs = again(operation, [made[tensor.name] for tensor in operation.inputs])
                made.update(zip((output.name for output in operation.outputs), outputs, strict=True))
        found.update({name: tensor.shape for name, tensor in made.items()})
        return made[traced.outputs[0].name]

    tf.function(model, autograph=False).get_concrete_function(tf.TensorSpec([batch, *given.shape[1:]], given.dtype))
    return found


def _as_size(first: Any, second: Any) -> Size | None:
    if not (first.is_fully_defined() and second.is_fully_defined() and first.rank == second.rank):
        return None
    axes = [_as_axis(*pair) for pair in zip(first, second, strict=True)]
    multiples = sum(axis is not None and axis < 0 for axis in axes)
    return None if None in axes or multiples > 1 else tuple(axes)


def _as_axis(first: int, second: int) -> int | None:
    if first == second:
        return first
    times = first // BATCHES[0]
    return -times if (first, second) == (times * BATCHES[0], times * BATCHES[1]) else None


def begin(traced: Any, given: Any) -> dict[str, Any]:
    """Prepare the graph that is being traced for the model's operations. Returns what they start from, by its old names."""
    import tensorflow as tf

    definition = traced.graph.as_graph_def()
    functions = tf.compat.v1.GraphDef(library=definition.library, versions=definition.versions)
    tf.graph_util.import_graph_def(functions, name="")  # the branches and loops of its operations
    return {traced.inputs[0].name: given} | {inside.name: outside for outside, inside in traced.graph.captures}


def again(operation: Any, inputs: list[Any]) -> list[Any]:
    """The outputs of the same operation on other inputs."""
    import tensorflow as tf

    attributes = {name: held for name, held in operation.node_def.attr.items() if name not in LEFT_OUT}
    types = [output.dtype for output in operation.outputs]
    graph = tf.compat.v1.get_default_graph()
    return list(graph.create_op(operation.type, inputs, types, name=operation.name, attrs=attributes).outputs)
