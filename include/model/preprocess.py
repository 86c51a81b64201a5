"""🤗's image processors inside TensorFlow's graph: runs the steps that `processor.py` plans."""

from __future__ import annotations

from typing import Any

from errors import ExportRefused
from processor import CenterCrop, FlipChannels, Normalise, Rescale, Resize, ResizeShortestEdge, Step, plan_preprocess
from resize import resize

COMPUTED = Resize | ResizeShortestEdge | CenterCrop | Rescale | Normalise | FlipChannels


def plan(processor: str, config: dict[str, Any]) -> tuple[Step, ...]:
    """The steps of a processor, all of which the graph can compute. Raises ExportRefused."""
    steps = plan_preprocess(processor, config)
    for step in steps:
        if not isinstance(step, COMPUTED):
            raise ExportRefused(
                f"preprocessor_config.json: the step {step} of {processor} is not supported in TensorFlow's graph. "
                "Next: serve it on the runtime onnxruntime."
            )
    return steps


def apply(steps: tuple[Step, ...], image: Any) -> Any:
    """Run all steps on a uint8 image (height, width, 3). Returns float32 (3, height, width)."""
    import tensorflow as tf

    value = image
    for step, following in zip(steps, (*steps[1:], None), strict=True):
        value = _apply(step, value, following)
    return tf.transpose(tf.cast(value, tf.float32), [2, 0, 1])


def _apply(step: Step, value: Any, following: Step | None) -> Any:
    import tensorflow as tf

    match step:
        case Resize() | ResizeShortestEdge():
            window = (following.height, following.width) if isinstance(following, CenterCrop) else None
            height, width = _target(step, value)
            resized = resize(value, height, width, step.filter, window)  # computes only what the crop keeps
            return tf.ensure_shape(resized, [*(window or _shape(step)), 3])
        case CenterCrop():
            return value  # done in the resize before it; plan_preprocess refuses a crop without one
        case Rescale():
            return tf.cast(tf.cast(value, tf.float64) * step.factor, tf.float32)  # in 64 bits first, as 🤗 does
        case Normalise():
            # Not a plain division: the optimiser would multiply by the reciprocal, which gives other values.
            return tf.math.divide_no_nan(tf.cast(value, tf.float32) - tf.constant(step.mean), tf.constant(step.std))
        case FlipChannels():
            return tf.reverse(value, axis=[2])


def _target(step: Resize | ResizeShortestEdge, value: Any) -> tuple[Any, Any]:
    """The height and width to resize the whole image to."""
    import tensorflow as tf

    if isinstance(step, Resize):
        return tf.constant(step.height), tf.constant(step.width)
    height, width = tf.unstack(tf.shape(value)[:2])
    shorter = tf.minimum(height, width)
    return step.edge * height // shorter, step.edge * width // shorter


def _shape(step: Resize | ResizeShortestEdge) -> tuple[int | None, int | None]:
    return (step.height, step.width) if isinstance(step, Resize) else (None, None)
