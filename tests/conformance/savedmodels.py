"""Writes the SavedModels that the conformance suite serves. Run it with the exporter's Python: savedmodels.py FOLDER.

`sample/7` has a signature for each kind of case, and two warmup records. The folder also gets models that cannot be
served.
"""

import shutil
import sys
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

FLOATS = tf.TensorSpec([None], tf.float32, name="x")


class Sample(tf.Module):
    """A signature of each kind that the cases need."""

    @tf.function(input_signature=[FLOATS])
    def half_plus_two(self, x):
        """The arithmetic of TensorFlow Serving's example models."""
        return {"y": 0.5 * x + 2.0}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "a"), tf.TensorSpec([None], tf.float32, "b")])
    def two(self, a, b):
        """Two inputs, two outputs."""
        return {"sum": a + b, "difference": a - b}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "pair")])
    def pairs(self, pair):
        """Rows of two numbers."""
        return {"swapped": tf.reverse(pair, [1])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def text(self, text):
        """The same bytes under a plain name and one that ends in `_bytes`."""
        return {"echo": tf.identity(text), "echo_bytes": tf.identity(text), "length": tf.strings.length(text)}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int32, "small"),
            tf.TensorSpec([None], tf.int64, "large"),
            tf.TensorSpec([None], tf.uint8, "byte"),
            tf.TensorSpec([None], tf.bool, "flag"),
            tf.TensorSpec([None], tf.float64, "fine"),
        ]
    )
    def types(self, small, large, byte, flag, fine):
        """Each type is returned."""
        same = {"small": small, "large": large, "byte": byte, "flag": flag, "fine": fine}
        return {name: tf.identity(value) for name, value in same.items()}

    @tf.function(input_signature=[FLOATS])
    def scalar(self, x):
        """An output without dimensions."""
        return {"total": tf.reduce_sum(x)}

    @tf.function(input_signature=[FLOATS])
    def uneven(self, x):
        """Outputs of different lengths."""
        return {"once": tf.identity(x), "twice": tf.concat([x, x], 0)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float16, "x")])
    def half(self, x):
        """A type that the JSON conversion does not support."""
        return {"y": tf.identity(x)}

    @tf.function(input_signature=[FLOATS])
    def no_negatives(self, x):
        """Refuses a whole batch for one negative number."""
        with tf.control_dependencies([tf.debugging.assert_non_negative(x, message="no negatives please")]):
            return {"y": tf.identity(x)}

    @tf.function(input_signature=[FLOATS])
    def never(self, x):
        """Waits for a value that never arrives, until the run is cancelled."""
        empty = tf.raw_ops.FIFOQueueV2(component_types=[tf.float32], shared_name="never")
        (nothing,) = tf.raw_ops.QueueDequeueV2(handle=empty, component_types=[tf.float32])
        return {"y": x + nothing}


class Compiled(tf.Module):
    """A model that only XLA may run."""

    @tf.function(input_signature=[FLOATS], jit_compile=True)
    def half_plus_two(self, x):
        """The arithmetic of TensorFlow Serving's example models."""
        return {"y": 0.5 * x + 2.0}


def predictions(signature: str, *x: float):
    """A warmup record with these rows for one signature."""
    record = prediction_log_pb2.PredictionLog()
    request = record.predict_log.request
    request.model_spec.name = "sample"
    request.model_spec.signature_name = signature
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(x, tf.float32))
    return record.SerializeToString()


def write_warmup(version: Path, records: list[bytes]) -> None:
    """Write these records to the file that a server replays."""
    (version / "assets.extra").mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(version / "assets.extra" / "tf_serving_warmup_requests")) as file:
        for record in records:
            file.write(record)


def save_models(root: Path) -> None:
    """Write the same model under each name that the tests serve."""
    sample = Sample()
    signatures = {
        "serving_default": sample.half_plus_two,
        **{name: getattr(sample, name) for name in ("two", "pairs", "text", "types", "scalar", "uneven", "half")},
        **{name: getattr(sample, name) for name in ("no_negatives", "never")},
    }
    plain = root / "plain" / "00007"
    tf.saved_model.save(sample, str(plain), signatures=signatures)
    good = predictions("", 1.0)
    warmups = {
        "sample": [good, predictions("scalar", 2.0)],
        "warmup-full": [good] * 1000,
        "warmup-too-many": [good] * 1001,
        "warmup-unreadable": [good, b"\xff\xff no record"],
        "warmup-large": [predictions("", 1.0, 2.0, 3.0)],
        "warmup-failing": [good, predictions("no_negatives", -1.0)],
    }
    for name, records in warmups.items():
        shutil.copytree(plain, root / name / "7")
        write_warmup(root / name / "7", records)
    shutil.copytree(plain, root / "sample" / "3")
    shutil.copytree(plain, root / "warmup-no-tfrecord" / "7")
    (root / "warmup-no-tfrecord" / "7" / "assets.extra").mkdir()
    (root / "warmup-no-tfrecord" / "7" / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"x" * 100)
    compiled = Compiled()
    tf.saved_model.save(compiled, str(root / "compiled" / "7"), signatures={"serving_default": compiled.half_plus_two})
    for name in ("broken", "fixed"):
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "saved_model.pb").write_bytes(b"no model")


if __name__ == "__main__":
    save_models(Path(sys.argv[1]))
