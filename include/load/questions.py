"""Asks each question once before the load, so that every answer under load has one that it must equal."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable

from answers import PREDICT, Messages, Wrong, answered, read_grpc, read_rest
from load_errors import LoadRefused
from load_request import Question, Request, Target

TRIES = 3
PAUSE_S = 2.0
TIMEOUT_S = 60.0  # the first answer of a cold server takes seconds

Ask = Callable[[Request, Target, Question], tuple[str, float]]


def prepared(request: Request, at: int = 0) -> tuple[Question, ...]:
    """A target's questions with its answers without load. Raises LoadRefused if one is not the promised answer."""
    return tuple(_prepared(request, request.targets[at], question) for question in request.questions_at(at))


def _prepared(request: Request, target: Target, question: Question) -> Question:
    ways: list[Ask] = [*([_ask_rest] if target.rest else []), *([_ask_grpc] if target.grpc else [])]
    for ask in ways:
        question = _tried(request, target, question, ask)
    return question


def _tried(request: Request, target: Target, question: Question, ask: Ask) -> Question:
    said = ""
    for number in range(TRIES):
        if number:
            time.sleep(PAUSE_S)
        try:
            return answered(question, *ask(request, target, question))
        except Wrong as wrong:
            said = str(wrong)
    raise LoadRefused(
        f"{target.rest or target.grpc}: question {question.name}: {said}, before there was any load. Next: look at the server; its gate would fail too."
    )


def _ask_rest(_: Request, target: Target, question: Question) -> tuple[str, float]:
    post = urllib.request.Request(  # noqa: S310 - request.py takes the address from Slipway
        f"{target.rest}{target.path}", data=question.rest_body.encode(), method="POST"
    )
    try:
        with urllib.request.urlopen(post, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return read_rest(answer.status, answer.read(1 << 22))
    except urllib.error.HTTPError as error:
        return read_rest(error.code, None)
    except OSError as error:
        raise Wrong("no answer") from error


def _ask_grpc(request: Request, target: Target, question: Question) -> tuple[str, float]:
    import grpc

    messages = Messages(request.descriptors)
    with grpc.insecure_channel(target.grpc) as channel:
        call = channel.unary_unary(PREDICT, response_deserializer=messages.response.FromString)
        try:
            response = call(messages.with_version(question, target.version), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise Wrong(f"gRPC {error.code().name}") from error
        return read_grpc(response, target)
