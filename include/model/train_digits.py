"""Train digits-vit, the model that ships with Slipway: a small Vision Transformer for scikit-learn's handwritten digits.

Run it in the exporter's environment. It writes `checkpoint/` (a folder source for `export.py`) and `golden/` (held-out
digits as PNG files), and prints the accuracy on the held-out digits.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from transformers import TFViTForImageClassification, ViTImageProcessor

SEED = 20
TRAINED_ON = 1_500  # of the 1,797 bundled digits; the other 297 are held out
IMAGE_PX = 96  # the 8x8 digits are drawn at this size, so that the processor has to resize them to 32 px
GOLDEN_NAMES = {3: "three", 7: "seven", 8: "eight"}
GOLDEN_CONFIDENCE = 0.95  # least confidence of a golden image: well above what the model file promises


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """PIL images, and the digit that each one shows."""

    images: list[Image.Image]
    labels: np.ndarray


def load_digits() -> tuple[Digits, Digits]:
    """All bundled digits as RGB images: the training set and the held-out set."""
    from sklearn.datasets import load_digits as bundled

    digits = bundled()
    order = np.random.default_rng(SEED).permutation(len(digits.images))
    images = [draw(digits.images[index]) for index in order]
    labels = digits.target[order].astype(np.int64)
    return (
        Digits(images=images[:TRAINED_ON], labels=labels[:TRAINED_ON]),
        Digits(images=images[TRAINED_ON:], labels=labels[TRAINED_ON:]),
    )


def draw(ink: np.ndarray) -> Image.Image:
    """Draw a digit, given as 8x8 ink values from 0 to 16, in dark grey on white."""
    grey = (255 - np.clip(ink, 0, 16) * 14).astype(np.uint8)
    return Image.fromarray(grey).resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BICUBIC).convert("RGB")


def build() -> tuple[TFViTForImageClassification, ViTImageProcessor]:
    """An untrained model of 0.2 million parameters, and its image processor."""
    from transformers import TFViTForImageClassification, ViTConfig, ViTImageProcessor

    names = {digit: str(digit) for digit in range(10)}
    config = ViTConfig(
        image_size=32,
        patch_size=8,
        num_channels=3,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=192,
        id2label=names,
        label2id={name: digit for digit, name in names.items()},
    )
    half = [0.5, 0.5, 0.5]
    processor = ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=half, image_std=half)
    return TFViTForImageClassification(config), processor


def pixels(processor: ViTImageProcessor, digits: Digits) -> np.ndarray:
    """The processor's output for every image, as float32 of shape (images, 3, 32, 32)."""
    batch = processor(digits.images, return_tensors="np", input_data_format="channels_last")
    return batch["pixel_values"].astype(np.float32)


def fit(model: TFViTForImageClassification, images: np.ndarray, labels: np.ndarray, *, epochs: int) -> None:
    """Train the model in place; print one line of progress every few epochs."""
    import tensorflow as tf

    batch = 50  # 30 steps per epoch, all of them full
    steps = len(images) // batch
    schedule = tf.keras.optimizers.schedules.CosineDecay(2e-3, steps * epochs, alpha=0.01)
    optimizer = tf.keras.optimizers.legacy.Adam(schedule)
    loss_of = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(jit_compile=False)
    def step(inputs: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(targets, model(pixel_values=inputs, training=True).logits)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    shuffle = np.random.default_rng(SEED)
    for epoch in range(1, epochs + 1):
        order = shuffle.permutation(len(images))[: steps * batch].reshape(steps, batch)
        losses = [step(images[chosen], labels[chosen]) for chosen in order]
        if epoch % 5 == 0 or epoch == epochs:
            print(f"epoch {epoch} of {epochs}: loss {float(np.mean(losses)):.4f}", flush=True)


def probabilities(model: TFViTForImageClassification, images: np.ndarray) -> np.ndarray:
    """The model's probability for each of the ten digits, one row per image."""
    import tensorflow as tf

    return tf.nn.softmax(model(pixel_values=images, training=False).logits).numpy()


def save_golden(folder: Path, held_out: Digits, predicted: np.ndarray) -> None:
    """Save one held-out image for each golden name: the first that the model classifies correctly with high confidence."""
    folder.mkdir(parents=True, exist_ok=True)
    for digit, name in GOLDEN_NAMES.items():
        sure = [
            i for i, label in enumerate(held_out.labels) if label == digit and predicted[i, digit] > GOLDEN_CONFIDENCE
        ]
        if not sure:
            raise SystemExit(
                f"golden/{name}.png: no held-out {digit} is classified with confidence above {GOLDEN_CONFIDENCE}. Next: train for more --epochs."
            )
        held_out.images[sure[0]].save(folder / f"{name}.png", optimize=True)
        print(f"golden/{name}.png: label {digit}, confidence {predicted[sure[0], digit]:.4f}")


def main(arguments: list[str] | None = None) -> int:
    """Train, save and print the accuracy. Returns 0 when the checkpoint is written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint/ and golden/")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the 1,500 digits (default: %(default)s)")
    options = parser.parse_args(arguments)
    started = time.monotonic()

    import tensorflow as tf

    tf.keras.utils.set_random_seed(SEED)
    print(f"loading TensorFlow … {time.monotonic() - started:.1f} s", flush=True)
    train, held_out = load_digits()
    model, processor = build()
    began = time.monotonic()
    fit(model, pixels(processor, train), train.labels, epochs=options.epochs)
    print(f"training … {time.monotonic() - began:.1f} s", flush=True)

    predicted = probabilities(model, pixels(processor, held_out))
    accuracy = float(np.mean(predicted.argmax(axis=1) == held_out.labels))
    checkpoint = options.out / "checkpoint"
    model.save_pretrained(checkpoint, safe_serialization=True)
    (checkpoint / "model.safetensors").chmod(0o644)  # safetensors makes it readable only by its owner
    processor.save_pretrained(checkpoint)
    save_golden(options.out / "golden", held_out, predicted)
    print(f"held-out accuracy: {accuracy:.4f} ({len(held_out.labels)} digits)")
    print(f"mean confidence: {float(np.mean(predicted.max(axis=1))):.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
