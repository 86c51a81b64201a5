"""Builds the SavedModel: image files in, labels and confidences out, with all processing in the graph.

Three signatures, each for any number of images of any sizes:

serving_default  string_input, files in web-safe base64        label, confidence
raw_bytes        image_bytes, files as they are                label, confidence
top_k            image_bytes, files as they are                labels, scores: the k most likely, best first
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from decode import Limits, read_base64, read_image
from errors import ExportRefused
from faster_graph import faster
from preprocess import apply, plan
from processor import output_size
from reference_pixels import prepare
from reproducible import normalise
from request import Settings
from toolchain import Checkpoint, read_labels
from weights import load_model, weights_hash
from xla import leave_xla_out

MARK = "!bad image: "  # prefix of a bad image's label if bad images are marked


def load_checkpoint(folder: Path) -> Checkpoint:
    """Load the model and processor of a checkpoint folder. Raises ExportRefused if it cannot be served."""
    from transformers import AutoConfig, AutoImageProcessor, TFAutoModelForImageClassification

    try:
        only = {"local_files_only": True, "trust_remote_code": False}  # no network, no code from the checkpoint
        config = AutoConfig.from_pretrained(folder, **only)
        processor = AutoImageProcessor.from_pretrained(folder, use_fast=False, **only)
    except Exception as error:  # 🤗 raises a dozen types of errors for invalid files
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
    except ExportRefused:
        raise
    except Exception as error:  # the same, and SafetensorError has no base class but Exception
        raise ExportRefused(f"{folder}: {_first_line(error)} Next: check its weights.") from error
    _refuse_missing_weights(folder, info)
    labels = read_labels(config.id2label, where=f"{folder}/config.json")
    return Checkpoint(
        model=model,
        processor=processor,
        labels=labels,
        weights_hash=weights_hash(folder),
        parameters=int(sum(weight.shape.num_elements() for weight in model.weights)),
        prepare=lambda pixels: prepare(processor, pixels),
        logits=lambda prepared: model(pixel_values=prepared, training=False).logits.numpy()[0],
    )


def _refuse_missing_weights(folder: Path, info: dict[str, Any]) -> None:
    """Refuse a checkpoint that lacks weights: 🤗 only warns and fills them with random numbers."""
    missing = sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in info.get(kind) or ())
    if missing:
        raise ExportRefused(
            f"{folder}: {len(missing)} weights are missing or have the wrong shape (first: {missing[0]}). "
            "Next: use a checkpoint that was trained for image classification."
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".") + "."


def save_served_graph(checkpoint: Checkpoint, folder: Path, settings: Settings) -> str:
    """Write the SavedModel with its three signatures. Returns in one line how the model's graph was made."""
    import tensorflow as tf

    reader = ImageReader(checkpoint, settings)
    labels = tf.constant(checkpoint.labels)
    count = min(settings.top_k, len(checkpoint.labels))

    # AutoGraph stays on: Swin's code needs it.
    @tf.function(input_signature=[tf.TensorSpec([None, *reader.shape], tf.float32)])
    def model(pixels: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(checkpoint.model(pixel_values=pixels, training=False).logits, axis=-1)

    served = faster(model)
    chances = served.function  # one function for all signatures, so that the model is in the graph once

    def answer(files: tf.Tensor, *, base64: bool) -> dict[str, tf.Tensor]:
        pixels, why = reader.read(files, base64=base64)
        found, is_good = chances(pixels), why == ""
        best = tf.gather(labels, tf.argmax(found, axis=-1))
        return {
            "label": tf.where(is_good, best, tf.strings.join([MARK, why])),
            "confidence": tf.where(is_good, tf.reduce_max(found, axis=-1), 0.0),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="string_input")], autograph=False)
    def serving_default(string_input: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(string_input, base64=True)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def raw_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(image_bytes, base64=False)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def top_k(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels, why = reader.read(image_bytes, base64=False)
        scores, places = tf.math.top_k(chances(pixels), count)
        is_good = (why == "")[:, None]
        marked = tf.concat([tf.strings.join([MARK, why])[:, None], tf.fill([tf.size(why), count - 1], "")], axis=1)
        return {
            "labels": tf.where(is_good, tf.gather(labels, places), marked),
            "scores": tf.where(is_good, scores, 0.0),
        }

    # Only the weights and these functions are saved: the Keras model itself would add dozens of functions.
    module = tf.Module()
    module.weights = list(checkpoint.model.weights)
    module.functions = [serving_default, raw_bytes, top_k]
    signatures = {"serving_default": serving_default, "raw_bytes": raw_bytes, "top_k": top_k}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    leave_xla_out(folder)
    normalise(folder)
    return served.how


class ImageReader:
    """Turns a batch of image files into the model's input, as the settings say."""

    def __init__(self, checkpoint: Checkpoint, settings: Settings) -> None:
        """Plan the steps. Raises ExportRefused if the graph cannot do one of them."""
        import tensorflow as tf

        self.steps = plan(type(checkpoint.processor).__name__, checkpoint.processor.to_dict())
        self.shape = (3, *output_size(self.steps))
        self._limits = Limits(max_file_bytes=settings.max_file_bytes, max_side=settings.max_side)
        self._marks = settings.on_bad_image == "mark"
        # A separate function, so that it is in the graph only once for all signatures.
        self.prepare = tf.function(self._prepare, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)

    def pixels(self, data: bytes) -> Any:
        """The model's input for one file, as an array."""
        return self.prepare(data)[0].numpy()

    def read(self, files: Any, *, base64: bool) -> tuple[Any, Any]:
        """The pixels of a batch, and for each image an empty text or why it has no answer.

        If bad images are not marked, the first one raises INVALID_ARGUMENT for the whole batch.
        """
        import tensorflow as tf

        outputs = (tf.TensorSpec(self.shape, tf.float32), tf.TensorSpec([], tf.string))
        if self._marks:
            one = self._marked_base64 if base64 else self.prepare
            return tf.map_fn(one, files, fn_output_signature=outputs)
        files = tf.io.decode_base64(files) if base64 else files
        return tf.map_fn(self._or_refused, (tf.range(tf.size(files)), files), fn_output_signature=outputs)

    def _prepare(self, data: Any) -> tuple[Any, Any]:
        """One file's pixels, and why it is not decoded."""
        image, why = read_image(data, self._limits, catch=self._marks)
        return apply(self.steps, image), why

    def _or_refused(self, item: tuple[Any, Any]) -> tuple[Any, Any]:
        import tensorflow as tf

        place, data = item
        pixels, why = self.prepare(data)
        words = tf.strings.join(["image ", tf.strings.as_string(place + 1), " ", why])
        with tf.control_dependencies([tf.debugging.Assert(why == "", [words])]):
            return tf.identity(pixels), tf.identity(why)

    def _marked_base64(self, text: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        data, why = read_base64(text)
        pixels, why_not = self.prepare(data)
        return pixels, tf.where(why == "", why_not, why)
