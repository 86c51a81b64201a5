"""A real gRPC server with the part of TensorFlow Serving's PredictionService that a golden request needs.

The messages have the field numbers of TensorFlow Serving's own protos (apis/predict.proto, apis/model.proto and
tensorflow/core/framework/tensor.proto); fields that these tests do not read are left out.
"""

import base64
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

INT64, FLOAT, STRING, BYTES, MESSAGE = 3, 2, 9, 12, 11
SERVING, TENSORFLOW = "tensorflow.serving", "tensorflow"


def message(file, name, *fields):
    """Add a message type with `(name, number, type or type's name, repeated)` fields."""
    made = file.message_type.add(name=name)
    for field, number, kind, repeated in fields:
        given = {"type": kind} if isinstance(kind, int) else {"type": MESSAGE, "type_name": f".{kind}"}
        made.field.add(name=field, number=number, label=3 if repeated else 1, **given)
    return made


def tensor_map(made, owner, field, number):
    """Add a map field from names to tensors, as protobuf encodes maps."""
    entry = made.nested_type.add(name=f"{field.capitalize()}Entry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=1, type=STRING)
    entry.field.add(name="value", number=2, label=1, type=MESSAGE, type_name=f".{TENSORFLOW}.TensorProto")
    made.field.add(name=field, number=number, label=3, type=MESSAGE, type_name=f".{SERVING}.{owner}.{entry.name}")


def describe():
    """The descriptors, as the export stores them."""
    files = descriptor_pb2.FileDescriptorSet()
    wrappers_pb2.DESCRIPTOR.CopyToProto(files.file.add())
    tensor = files.file.add(name="tensor.proto", package=TENSORFLOW, syntax="proto3")
    message(
        tensor,
        "TensorProto",
        ("tensor_content", 4, BYTES, False),
        ("float_val", 5, FLOAT, True),
        ("string_val", 8, BYTES, True),
    )
    own = files.file.add(name="predict.proto", package=SERVING, syntax="proto3")
    own.dependency.extend(["tensor.proto", "google/protobuf/wrappers.proto"])
    message(own, "ModelSpec", ("name", 1, STRING, False), ("version", 2, "google.protobuf.Int64Value", False), ("signature_name", 3, STRING, False))  # fmt: skip
    request = message(own, "PredictRequest", ("model_spec", 1, f"{SERVING}.ModelSpec", False))
    tensor_map(request, "PredictRequest", "inputs", 2)
    response = message(own, "PredictResponse", ("model_spec", 2, f"{SERVING}.ModelSpec", False))
    tensor_map(response, "PredictResponse", "outputs", 1)
    return files.SerializeToString()


DESCRIPTORS = describe()
POOL = descriptor_pool.DescriptorPool()
for one in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS).file:
    POOL.Add(one)


def type_named(name):
    """A message class of TensorFlow Serving."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{SERVING}.{name}"))


def request_of(model):
    """A golden case's gRPC request, as the export stores it."""
    request = type_named("PredictRequest")()
    request.model_spec.name = model
    request.inputs["string_input"].string_val.append(b"aW1hZ2U")
    return base64.b64encode(request.SerializeToString()).decode()


class GrpcServing:
    """Gives the answers in turn, the last one for ever: `(label, confidence, version)`, or a status code and message."""

    def __init__(self, *answers):
        self.answers, self.seen = list(answers), []
        self.lock = threading.Lock()
        handler = grpc.unary_unary_rpc_method_handler(
            self.predict,
            request_deserializer=type_named("PredictRequest").FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )
        self.server = grpc.server(ThreadPoolExecutor(4))
        self.server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(f"{SERVING}.PredictionService", {"Predict": handler})]
        )
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def predict(self, request, context):
        """The next answer."""
        with self.lock:
            seen = SimpleNamespace(version=request.model_spec.version.value, client=context.peer())
            self.seen.append(seen)
            given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(given[0], grpc.StatusCode):
            context.abort(*given)
        label, confidence, version = given
        answer = type_named("PredictResponse")()
        answer.model_spec.version.value = version
        if label is not None:
            answer.outputs["label"].string_val.append(label.encode())
            answer.outputs["confidence"].float_val.append(confidence)
        return answer
