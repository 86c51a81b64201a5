"""The SavedModel: images in, label and confidence out, with everything between inside the graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocess import apply, decode, plan_preprocess
from refused import ExportRefused
from reproducible import normalise
from weights import load_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A loaded 🤗 model and its own (slow, PIL) image processor."""

    model: Any
    processor: Any
    labels: tuple[str, ...]


def load_checkpoint(folder: Path) -> Checkpoint:
    """The model and processor in a checkpoint folder; what cannot be served is refused by name."""
    from transformers import AutoConfig, AutoImageProcessor, TFAutoModelForImageClassification

    try:
        only = {"local_files_only": True, "trust_remote_code": False}  # no network, no code of the checkpoint's
        config = AutoConfig.from_pretrained(folder, **only)
        processor = AutoImageProcessor.from_pretrained(folder, use_fast=False, **only)
    except Exception as error:  # 🤗 raises a dozen kinds for files that are not what they should be
        raise ExportRefused(
            f"{folder}: {_first_line(error)} Next: use a 🤗 image-classification checkpoint."
        ) from error
    if type(config) not in TFAutoModelForImageClassification._model_mapping:
        raise ExportRefused(
            f"{folder}/config.json: model type {config.model_type!r} has no TensorFlow class for image classification "
            "in this transformers. Next: use e.g. a ViT, DeiT, Swin, ConvNeXt or MobileViT checkpoint."
        )
    try:
        model, info = load_model(folder, config)
    except Exception as error:  # likewise, and SafetensorError is no kin of any other
        raise ExportRefused(f"{folder}: {_first_line(error)} Next: check its weights.") from error
    _refuse_invented_weights(folder, info)
    labels = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    return Checkpoint(model=model, processor=processor, labels=labels)


def _refuse_invented_weights(folder: Path, info: dict[str, Any]) -> None:
    """🤗 fills weights that a checkpoint lacks with random numbers, and only warns; such a model must not be served."""
    lacking = sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in info.get(kind) or ())
    if lacking:
        raise ExportRefused(
            f"{folder}: {len(lacking)} weights are missing or of another shape (first: {lacking[0]}). "
            "Next: use a checkpoint that was trained for image classification."
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".") + "."


def save_served_graph(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the SavedModel; `serving_default` takes web-safe base64 images and gives label and confidence."""
    import tensorflow as tf

    steps = plan_preprocess(type(checkpoint.processor).__name__, checkpoint.processor.to_dict())
    labels = tf.constant(checkpoint.labels)

    @tf.autograph.experimental.do_not_convert
    def pixels(data: tf.Tensor) -> tf.Tensor:
        return apply(steps, decode(data))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="string_input")])
    def serve(string_input: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.io.decode_base64(string_input)
        batch = tf.map_fn(pixels, images, fn_output_signature=tf.float32)
        chances = tf.nn.softmax(checkpoint.model(pixel_values=batch, training=False).logits, axis=-1)
        return {
            "label": tf.gather(labels, tf.argmax(chances, axis=-1)),
            "confidence": tf.reduce_max(chances, axis=-1),
        }

    # Only the weights and this one function are saved: the Keras model itself would bring dozens of functions along.
    module = tf.Module()
    module.weights = list(checkpoint.model.weights)
    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    normalise(folder)
