"""Asks each question once before the load, so that every answer under load has one that it must equal."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable

from answers import PREDICT, Messages, Wrong, answered, read_grpc, read_rest
from load_errors import LoadRefused
from load_request import Question, Request

TRIES = 3
PAUSE_S = 2.0
TIMEOUT_S = 60.0  # the first answer of a cold server takes seconds


def prepared(request: Request) -> tuple[Question, ...]:
    """The questions with the answers of a server without load. Raises LoadRefused if one is not the promised answer."""
    return tuple(_prepared(request, question) for question in request.questions)


def _prepared(request: Request, question: Question) -> Question:
    for ask in [*([_ask_rest] if request.target.rest else []), *([_ask_grpc] if request.target.grpc else [])]:
        question = _tried(request, question, ask)
    return question


def _tried(request: Request, question: Question, ask: Callable[[Request, Question], tuple[str, float]]) -> Question:
    said = ""
    for number in range(TRIES):
        if number:
            time.sleep(PAUSE_S)
        try:
            return answered(question, *ask(request, question))
        except Wrong as wrong:
            said = str(wrong)
    address = request.target.rest or request.target.grpc
    raise LoadRefused(
        f"{address}: question {question.name}: {said}, before there was any load. Next: look at the server; its gate would fail too."
    )


def _ask_rest(request: Request, question: Question) -> tuple[str, float]:
    post = urllib.request.Request(  # noqa: S310 - request.py takes the address from Slipway
        f"{request.target.rest}{request.target.path}", data=question.rest_body.encode(), method="POST"
    )
    try:
        with urllib.request.urlopen(post, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return read_rest(answer.status, answer.read(1 << 22))
    except urllib.error.HTTPError as error:
        return read_rest(error.code, None)
    except OSError as error:
        raise Wrong("no answer") from error


def _ask_grpc(request: Request, question: Question) -> tuple[str, float]:
    import grpc

    messages = Messages(request.descriptors)
    with grpc.insecure_channel(request.target.grpc) as channel:
        call = channel.unary_unary(PREDICT, response_deserializer=messages.response.FromString)
        try:
            response = call(messages.with_version(question, request.target.version), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise Wrong(f"gRPC {error.code().name}") from error
        return read_grpc(response, request.target)
