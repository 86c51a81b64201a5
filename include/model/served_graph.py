"""The SavedModel: image files in, labels and confidences out, with everything between inside the graph.

Three signatures, each for any number of images of any sizes:

serving_default  string_input, files in web-safe base64        label, confidence
raw_bytes        image_bytes, files as they are                label, confidence
top_k            image_bytes, files as they are                labels, scores: the k likeliest, best first
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decode import Limits, read_base64, read_image
from preprocess import Step, apply, plan_preprocess
from refused import ExportRefused
from reproducible import normalise
from request import Settings
from weights import load_model, weights_hash

MARK = "!bad image: "  # how the label of an image that is not answered begins, where bad ones are marked


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A loaded 🤗 model and its own (slow, PIL) image processor."""

    model: Any
    processor: Any
    labels: tuple[str, ...]
    weights_hash: str  # sha256:… of the weights' files


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
    return Checkpoint(model=model, processor=processor, labels=labels, weights_hash=weights_hash(folder))


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


def save_served_graph(checkpoint: Checkpoint, folder: Path, settings: Settings) -> None:
    """Write the SavedModel with its three signatures."""
    import tensorflow as tf

    reader = ImageReader(checkpoint, settings)
    labels = tf.constant(checkpoint.labels)
    count = min(settings.top_k, len(checkpoint.labels))

    # One function for all signatures, so that the model is in the graph once. AutoGraph stays on: Swin's code needs it.
    @tf.function(input_signature=[tf.TensorSpec([None, *reader.shape], tf.float32)])
    def chances(pixels: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(checkpoint.model(pixel_values=pixels, training=False).logits, axis=-1)

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

    # Only the weights and these functions are saved: the Keras model itself would bring dozens of functions along.
    module = tf.Module()
    module.weights = list(checkpoint.model.weights)
    module.functions = [serving_default, raw_bytes, top_k]
    signatures = {"serving_default": serving_default, "raw_bytes": raw_bytes, "top_k": top_k}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    normalise(folder)


class ImageReader:
    """Reads a batch of image files into what the model takes, in the way that the settings ask for."""

    def __init__(self, checkpoint: Checkpoint, settings: Settings) -> None:
        """Plan the steps; what the graph cannot do is refused."""
        import tensorflow as tf

        self.steps = plan_preprocess(type(checkpoint.processor).__name__, checkpoint.processor.to_dict())
        self.shape = (3, *_output_size(self.steps))
        self._limits = Limits(max_file_bytes=settings.max_file_bytes, max_side=settings.max_side)
        self._marks = settings.on_bad_image == "mark"
        # A function of its own, so that it is in the graph once, however many signatures use it.
        self.prepare = tf.function(self._prepare, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)

    def read(self, files: Any, *, base64: bool) -> tuple[Any, Any]:
        """The pixels of a batch, and for each image an empty text or why it is not answered.

        Without marks the first bad image raises INVALID_ARGUMENT for the whole batch.
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


def _output_size(steps: tuple[Step, ...]) -> tuple[int, int]:
    """The height and width that the steps end in."""
    sized = [step for step in steps if hasattr(step, "height")]
    return sized[-1].height, sized[-1].width
