"""What a gRPC client without TensorFlow needs (request bytes and descriptors), and the server's warmup records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from golden import SIGNATURE

SERVICES = (
    "tensorflow_serving/apis/prediction_service.proto",
    "tensorflow_serving/apis/model_service.proto",
)


def predict_request(model: str, input_name: str, values: Sequence[str | bytes], signature: str = SIGNATURE) -> Any:
    """A tensorflow.serving.PredictRequest with these strings and no version: the sender sets the version."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.inputs[input_name].CopyFrom(tf.make_tensor_proto(list(values)))
    return request


def write_warmup(savedmodel: Path, requests: Sequence[Any]) -> None:
    """Write these PredictRequests where TF Serving looks for its warmup requests."""
    import tensorflow as tf

    _load_services()
    from tensorflow_serving.apis import prediction_log_pb2

    file = savedmodel / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for request in requests:
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString(deterministic=True))


def descriptors(*names: str) -> bytes:
    """A serialised FileDescriptorSet of these files, by default those of Predict and GetModelStatus: dependencies first."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    _load_services()
    files = descriptor_pb2.FileDescriptorSet()
    seen: set[str] = set()

    def add(file: object) -> None:
        if file.name in seen:
            return
        seen.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        file.CopyToProto(files.file.add())

    for name in names or SERVICES:
        add(descriptor_pool.Default().FindFileByName(name))
    return files.SerializeToString(deterministic=True)


def _load_services() -> None:
    """Register the two services and the warmup records in protobuf's pool.

    Their generated modules register the files and then set an attribute that is read-only in current protobuf.
    That error is ignored: the files are registered by then.
    """
    import importlib

    for module in ("prediction_service_pb2", "model_service_pb2", "prediction_log_pb2"):
        try:
            importlib.import_module(f"tensorflow_serving.apis.{module}")
        except AttributeError as error:
            if "has_options" not in str(error):
                raise
