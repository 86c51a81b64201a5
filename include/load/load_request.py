"""The load test's request: what is asked, of which addresses, how often and for how long."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from load_errors import LoadRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request and the answer to it. The first answer of a server without load counts, if the request names none."""

    name: str
    rest_body: str
    grpc_request: bytes  # a serialised tensorflow.serving.PredictRequest without version
    labels: tuple[str, ...] = ()
    confidence: float | None = None  # 0 to 1
    tolerance: float = 0.01  # the largest allowed difference of the confidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A model server's addresses, and the model and version that must answer."""

    rest: str | None  # http://HOST:PORT
    grpc: str | None  # HOST:PORT
    model: str
    version: int

    @property
    def path(self) -> str:
        """The REST path: only this version answers there."""
        return f"/v1/models/{self.model}/versions/{self.version}:predict"


PLACES = ("release", "beside")  # what figures call the targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A part of the test: a constant rate, or a number of users each of which asks again as soon as it has an answer."""

    kind: Literal["rate", "closed"]
    users: int
    seconds: float
    settle_s: float  # the beginning, which is in no latency
    rate_per_s: float | None = None
    at: int = 0  # which of the request's targets is asked
    round: int = 0

    @property
    def name(self) -> str:
        """As reports show it."""
        name = f"{self.rate_per_s:g}/s" if self.rate_per_s is not None else f"{self.users} users"
        return f"{name}, round {self.round}, {PLACES[self.at]}" if self.round else name

    @property
    def pace_s(self) -> float:
        """How often each user asks at a constant rate; 0 in a closed loop."""
        return self.users / self.rate_per_s if self.rate_per_s is not None else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What the server must do at a rate for it to count as borne."""

    p95_ms: float | None = None
    least_share: float = 0.95  # of the asked rate that must be reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The whole test."""

    targets: tuple[Target, ...]  # the one that is tested, and another that is measured beside it
    questions: tuple[Question, ...]
    descriptors: bytes  # a serialised FileDescriptorSet with TF Serving's messages
    steps: tuple[Step, ...]
    objective: Objective
    grpc_share: float  # of the users, 0 to 1
    keep_s: float | None  # how long a user keeps its connection; None: to the end
    elsewhere: bool  # whether the figures are those of another server than the release's

    @property
    def names(self) -> tuple[str, str]:
        """What the picture calls this test, and another one in the same picture."""
        return ("this server", "the live release") if self.elsewhere else ("this release", "the release before")

    @property
    def target(self) -> Target:
        """The one that is tested."""
        return self.targets[0]

    @property
    def seconds(self) -> float:
        """How long all steps take."""
        return sum(step.seconds for step in self.steps)

    def questions_at(self, at: int) -> tuple[Question, ...]:
        """The questions to a target. Only the one that is tested has promised answers."""
        if at == 0:
            return self.questions
        return tuple(replace(question, labels=(), confidence=None) for question in self.questions)


START_S = 1.0  # Locust takes that long to begin with its first users
USER_PER_S = 0.5  # requests of one user at a constant rate: an answer may take two seconds before the rate falls


def rate_step(rate_per_s: float, *, seconds: float, settle_s: float) -> Step:
    """A step of constant rate, with the users that it needs."""
    users = math.ceil(rate_per_s / USER_PER_S)
    return Step(kind="rate", users=users, seconds=seconds, settle_s=settle_s, rate_per_s=rate_per_s)


def closed_step(users: int, *, seconds: float, settle_s: float) -> Step:
    """A step in which each user asks again at once."""
    return Step(kind="closed", users=users, seconds=seconds, settle_s=settle_s)


def read_request(path: Path) -> Request:
    """Read a request. Raises LoadRefused."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        return _request(given)
    except OSError as error:
        raise LoadRefused(f"{path}: {error.strerror}. Next: name a file that exists.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LoadRefused(f"{path}: {type(error).__name__}: {error}. Next: see the form in load.py --help.") from error


def _request(given: dict[str, Any]) -> Request:
    targets = tuple(Target(**one) for one in (given["target"], given.get("beside")) if one)
    asked_over = {(bool(target.rest), bool(target.grpc)) for target in targets}
    if (False, False) in asked_over or len(asked_over) > 1:
        raise ValueError("target has neither rest nor grpc, or beside has not the same of them")
    questions = tuple(
        Question(
            name=str(one["name"]),
            rest_body=str(one["rest_body"]),
            grpc_request=base64.b64decode(one["grpc_request"]),
            labels=tuple(one.get("labels") or ()),
            confidence=one.get("confidence"),
            tolerance=float(one.get("tolerance", 0.01)),
        )
        for one in given["questions"]
    )
    if not questions:
        raise ValueError("no questions")
    target = targets[0]
    share = 1.0 if not target.rest else 0.0 if not target.grpc else float(given.get("grpc_share", 0.5))
    return Request(
        targets=targets,
        questions=questions,
        descriptors=base64.b64decode(given["descriptors"]),
        steps=_steps(given["plan"], places=len(targets)),
        objective=Objective(**given.get("objective", {})),
        grpc_share=share,
        keep_s=float(given["keep_s"]) if given.get("keep_s") is not None else None,
        elsewhere=bool(given.get("elsewhere", False)),
    )


def _steps(plan: dict[str, Any], *, places: int) -> tuple[Step, ...]:
    """All steps. In rounds, each rate is asked of one target after the other; each round begins with another one."""
    times = {"seconds": float(plan["step_s"]), "settle_s": float(plan["settle_s"])}
    if not 0 <= times["settle_s"] < times["seconds"]:
        raise ValueError("plan.settle_s is not below plan.step_s")
    rates = [float(rate) for rate in plan["rates_per_s"]]
    if any(rate <= 0 for rate in rates):
        raise ValueError("plan.rates_per_s has a rate that is not above 0")
    steps = [rate_step(rate, **times) for rate in rates]
    if rounds := int(plan.get("rounds", 0)):
        order = list(range(places))
        return _begun(
            replace(step, at=at, round=number + 1)
            for step in steps
            for number in range(rounds)
            for at in (order if number % 2 == 0 else order[::-1])
        )
    if places > 1:
        raise ValueError("beside needs plan.rounds")
    return _begun([*steps, *(closed_step(int(users), **times) for users in plan["closed_users"])])


def _begun(steps: Iterable[Step]) -> tuple[Step, ...]:
    """The steps, of which the first one settles longer: until each of its users has asked."""
    first, *others = steps
    longer_s = START_S + first.pace_s
    return (replace(first, seconds=first.seconds + longer_s, settle_s=first.settle_s + longer_s), *others)
