"""Makes hostile models, and a good one with the most operations; conftest.py runs this in the exporter's environment. Its arguments: a checkpoint's folder, one for the output.

Each SavedModel has the signature that clients use, and does something else besides. Prints why each is refused, by name, as JSON.
"""

import json
import shutil
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import tensorflow as tf
from errors import ExportRefused
from operations import check_operations
from request import Settings
from served_graph import load_checkpoint, save_served_graph
from weights import refuse_other_files

SECRET = b"a secret of the worker"


def read_a_file(_):
    """The label is a file of the server."""
    return tf.io.read_file("/proc/self/environ")


def write_a_file(root):
    """A request writes a file."""
    with tf.control_dependencies([tf.io.write_file(str(root / "written"), "x")]):
        return tf.constant("7")


def save_a_file(root):
    """A request writes a checkpoint: the saver does that too, but not at a place of its own."""
    op = tf.raw_ops.SaveV2(
        prefix=str(root / "saved"), tensor_names=["a"], shape_and_slices=[""], tensors=[tf.constant(1.0)]
    )
    with tf.control_dependencies([op]):
        return tf.constant("7")


def restore_a_file(root):
    """The label is part of another model's checkpoint."""
    return tf.raw_ops.RestoreV2(
        prefix=str(root / "other"), tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.string]
    )[0]


def look_up_a_file(_):
    """The label is in a table that the server reads from a file."""
    if not KEPT:
        with tf.init_scope():
            places = (tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE)
            KEPT.append(tf.lookup.StaticHashTable(tf.lookup.TextFileInitializer("/etc/passwd", *places), "7"))
    return KEPT[0].lookup(tf.constant(0, tf.int64))


def print_to_a_file(root):
    """A request appends to a file."""
    with tf.control_dependencies([tf.raw_ops.PrintV2(input="x", output_stream=f"file://{root}/printed")]):
        return tf.constant("7")


KEPT = []


def save(label, root: Path, place: Path) -> None:
    """Save a model with this label, packed as an archive."""
    module, folder = tf.Module(), place.with_name(f"{place.name}-folder") / "1"
    module.weight = tf.Variable(0.9)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="string_input")])
    def serving_default(string_input):
        count = tf.size(string_input)
        return {"label": tf.fill([count], label(root)), "confidence": tf.fill([count], module.weight)}

    serving_default.get_concrete_function()  # fills KEPT
    module.kept, module.answer = list(KEPT), serving_default
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serving_default})
    with tarfile.open(place, "w:gz") as tar:
        tar.add(folder, "1")


def save_h5(checkpoint: Path, folder: Path, *, link: bool) -> None:
    """A checkpoint whose weights are in HDF5, one of them in another file."""
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    with h5py.File(folder / "tf_model.h5", "w") as file:
        group = file.create_group("vit").create_group("embeddings")
        group.create_dataset("good", data=np.zeros(4, np.float32))
        if link:
            group["bad"] = h5py.ExternalLink(str(folder.parent / "secret"), "/")
        else:
            group.create_dataset(
                "bad", (len(SECRET),), np.uint8, external=[(str(folder.parent / "secret"), 0, len(SECRET))]
            )


def main() -> None:
    """Make all of them, and look at each as the exporter does before it loads it."""
    checkpoint, root = map(Path, sys.argv[1:])
    refusals = {}
    (root / "secret").write_bytes(SECRET)
    for label in (read_a_file, write_a_file, save_a_file, restore_a_file, look_up_a_file, print_to_a_file):
        save(label, root, root / label.__name__)
        refusals[label.__name__] = refusal(
            lambda name=label.__name__: check_operations(root / f"{name}-folder" / "1", where="here")
        )
    for link in (False, True):
        folder = root / f"h5-{'link' if link else 'storage'}"
        save_h5(checkpoint, folder, link=link)
        refusals[folder.name] = refusal(lambda file=folder / "tf_model.h5": refuse_other_files(file))
    marking = root / "marking"
    save_served_graph(load_checkpoint(checkpoint), marking, replace(Settings(), on_bad_image="mark"))
    refusals["marking"] = refusal(lambda: check_operations(marking, where="here"))
    print(json.dumps(refusals))


def refusal(check):
    """Why a check refuses; None if it does not."""
    try:
        check()
    except ExportRefused as refused:
        return str(refused)
    return None


if __name__ == "__main__":
    main()
