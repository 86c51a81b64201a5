"""Makes exports reproducible: removes from a SavedModel what differs from process to process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HASH_SEED = "0"


def fix_hash_seed() -> None:
    """Restart this program with a fixed hash seed unless it has one: TensorFlow iterates over sets while it traces."""
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 (the same program)


def normalise(savedmodel: Path) -> None:
    """Delete the fingerprint (it differs each time and nothing needs it) and write the graph's functions in a fixed order."""
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
