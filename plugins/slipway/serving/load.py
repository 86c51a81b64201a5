"""A load test: its request to the program in `include/load`, and what its figures are worth. Pure."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slipway.facts import JsonObject
from slipway.load_plan import LoadPlan
from slipway.serving.golden import GoldenCase
from slipway.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request to send many times. Without an expected answer, the server's first one counts."""

    name: str
    rest_body: str
    grpc_request: str  # base64 of a serialised PredictRequest without version
    labels: tuple[str, ...] = ()
    confidence: float | None = None  # 0..1
    tolerance: float = 0.01


def questions_of_cases(cases: Iterable[GoldenCase]) -> tuple[Question, ...]:
    """The golden cases as questions; a case of an archive has no confidence, and the first answer's counts."""
    found = []
    for case in cases:
        promise = {} if case.reference is None else {
            "confidence": case.reference.confidence, "tolerance": case.reference.tolerance,
        }  # fmt: skip
        found.append(
            Question(
                name=case.name,
                rest_body=case.rest_body,
                grpc_request=case.grpc_request,
                labels=(case.reference.label,) if case.reference else case.labels,
                **promise,
            )
        )
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where a model server is asked, and the version that must answer."""

    version: int
    rest: str | None  # http://HOST:PORT; one of both may be missing
    grpc: str | None = None  # HOST:PORT


def render_load_request(
    plan: LoadPlan,
    questions: Sequence[Question],
    *,
    model: str,
    server: Server,
    descriptors: bytes,
    beside: Server | None = None,
    rounds: int = 0,
    elsewhere: bool = False,
) -> JsonObject:
    """What `include/load/load.py` reads. In rounds, it asks `server` and `beside` in turns.

    `elsewhere`: the figures are not those of the release whose questions these are.
    """

    def target(one: Server) -> JsonObject:
        return {
            "rest": one.rest,
            "grpc": one.grpc if plan.grpc_share or one.rest is None else None,
            "model": model,
            "version": one.version,
        }

    return {
        "target": target(server),
        "beside": target(beside) if beside else None,
        "questions": [
            {
                "name": one.name,
                "rest_body": one.rest_body,
                "grpc_request": one.grpc_request,
                "labels": list(one.labels),
                "confidence": one.confidence,
                "tolerance": one.tolerance,
            }
            for one in questions
        ],
        "descriptors": base64.b64encode(descriptors).decode(),
        "plan": {
            "rates_per_s": list(plan.rates_per_s),
            "closed_users": list(plan.closed_users),
            "step_s": plan.step_s,
            "settle_s": plan.settle_s,
            "rounds": rounds,
        },
        "objective": {"p95_ms": plan.p95_ms},
        "grpc_share": plan.grpc_share,
        "keep_s": plan.keep_s,
        "elsewhere": elsewhere,
    }


def judge_load(plan: LoadPlan, figures: JsonObject) -> Verdict:
    """Whether the release bears what the model file asks; without `least_per_s` a test only measures, but wrong answers fail."""
    if wrong := wrong_answers(figures["steps"]):
        return Verdict.failed(f"load: {count_kinds(wrong)}: the release answers wrongly under load")
    best, least = figures["holds_up_to_per_s"], plan.least_per_s
    said = describe_load(figures)
    if least is not None and (best is None or best < least):
        return Verdict.failed(f"load: {said}; the model file asks {least:g}/s")
    if plan.left_out_per_s is not None:
        said += f"; {describe_left_out(plan.left_out_per_s)}"
    return Verdict.passed(f"load: {said}")


def describe_left_out(least_per_s: float) -> str:
    """Why a run with rates of its own is not judged."""
    return f"only measured: the model file's least_per_s, {least_per_s:g}/s, is none of the form's rates"


# Answers that no overload explains; the program's own words (include/load/answers.py).
WRONG = frozenset({"wrong label", "wrong confidence", "another version", "no label and confidence in the answer"})


def wrong_answers(steps: Iterable[JsonObject]) -> Counter[str]:
    """How many answers were wrong, by kind, without those that overload explains."""
    return Counter({kind: count for kind, count in errors_of(steps).items() if kind in WRONG})


def errors_of(steps: Iterable[JsonObject]) -> Counter[str]:
    """How many requests had no right answer, by kind."""
    found: Counter[str] = Counter()
    for step in steps:
        found.update(step["errors"])
    return found


def count_kinds(errors: Mapping[str, int]) -> str:
    """Errors for messages: how often each kind."""
    return ", ".join(f"{count} times {kind}" for kind, count in sorted(errors.items()))


def describe_load(figures: JsonObject) -> str:
    """The figures in one line: up to which rate the objective holds, the latency there, and the most that was reached."""
    steps, best = figures["steps"], figures["holds_up_to_per_s"]
    objective = figures["objective"]["p95_ms"]
    limit = f"p95 {objective:g} ms" if objective is not None else "no error"
    if best is None:
        said = f"the objective ({limit}) holds at no rate"
    else:
        at = next(step for step in steps if step["kind"] == "rate" and step["asked_per_s"] == best)
        said = f"the objective ({limit}) holds up to {best:g}/s, with p95 {_ms(at['p95_ms'])}"
    closed = [step for step in steps if step["kind"] == "closed" and not step["errors"]]
    if closed:
        most = max(closed, key=lambda step: float(step["reached_per_s"]))
        said += f"; at most {most['reached_per_s']:g}/s with {most['users']} users, p95 {_ms(most['p95_ms'])}"
    return said


def _ms(value: Any) -> str:
    return "not measured" if value is None else f"{value:g} ms"
