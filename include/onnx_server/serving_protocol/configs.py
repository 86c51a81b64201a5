"""The two configuration files of the real server, which are text protos.

`tensorflow-serving-api` does not contain these messages. The fields are those of
servables/tensorflow/session_bundle_config.proto and config/monitoring_config.proto (2.20.0).
"""

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

from .flags import refuse
from .metrics import PATH

Kind = descriptor_pb2.FieldDescriptorProto
INT64, BOOL, TEXT = (f".google.protobuf.{name}Value" for name in ("Int64", "Bool", "String"))


def read_batching(path: str) -> Any:
    """The BatchingParameters in the file; "" gives the defaults."""
    return _read(path, "BatchingParameters")


def metrics_path(path: str) -> str | None:
    """The path of the metrics page, from the monitoring file; None if they are not served, as by default."""
    prometheus = _read(path, "MonitoringConfig").prometheus_config
    return (prometheus.path or PATH) if prometheus.enable else None


def _read(path: str, name: str) -> Any:
    message = message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"tensorflow.serving.{name}"))()
    try:
        return text_format.Parse(Path(path).read_text(), message) if path else message
    except (OSError, text_format.ParseError) as error:
        refuse(f"{name} in {path}: {error}")


def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name="configs.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    _message(
        file, "BatchingParameters",
        ("max_batch_size", 1, INT64), ("batch_timeout_micros", 2, INT64), ("max_enqueued_batches", 3, INT64),
        ("num_batch_threads", 4, INT64), ("thread_pool_name", 5, TEXT), ("allowed_batch_sizes", 6, Kind.TYPE_INT64),
        ("pad_variable_length_inputs", 7, Kind.TYPE_BOOL), ("enable_large_batch_splitting", 8, BOOL),
        ("max_execution_batch_size", 9, INT64),
    )  # fmt: skip
    _message(file, "PrometheusConfig", ("enable", 1, Kind.TYPE_BOOL), ("path", 2, Kind.TYPE_STRING))
    _message(file, "MonitoringConfig", ("prometheus_config", 1, ".tensorflow.serving.PrometheusConfig"))
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _message(file: Any, name: str, *fields: tuple[str, int, Any]) -> None:
    message = file.message_type.add(name=name)
    for field, number, kind in fields:
        label = Kind.LABEL_REPEATED if field == "allowed_batch_sizes" else Kind.LABEL_OPTIONAL
        added = message.field.add(name=field, number=number, label=label)
        if isinstance(kind, str):
            added.type, added.type_name = Kind.TYPE_MESSAGE, kind
        else:
            added.type = kind
