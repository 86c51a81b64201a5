"""Hostile answers of a model server: each gives a verdict in one line, and nothing but a promised answer passes."""

import json

import pytest
from hostile import assert_plain, bounded, json_values, mutated, texts
from hypothesis import given
from hypothesis import strategies as st

from slipway.release import Gate
from slipway.serving.gate import GateState, RoundResult, judge_gate
from slipway.serving.golden import (
    MAX_ANSWER_BYTES,
    Answer,
    GoldenCase,
    GrpcError,
    GrpcPrediction,
    Reference,
    judge_answer,
    judge_garbage,
    judge_grpc_answer,
    judge_status,
)

CASE = GoldenCase(
    name="three", label="3", min_confidence=0.8, reference=Reference(label="3", confidence=0.99, tolerance=0.01),
    rest_body="{}", grpc_request="",
)  # fmt: skip
PREDICTED = {"predictions": [{"label": "3", "confidence": 0.99, "labels": ["3"]}]}
STATUS = {
    "model_version_status": [
        {"version": "7", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
}
statuses = st.sampled_from([0, 200, 200, 200, 204, 302, 400, 404, 418, 429, 500, 503])
bodies = st.one_of(
    mutated(PREDICTED).map(json.dumps), mutated(STATUS).map(json.dumps), json_values.map(json.dumps), texts
)


def judged(*verdicts):
    """Each verdict is one line, and so is that of a gate that has only these."""
    for verdict in verdicts:
        assert_plain(str(verdict))
    _, verdict = judge_gate(GateState(), RoundResult(rest=verdicts), Gate(), passes=1)
    assert_plain(str(verdict))
    return verdict


@given(statuses, bodies)
def test_any_answer_over_rest(status, body):
    """Any status and body; a pass is the promised label, with a confidence near 🤗's."""
    with bounded():
        verdict = judged(judge_answer(CASE, Answer(status=status, body=body)))
    if verdict.outcome == "pass":
        prediction = json.loads(body)["predictions"][0]
        assert str(prediction["label"]) == "3"
        assert abs(float(prediction["confidence"]) - 0.99) <= 0.011


@given(statuses, bodies)
def test_any_status_and_any_answer_to_garbage(status, body):
    """Any answer on a version's status, and to garbage."""
    answer = Answer(status=status, body=body)
    with bounded():
        judged(judge_status(7, answer), judge_garbage(answer), judge_garbage(answer, marks=True, live=True))


@given(texts, st.floats(), st.integers(0, 2**63))
def test_any_answer_over_grpc(label, confidence, version):
    """Any label, confidence and version; a pass is what was promised, by the version that was asked for."""
    with bounded():
        verdict = judged(
            judge_grpc_answer(CASE, 7, GrpcPrediction(label=label, confidence=confidence, version=version))
        )
    assert verdict.outcome != "pass" or (label, version) == ("3", 7)


@given(st.sampled_from(["UNAVAILABLE", "OK", "INVALID_ARGUMENT"]) | texts, texts)
def test_any_refusal_over_grpc(code, message):
    """Any code and message."""
    with bounded():
        assert judged(judge_grpc_answer(CASE, 7, GrpcError(code=code, message=message))).outcome != "pass"


@pytest.mark.parametrize(
    "body", ["[" * MAX_ANSWER_BYTES, '{"predictions":' * 200_000, "\x1b" * MAX_ANSWER_BYTES, "9" * MAX_ANSWER_BYTES],
    ids=["lists", "mappings", "escapes", "a number"],
)  # fmt: skip
def test_the_largest_answer_is_judged_in_time(body):
    """An answer of the largest size takes no longer than a second: a trigger judges it on its event loop."""
    answer = Answer(status=200, body=body)
    with bounded():
        assert judged(judge_answer(CASE, answer), judge_status(7, answer), judge_garbage(answer)).outcome == "fail"
