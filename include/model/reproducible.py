"""The same checkpoint gives the same bytes: what differs from process to process is taken out of a SavedModel."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HASH_SEED = "0"


def fix_hash_seed() -> None:
    """Start this program again with a fixed hash seed, unless it has one: TensorFlow walks sets as it traces."""
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 (the very same program)


def normalise(savedmodel: Path) -> None:
    """Drop the fingerprint (it differs each time, and nothing needs it) and write the graph in one fixed order."""
    from tensorflow.core.protobuf import saved_model_pb2

    (savedmodel / "fingerprint.pb").unlink(missing_ok=True)
    file = savedmodel / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for graph in proto.meta_graphs:
        library = graph.graph_def.library.function
        ordered = sorted(library, key=lambda function: function.signature.name)
        del library[:]
        library.extend(ordered)
    file.write_bytes(proto.SerializeToString(deterministic=True))
