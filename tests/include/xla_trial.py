"""Takes SavedModels with and without marks for XLA as the exporter takes an archive's; conftest.py runs this in its environment.

Its argument is a folder for its output. Prints JSON: for each model why it is refused, and what it answers where TensorFlow refuses
to compile with XLA, as TensorFlow Serving does by default.
"""

import ctypes
import json
import sys
from pathlib import Path

import tensorflow as tf
from errors import ExportRefused
from savedmodel import take_savedmodel
from xla import leave_xla_out


def refuse_xla_in_tensorflow() -> None:
    """Let TensorFlow refuse to compile with XLA until this process ends."""
    ctypes.CDLL(str(Path(tf.__file__).with_name("libtensorflow_cc.so.2")))._ZN10tensorflow21DisableXlaCompilationEv()


def double(*, jit_compile: bool | None):
    """A function with this setting, traced once."""
    made = tf.function(lambda x: x * 2.0, input_signature=[tf.TensorSpec([None], tf.float32)], jit_compile=jit_compile)
    made.get_concrete_function()
    return made


def save(folder: Path, confidence, *unused) -> None:
    """Save a model that computes its confidence with this function, and holds others that nothing calls."""
    module = tf.Module()
    module.unused = list(unused)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="string_input")])
    def serving_default(string_input):
        count = tf.size(string_input)
        return {"label": tf.fill([count], "7"), "confidence": confidence(tf.fill([count], 0.25))}

    module.answer = serving_default
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serving_default})


def main() -> None:
    """Save, take and ask each model."""
    root = Path(sys.argv[1])
    compiled = double(jit_compile=True)
    save(root / "compiled", compiled)
    save(root / "compiled in a function", tf.function(lambda x: compiled(x) + 0.0))
    save(root / "marks left out", compiled)
    leave_xla_out(root / "marks left out")
    save(root / "jit_compile=False", double(jit_compile=False))
    save(root / "compiled but not called", double(jit_compile=None), compiled)
    folders = sorted(root.iterdir())
    refusals = {folder.name: refusal(folder) for folder in folders}
    refuse_xla_in_tensorflow()
    print(json.dumps({name: {"refused": words, "answer": answer(root / name)} for name, words in refusals.items()}))


def refusal(folder: Path) -> str | None:
    """Why it is refused, or None. One that is taken stays in its place."""
    taken = folder.with_name("taken")
    try:
        take_savedmodel(folder, taken, where="here")
    except ExportRefused as refused:
        return str(refused)
    taken.rename(folder)
    return None


def answer(folder: Path) -> list[float] | str:
    """The model's confidence for one request, or TensorFlow's message."""
    try:
        return (
            tf.saved_model.load(str(folder))
            .signatures["serving_default"](tf.constant(["x"]))["confidence"]
            .numpy()
            .tolist()
        )
    except tf.errors.InternalError as error:
        return error.message


if __name__ == "__main__":
    main()
