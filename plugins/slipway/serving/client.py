"""Sends requests to TF Serving, over REST and over gRPC; `golden` judges the answers.

gRPC needs no TensorFlow: the message classes are made from the descriptors that the export stored.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import httpx

from slipway.bounded_http import bounded_client, send_bounded
from slipway.serving.golden import (
    ANSWER_TIMEOUT_S,
    MAX_ANSWER_BYTES,
    REQUEST_TIMEOUT_S,
    Answer,
    GoldenCase,
    GrpcError,
    GrpcPrediction,
)

PREDICT = "/tensorflow.serving.PredictionService/Predict"


def send_request(base_url: str, path: str, body: str | None = None) -> Answer:
    """The answer to one REST request on a new connection; a failed connection is an Answer with status 0.

    So is an answer that is too large or takes too long. For tasks; do not call it in an event loop.
    """
    return asyncio.run(send_request_async(base_url, path, body))


async def send_request_async(base_url: str, path: str, body: str | None = None) -> Answer:
    """The same, from a trigger's event loop."""
    method, url = "GET" if body is None else "POST", f"{base_url}{path}"
    try:
        async with bounded_client(max_bytes=MAX_ANSWER_BYTES, timeout=REQUEST_TIMEOUT_S, verify=_trusted()) as client:
            return _answer(await send_bounded(client, method, url, total_s=ANSWER_TIMEOUT_S, content=body))
    except httpx.HTTPError as error:
        return no_answer(error)


@cache
def _trusted() -> ssl.SSLContext:
    """The certificates that httpx trusts, read once: reading them blocks an event loop for tens of milliseconds."""
    return httpx.create_ssl_context()


def _answer(response: httpx.Response) -> Answer:
    return Answer(status=response.status_code, body=response.text)


def no_answer(error: Exception) -> Answer:
    """A failed connection as an Answer."""
    return Answer(status=0, body=str(error) or type(error).__name__)


@dataclass(frozen=True, slots=True)
class GrpcClient:
    """A client of TF Serving's gRPC services at one address."""

    channel: Any
    pool: Any

    def predict(self, case: GoldenCase, version: int | None) -> GrpcPrediction:
        """One version's answer to a golden case; None for the version that the server chooses. Raises grpc.RpcError."""
        request = self._message("tensorflow.serving.PredictRequest")()
        request.ParseFromString(base64.b64decode(case.grpc_request))
        if version is not None:
            request.model_spec.version.value = version
        response_class = self._message("tensorflow.serving.PredictResponse")
        call = self.channel.unary_unary(
            PREDICT,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response_class.FromString,
        )
        response = call(request, timeout=REQUEST_TIMEOUT_S)
        return GrpcPrediction(
            label=response.outputs["label"].string_val[0].decode(),
            confidence=_first_float(response.outputs["confidence"]),
            version=response.model_spec.version.value,
        )

    def _message(self, name: str) -> Any:
        from google.protobuf import message_factory

        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(name))


@contextmanager
def grpc_client(address: str, descriptors: bytes) -> Iterator[GrpcClient]:
    """A gRPC client at `host:port` that knows the messages of a serialised FileDescriptorSet."""
    import grpc

    # Without this option, channels of one process share a connection to the same address.
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield GrpcClient(channel, _messages(descriptors))


@lru_cache(maxsize=4)  # models at their gates in one triggerer
def _messages(descriptors: bytes) -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
        pool.Add(file)
    return pool


def requests_with_images(descriptors: bytes, grpc_request: str, images: Sequence[str]) -> list[str]:
    """Copies of a PredictRequest (base64) with other images (base64url), each as the only value of its only input."""
    from google.protobuf import message_factory

    found = _messages(descriptors).FindMessageTypeByName("tensorflow.serving.PredictRequest")
    message: Any = message_factory.GetMessageClass(found)()
    message.ParseFromString(base64.b64decode(grpc_request))
    [name] = message.inputs
    requests = []
    for image in images:
        message.inputs[name].string_val[:] = [image.encode()]
        requests.append(base64.b64encode(message.SerializeToString(deterministic=True)).decode())
    return requests


def send_grpc_request(
    address: str, descriptors: bytes, case: GoldenCase, version: int | None
) -> GrpcPrediction | GrpcError:
    """The answer to one gRPC request on a new connection; an error is returned, not raised."""
    import grpc

    try:
        with grpc_client(address, descriptors) as client:
            return client.predict(case, version)
    except grpc.RpcError as error:
        return GrpcError(code=error.code().name, message=error.details() or "")
    except (IndexError, struct.error) as error:
        return GrpcError(code="OK", message=f"an answer without label and confidence: {error}")


def _first_float(tensor: Any) -> float:
    """The first number of a float TensorProto, in either of its two encodings."""
    if tensor.float_val:
        return float(tensor.float_val[0])
    return float(struct.unpack_from("<f", tensor.tensor_content)[0])
