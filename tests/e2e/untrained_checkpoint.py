"""Run in the exporter's environment: makes a checkpoint with random weights, and a golden image for it.

`untrained_checkpoint.py SHAPE FOLDER` writes both below the folder and prints the answer of 🤗's own model to the image, as JSON.
"""

import json
import sys
from pathlib import Path

import tensorflow as tf
from golden import reference_probabilities
from sample_images import encoded, exif, scene
from served_graph import load_checkpoint
from transformers import TFViTForImageClassification, ViTConfig, ViTImageProcessor

LABELS = ["Straße", "ćma", "猫", "шум", "żółw", "naïve", "🦆"]
SHAPES = {
    "odd": {
        "labels": LABELS,
        "config": {"image_size": 48, "patch_size": 12, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                   "intermediate_size": 48},
        "processor": {"image_mean": [0.1, 0.4, 0.7], "image_std": [0.2, 0.5, 0.3], "resample": 3},
    },
    "vit-b16": {"labels": [f"class {number}" for number in range(1000)], "config": {}, "processor": {}},  # the defaults of 🤗
}  # fmt: skip


def main() -> None:
    """Make the checkpoint and the image; by its EXIF the image lies on its side."""
    shape, root = SHAPES[sys.argv[1]], Path(sys.argv[2])
    tf.keras.utils.set_random_seed(11)
    names = dict(enumerate(shape["labels"]))
    config = ViTConfig(**shape["config"], id2label=names, label2id={name: number for number, name in names.items()})
    model = TFViTForImageClassification(config)
    model.build_in_name_scope()
    for weight in model.weights:
        if "classifier" in weight.name and "kernel" in weight.name:
            weight.assign(weight * 40)  # so that its confidence is high
    model.save_pretrained(root / "checkpoint", safe_serialization=True)
    size = {"height": config.image_size, "width": config.image_size}
    ViTImageProcessor(size=size, **shape["processor"]).save_pretrained(root / "checkpoint")
    image = encoded(scene(150, 100), "JPEG", quality=90, exif=exif(6))
    (root / "side.jpg").write_bytes(image)
    checkpoint = load_checkpoint(root / "checkpoint")
    probabilities = reference_probabilities(checkpoint, image)
    print(json.dumps({"label": checkpoint.labels[probabilities.argmax()], "confidence": float(probabilities.max())}))


if __name__ == "__main__":
    main()
