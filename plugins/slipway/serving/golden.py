"""Golden questions and what their answers are worth.

A golden case holds two promises: the model file's label and least confidence, and the answer that 🤗's own processor and
model gave for the source checkpoint. Both must hold. Judges take what came over the wire as plain data. What a gate makes of
many answers is `judgement`'s to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from slipway.facts import from_dict
from slipway.verdict import Verdict

OK = 200
BAD_REQUEST = 400
NOT_FOUND = 404
TOO_MANY_REQUESTS = 429
SERVER_ERROR = 500
REQUEST_TIMEOUT_S = 20  # one answer; a first one on a cold server takes seconds
MARK = "!bad image: "  # how a label begins where the graph marks bad images; include/model/served_graph.py sets it
SHOWN = 300  # characters of a body that a message quotes
GRPC_NOT_YET = frozenset(  # gRPC's counterparts of no connection, 404, 429 and 5xx
    {
        "UNAVAILABLE",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "RESOURCE_EXHAUSTED",
        "INTERNAL",
        "UNKNOWN",
        "ABORTED",
        "CANCELLED",
    }
)
GARBAGE_BODY = json.dumps({"signature_name": "serving_default", "instances": ["bm90IGFuIGltYWdl"]})  # "not an image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What 🤗's own processor and model said of this image."""

    label: str
    confidence: float  # 0..1
    tolerance: float  # how far the served confidence may be from it


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenCase:
    """A question whose answer is promised."""

    name: str
    label: str | tuple[str, ...]  # several: any of them will do
    min_confidence: float  # 0..1
    reference: Reference | None  # none for a SavedModel archive, which has no checkpoint
    rest_body: str  # the exact body of the REST request
    grpc_request: str  # base64 of a serialised tensorflow.serving.PredictRequest without version

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of which one has to come."""
        return (self.label,) if isinstance(self.label, str) else self.label


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: an HTTP status and body, or the words of a connection that failed (status 0)."""

    status: int
    body: str
    denied: int = 0  # 401 or 403, of an API server on the way that does not let the question through


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcPrediction:
    """A gRPC answer to a golden case."""

    label: str
    confidence: float  # 0..1
    version: int  # as the server names it


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcRefusal:
    """What came over gRPC in place of a prediction: the name of a status code, and its words."""

    code: str
    words: str


def cases_from(data: Any) -> tuple[GoldenCase, ...]:
    """The golden cases of the JSON that the export stored."""
    return tuple(from_dict(GoldenCase, case) for case in data["cases"])


def judge_answer(case: GoldenCase, answer: Answer) -> Verdict:
    """What one REST answer to a golden case is worth.

    No connection, 5xx, 429 and 404 (this version is not here yet) mean wait; any other refusal, a wrong label or
    too little confidence fails at once.
    """
    asked = f"golden case {case.name!r}"
    if answer.status == 0:
        return Verdict.wait(f"{asked}: no answer yet: {answer.body}")
    if is_not_yet(answer):
        return Verdict.wait(f"{asked}: HTTP {answer.status}: {_quote(answer.body)}")
    if answer.status != OK:
        return Verdict.failed(
            f"{asked}: asked POST :predict, promised {_promise(case)}, came HTTP {answer.status}: {_quote(answer.body)}"
        )
    try:
        prediction = json.loads(answer.body)["predictions"][0]
        label, confidence = str(prediction["label"]), float(prediction["confidence"])
    except (ValueError, KeyError, IndexError, TypeError, OverflowError):
        return Verdict.failed(
            f"{asked}: promised {_promise(case)}, came no label and confidence: {_quote(answer.body)}"
        )
    return judge_prediction(case, label, confidence)


def judge_prediction(case: GoldenCase, label: str, confidence: float) -> Verdict:
    """Whether a label and its confidence (0..1) keep both promises of a golden case."""
    came = f"golden case {case.name!r}: promised {_promise(case)}, came {label!r} at {confidence:.4f}"
    for broken, why in _broken_promises(case, label, confidence):
        if broken:
            return Verdict.failed(f"{came}: {why}")
    return Verdict.passed(came)


def _broken_promises(case: GoldenCase, label: str, confidence: float) -> Iterator[tuple[bool, str]]:
    """The model file's promises, then those of 🤗's own answer, each with what is said where it is broken."""
    yield label not in case.labels, "wrong label"
    yield not 0 <= confidence <= 1, "no confidence from 0 to 1"  # nor is a NaN
    yield confidence < case.min_confidence, "too little confidence"
    if reference := case.reference:
        yield label != reference.label, f"🤗's own model says {reference.label!r}"
        yield (
            not abs(confidence - reference.confidence) <= reference.tolerance,  # also where a NaN is in it
            f"🤗's own model says {reference.confidence:.4f}, {reference.tolerance} away is allowed",
        )


def judge_spoken(case: GoldenCase, version: int, said: GrpcPrediction | GrpcRefusal) -> Verdict:
    """What one gRPC answer to a golden case is worth: both promises, and the version that it names."""
    if isinstance(said, GrpcRefusal):
        words = f"golden case {case.name!r} over gRPC: {said.code}: {_quote(said.words)}"
        return Verdict.wait(words) if said.code in GRPC_NOT_YET else Verdict.failed(words)
    for verdict in (judge_version(version, said.version), judge_prediction(case, said.label, said.confidence)):
        if verdict.outcome != "pass":
            return Verdict(outcome=verdict.outcome, reason=f"over gRPC: {verdict.reason}")
    return Verdict.passed(f"golden case {case.name!r} over gRPC: version {said.version} answered")


def judge_round(verdicts: Sequence[Verdict]) -> Verdict:
    """One round over all golden cases: the first failure, else the first wait, else a pass."""
    for outcome in ("fail", "wait"):
        for verdict in verdicts:
            if verdict.outcome == outcome:
                return verdict
    return Verdict.passed("; ".join(verdict.reason for verdict in verdicts))


def judge_status(version: int, answer: Answer) -> Verdict:
    """Whether TF Serving says that this version is AVAILABLE (`GET /v1/models/NAME/versions/N`)."""
    if is_not_yet(answer):
        return Verdict.wait(f"version {version}: {answer.status or 'no answer'}: {_quote(answer.body)}")
    try:
        states = json.loads(answer.body)["model_version_status"]
        mine = next(state for state in states if state["version"] == str(version))
        state, message = mine["state"], mine["status"]["error_message"]
    except (ValueError, KeyError, TypeError, StopIteration):
        return Verdict.failed(f"version {version}: asked its status, came HTTP {answer.status}: {_quote(answer.body)}")
    if state == "AVAILABLE":
        return Verdict.passed(f"version {version} is AVAILABLE")
    if state == "END":
        return Verdict.failed(f"version {version} did not load: {message or state}")
    return Verdict.wait(f"version {version} is {state}")


def judge_garbage(answer: Answer, *, marks: bool = False, live: bool = False) -> Verdict:
    """Whether something that is no image was refused as a bad request, or marked where the graph `marks` bad images.

    Behind a Service that is `live`, no answer and a pod that is not of this version mean wait, as for golden cases.
    """
    if live and is_not_yet(answer):
        return Verdict.wait(f"garbage: {answer.status or 'no answer yet'}: {_quote(answer.body)}")
    if marks:
        return _judge_mark(answer)
    if answer.status == BAD_REQUEST:
        return Verdict.passed(f"garbage was refused with 400: {_quote(answer.body)}")
    return Verdict.failed(f"garbage was asked, 400 promised, HTTP {answer.status} came: {_quote(answer.body)}")


def _judge_mark(answer: Answer) -> Verdict:
    try:
        label = json.loads(answer.body)["predictions"][0]["label"]
    except (ValueError, KeyError, IndexError, TypeError):
        label = None
    if answer.status == OK and isinstance(label, str) and label.startswith(MARK):
        return Verdict.passed(f"garbage was marked: {_quote(label)}")
    return Verdict.failed(
        f"garbage was asked, a label with {MARK!r} promised, HTTP {answer.status} came: {_quote(answer.body)}"
    )


def judge_version(version: int, answered: int) -> Verdict:
    """Whether the version that a gRPC answer names is the one that was asked."""
    if answered == version:
        return Verdict.passed(f"version {answered} answered")
    return Verdict.failed(f"version {version} was asked, version {answered} answered")


def is_not_yet(answer: Answer) -> bool:
    """Whether nobody answered, or who did will answer otherwise once this version is there and has time."""
    return answer.status >= SERVER_ERROR or answer.status in {0, NOT_FOUND, TOO_MANY_REQUESTS}


def _promise(case: GoldenCase) -> str:
    return f"{' or '.join(map(repr, case.labels))} at {case.min_confidence:.2f} or more"


def _quote(body: str) -> str:
    line = " ".join(body.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
