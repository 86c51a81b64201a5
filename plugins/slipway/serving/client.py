"""Asks TF Serving, over REST and over gRPC; what the answers are worth is `prediction`'s to say.

gRPC needs no TensorFlow: the message classes are made from the descriptors that the export stored.
"""

from __future__ import annotations

import base64
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import httpx

from slipway.serving.golden import REQUEST_TIMEOUT_S, Answer, GoldenCase, GrpcPrediction, GrpcRefusal

PREDICT = "/tensorflow.serving.PredictionService/Predict"


def ask(base_url: str, path: str, body: str | None = None) -> Answer:
    """One REST question on a connection of its own; a failed connection is an Answer with status 0."""
    try:
        with httpx.Client(timeout=REQUEST_TIMEOUT_S, verify=_trusted()) as client:
            return _answer(client.request("GET" if body is None else "POST", f"{base_url}{path}", content=body))
    except httpx.HTTPError as error:
        return _no_answer(error)


async def ask_async(base_url: str, path: str, body: str | None = None) -> Answer:
    """The same from a trigger's event loop."""
    try:
        async with httpx.AsyncClient(timeout=REQUEST_TIMEOUT_S, verify=_trusted()) as client:
            return _answer(await client.request("GET" if body is None else "POST", f"{base_url}{path}", content=body))
    except httpx.HTTPError as error:
        return _no_answer(error)


@cache
def _trusted() -> ssl.SSLContext:
    """What httpx trusts, read once: a client that reads it anew holds up an event loop for tens of milliseconds."""
    return httpx.create_ssl_context()


def _answer(response: httpx.Response) -> Answer:
    return Answer(status=response.status_code, body=response.text)


def _no_answer(error: Exception) -> Answer:
    return Answer(status=0, body=str(error) or type(error).__name__)


@dataclass(frozen=True, slots=True)
class GrpcClient:
    """Speaks TF Serving's gRPC services at one address."""

    channel: Any
    pool: Any

    def predict(self, case: GoldenCase, version: int) -> GrpcPrediction:
        """Ask a golden case of one version. Raises grpc.RpcError."""
        request = self._message("tensorflow.serving.PredictRequest")()
        request.ParseFromString(base64.b64decode(case.grpc_request))
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
    """A gRPC client at `host:port` that knows the messages in a serialised FileDescriptorSet."""
    import grpc

    # Channels of one process share a connection to the same address, unless told otherwise.
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield GrpcClient(channel, _messages(descriptors))


@lru_cache(maxsize=4)  # of as many models as are at their gates
def _messages(descriptors: bytes) -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
        pool.Add(file)
    return pool


def ask_grpc(address: str, descriptors: bytes, case: GoldenCase, version: int) -> GrpcPrediction | GrpcRefusal:
    """One gRPC question on a connection of its own; what goes wrong is an answer too."""
    import grpc

    try:
        with grpc_client(address, descriptors) as client:
            return client.predict(case, version)
    except grpc.RpcError as error:
        return GrpcRefusal(code=error.code().name, words=error.details() or "")
    except (IndexError, struct.error) as error:
        return GrpcRefusal(code="OK", words=f"an answer without label and confidence: {error}")


def _first_float(tensor: Any) -> float:
    """The first number of a float TensorProto, in whichever of its two forms it came."""
    if tensor.float_val:
        return float(tensor.float_val[0])
    return float(struct.unpack_from("<f", tensor.tensor_content)[0])
