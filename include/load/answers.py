"""What is wrong with an answer: label, confidence and version of each one are checked."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from typing import Any

from load_request import Question, Target

OK = 200
PREDICT = "/tensorflow.serving.PredictionService/Predict"


class Wrong(Exception):
    """An answer that is not the promised one; the text is its kind, of which there are few."""


def read_rest(status: int, body: str | bytes | None) -> tuple[str, float]:
    """Label and confidence of a REST answer. Raises Wrong."""
    if status == 0:
        raise Wrong("no answer")
    if status != OK:
        raise Wrong(f"HTTP {status}")
    try:
        prediction = json.loads(body or "")["predictions"][0]
        return str(prediction["label"]), float(prediction["confidence"])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise Wrong("no label and confidence in the answer") from error


def read_grpc(response: Any, target: Target) -> tuple[str, float]:
    """Label and confidence of a PredictResponse. Raises Wrong."""
    if response.model_spec.version.value != target.version:
        raise Wrong("another version")
    try:
        tensor = response.outputs["confidence"]
        number = tensor.float_val[0] if tensor.float_val else struct.unpack_from("<f", tensor.tensor_content)[0]
        return response.outputs["label"].string_val[0].decode(), float(number)
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise Wrong("no label and confidence in the answer") from error


def check(question: Question, label: str, confidence: float) -> None:
    """Raise Wrong if this is not the question's answer."""
    if question.labels and label not in question.labels:
        raise Wrong("wrong label")
    if question.confidence is not None and not abs(confidence - question.confidence) <= question.tolerance:
        raise Wrong("wrong confidence")


def answered(question: Question, label: str, confidence: float) -> Question:
    """The question with this answer as the expected one, as far as it had none."""
    check(question, label, confidence)
    return replace(
        question,
        labels=question.labels or (label,),
        confidence=confidence if question.confidence is None else question.confidence,
    )


class Messages:
    """TF Serving's messages, made from the descriptors that the export stored."""

    def __init__(self, descriptors: bytes) -> None:
        """Read a serialised FileDescriptorSet."""
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

        pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
            pool.Add(file)
        request, response = (
            message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))
            for name in ("PredictRequest", "PredictResponse")
        )
        self.request, self.response = request, response

    def with_version(self, question: Question, version: int) -> bytes:
        """The question's request, to this version."""
        message = self.request()
        message.ParseFromString(question.grpc_request)
        message.model_spec.version.value = version
        data: bytes = message.SerializeToString()
        return data
