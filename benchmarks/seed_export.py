"""Export a checkpoint as the seed does: 🤗's TensorFlow class and a graph that decodes, resizes and normalises."""

import json
import sys
from pathlib import Path

from benchmarks.graph_speed import save_seed_graph


def main(checkpoint: Path, folder: Path) -> None:
    """Write the SavedModel of a checkpoint."""
    from transformers import TFViTForImageClassification

    model = TFViTForImageClassification.from_pretrained(checkpoint)
    labels = [model.config.id2label[number] for number in sorted(model.config.id2label)]
    side = json.loads((checkpoint / "preprocessor_config.json").read_text())["size"]["height"]
    save_seed_graph(model, labels, folder, side=side)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
