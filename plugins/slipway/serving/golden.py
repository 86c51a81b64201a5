"""Golden cases, and the judges of single answers. Pure: answers are plain data.

A golden case makes two promises: the model file's label and minimum confidence, and the answer of 🤗's own processor and model
on the source checkpoint. Both must hold. `gate` judges many answers together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from slipway.errors import one_line
from slipway.facts import from_dict
from slipway.strict_json import load_json
from slipway.verdict import Verdict

OK = 200
BAD_REQUEST = 400
NOT_FOUND = 404
TOO_MANY_REQUESTS = 429
SERVER_ERROR = 500
REQUEST_TIMEOUT_S = 20  # to connect, and between two bytes; the first answer of a cold server takes seconds
ANSWER_TIMEOUT_S = 60  # for a request and its whole answer
MAX_ANSWER_BYTES = (
    4 * 1024 * 1024
)  # as over gRPC, whose clients take no more by default; a prediction has some kilobytes
MARK = "!bad image: "  # the prefix of the label of a bad image; include/model/served_graph.py sets it
MAX_QUOTED = 300  # characters of a body that a message quotes
GRPC_UNAVAILABLE = frozenset(  # the gRPC codes that correspond to no connection, 404, 429 and 5xx
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
    """The answer of 🤗's own processor and model to this image."""

    label: str
    confidence: float  # 0..1
    tolerance: float  # the largest allowed difference of the served confidence


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenCase:
    """A request with its promised answer."""

    name: str
    label: str | tuple[str, ...]  # several: any of them is correct
    min_confidence: float  # 0..1
    reference: Reference | None  # None for a SavedModel archive, which has no checkpoint
    rest_body: str  # the exact body of the REST request
    grpc_request: str  # base64 of a serialised tensorflow.serving.PredictRequest without version

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of which one must be answered."""
        return (self.label,) if isinstance(self.label, str) else self.label


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP status and body, or status 0 and the message of a failed connection."""

    status: int
    body: str
    denied: int = 0  # 401 or 403, if an API server in between refused to pass the request on


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcPrediction:
    """A gRPC answer to a golden case."""

    label: str
    confidence: float  # 0..1
    version: int  # that the server names


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcError:
    """A gRPC answer without a prediction: the name of the status code, and its message."""

    code: str
    message: str


def cases_from(data: Any) -> tuple[GoldenCase, ...]:
    """The golden cases in the JSON that the export stored."""
    return tuple(from_dict(GoldenCase, case) for case in data["cases"])


def judge_answer(case: GoldenCase, answer: Answer) -> Verdict:
    """The verdict on one REST answer to a golden case.

    Wait: no connection, 5xx, 429, and 404 (this version is not loaded yet). Fail: any other refusal, a wrong label, a
    confidence that is too low.
    """
    what = f"golden case {case.name!r}"
    if answer.status == 0:
        return Verdict.wait(f"{what}: no answer yet: {answer.body}")
    if is_unavailable(answer):
        return Verdict.wait(f"{what}: HTTP {answer.status}: {_quote(answer.body)}")
    if answer.status != OK:
        return Verdict.failed(
            f"{what}: POST :predict: expected {_promise(case)}, got HTTP {answer.status}: {_quote(answer.body)}"
        )
    try:
        prediction = load_json(answer.body)["predictions"][0]
        label, confidence = str(prediction["label"]), float(prediction["confidence"])
    except (ValueError, KeyError, IndexError, TypeError, OverflowError):
        return Verdict.failed(f"{what}: expected {_promise(case)}, got no label and confidence: {_quote(answer.body)}")
    return judge_prediction(case, label, confidence)


def judge_prediction(case: GoldenCase, label: str, confidence: float) -> Verdict:
    """Whether a label and its confidence (0..1) meet both promises of a golden case."""
    said = f"golden case {case.name!r}: expected {_promise(case)}, got {label!r} at {confidence:.4f}"
    for broken, why in _broken_promises(case, label, confidence):
        if broken:
            return Verdict.failed(f"{said}: {why}")
    return Verdict.passed(said)


def _broken_promises(case: GoldenCase, label: str, confidence: float) -> Iterator[tuple[bool, str]]:
    """The checks against the model file, then against 🤗's own answer: whether each is broken, and its message."""
    yield label not in case.labels, "wrong label"
    yield not 0 <= confidence <= 1, "confidence is not between 0 and 1"  # nor is a NaN
    yield confidence < case.min_confidence, "confidence too low"
    if reference := case.reference:
        yield label != reference.label, f"🤗's own model answers {reference.label!r}"
        yield (
            not abs(confidence - reference.confidence) <= reference.tolerance,  # also true if one is a NaN
            f"🤗's own model answers {reference.confidence:.4f}, a difference of {reference.tolerance} is allowed",
        )


def judge_grpc_answer(case: GoldenCase, version: int, answer: GrpcPrediction | GrpcError) -> Verdict:
    """The verdict on one gRPC answer to a golden case: both promises, and the version that it names."""
    if isinstance(answer, GrpcError):
        said = f"golden case {case.name!r} over gRPC: {answer.code}: {_quote(answer.message)}"
        return Verdict.wait(said) if answer.code in GRPC_UNAVAILABLE else Verdict.failed(said)
    for verdict in (
        judge_version(version, answer.version),
        judge_prediction(case, answer.label, answer.confidence),
    ):
        if verdict.outcome != "pass":
            return Verdict(outcome=verdict.outcome, reason=f"over gRPC: {verdict.reason}")
    return Verdict.passed(f"golden case {case.name!r} over gRPC: version {answer.version} answered")


def judge_round(verdicts: Sequence[Verdict]) -> Verdict:
    """Several verdicts as one: the first fail, else the first wait, else a pass with all reasons."""
    for outcome in ("fail", "wait"):
        for verdict in verdicts:
            if verdict.outcome == outcome:
                return verdict
    return Verdict.passed("; ".join(verdict.reason for verdict in verdicts))


def judge_status(version: int, answer: Answer) -> Verdict:
    """Whether TF Serving reports this version as AVAILABLE (`GET /v1/models/NAME/versions/N`)."""
    if is_unavailable(answer):
        return Verdict.wait(f"version {version}: {answer.status or 'no answer'}: {_quote(answer.body)}")
    try:
        states = load_json(answer.body)["model_version_status"]
        mine = next(state for state in states if state["version"] == str(version))
        state, message = mine["state"], mine["status"]["error_message"]
    except (ValueError, KeyError, TypeError, StopIteration):
        return Verdict.failed(f"version {version}: no status in HTTP {answer.status}: {_quote(answer.body)}")
    if state == "AVAILABLE":
        return Verdict.passed(f"version {version} is AVAILABLE")
    if state == "END":
        return Verdict.failed(f"version {version} did not load: {message or state}")
    return Verdict.wait(f"version {version} is {state}")


def largest_available(answer: Answer) -> int | None:
    """The largest version that TF Serving reports as AVAILABLE (`GET /v1/models/NAME`); None if there is none."""
    try:
        states = load_json(answer.body)["model_version_status"]
        return max((int(state["version"]) for state in states if state["state"] == "AVAILABLE"), default=None)
    except (ValueError, KeyError, TypeError):
        return None


def judge_garbage(answer: Answer, *, marks: bool = False, live: bool = False) -> Verdict:
    """Whether the server refused garbage with 400, or labelled it as a bad image if the graph `marks` bad images.

    Behind a `live` Service, a missing answer and a pod of another version mean wait, as for golden cases.
    """
    if live and is_unavailable(answer):
        return Verdict.wait(f"garbage: {answer.status or 'no answer yet'}: {_quote(answer.body)}")
    if marks:
        return _judge_mark(answer)
    if answer.status == BAD_REQUEST:
        return Verdict.passed(f"garbage was refused with 400: {_quote(answer.body)}")
    return Verdict.failed(f"garbage: expected HTTP 400, got HTTP {answer.status}: {_quote(answer.body)}")


def _judge_mark(answer: Answer) -> Verdict:
    try:
        label = load_json(answer.body)["predictions"][0]["label"]
    except (ValueError, KeyError, IndexError, TypeError):
        label = None
    if answer.status == OK and isinstance(label, str) and label.startswith(MARK):
        return Verdict.passed(f"garbage was marked: {_quote(label)}")
    return Verdict.failed(f"garbage: expected a label with {MARK!r}, got HTTP {answer.status}: {_quote(answer.body)}")


def judge_version(version: int, answered: int) -> Verdict:
    """Whether the version that a gRPC answer names is the requested one."""
    if answered == version:
        return Verdict.passed(f"version {answered} answered")
    return Verdict.failed(f"version {version} was requested, version {answered} answered")


def is_unavailable(answer: Answer) -> bool:
    """Whether there was no answer, or a status that changes once this version is loaded and has capacity."""
    return answer.status >= SERVER_ERROR or answer.status in {0, NOT_FOUND, TOO_MANY_REQUESTS}


def _promise(case: GoldenCase) -> str:
    return f"{' or '.join(map(repr, case.labels))} at {case.min_confidence:.2f} or more"


def _quote(body: str) -> str:
    line = one_line(body)
    return line if len(line) <= MAX_QUOTED else f"{line[:MAX_QUOTED]}…"
