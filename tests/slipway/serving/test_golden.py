import json
from dataclasses import replace

import pytest

from slipway.facts import to_dict
from slipway.serving.golden import (
    GARBAGE_BODY,
    MARK,
    Answer,
    GrpcError,
    GrpcPrediction,
    cases_from,
    judge_answer,
    judge_garbage,
    judge_grpc_answer,
    judge_prediction,
    judge_round,
    judge_status,
    judge_version,
)
from slipway.verdict import Verdict


def answered(label, confidence, status=200):
    """TF Serving's answer with one prediction."""
    return Answer(status=status, body=json.dumps({"predictions": [{"label": label, "confidence": confidence}]}))


def test_pass_if_both_promises_hold(case):
    """A correct label with the reference's confidence passes; the reason has the answer."""
    verdict = Verdict.passed("golden case 'three': expected '3' at 0.80 or more, got '3' at 0.9500")
    assert verdict == judge_answer(case, answered("3", 0.95))


UNAVAILABLE = {
    "refused": (Answer(status=0, body="Connection refused"), "no answer yet: Connection refused"),
    "404 for this version": (Answer(status=404, body='{"error": "Servable\n not found"}'), 'HTTP 404: {"error": "Servable not found"}'),
    "429": (Answer(status=429, body="slow down"), "HTTP 429: slow down"),
    "500": (Answer(status=500, body="oops"), "HTTP 500: oops"),
    "503": (Answer(status=503, body=""), "HTTP 503: "),
    "long body": (Answer(status=503, body="x" * 1000), f"HTTP 503: {'x' * 300}…"),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "said"), UNAVAILABLE.values(), ids=UNAVAILABLE)
def test_wait_if_the_version_is_not_available_yet(case, answer, said):
    """No connection, 404, 429 and 5xx mean wait."""
    assert Verdict.wait(f"golden case 'three': {said}") == judge_answer(case, answer)


@pytest.mark.parametrize("status", [400, 401, 403, 405, 413, 301, 204])
def test_fail_at_once_if_refused(case, status):
    """Any other refusal fails; the reason has the request, the expected answer and the answer."""
    said = f"POST :predict: expected '3' at 0.80 or more, got HTTP {status}: no"
    assert Verdict.failed(f"golden case 'three': {said}") == judge_answer(case, Answer(status=status, body="no"))


MALFORMED = [
    "",
    "<html>",
    "null",
    "[]",
    '"text"',
    "{}",
    '{"predictions": null}',
    '{"predictions": []}',
    '{"predictions": {}}',
    '{"predictions": "abc"}',
    '{"predictions": [3]}',
    '{"predictions": [null]}',
    '{"predictions": [{"label": "3"}]}',
    '{"predictions": [{"confidence": 0.95}]}',
    '{"predictions": [{"label": "3", "confidence": null}]}',
    '{"predictions": [{"label": "3", "confidence": [0.95]}]}',
    '{"predictions": [{"label": "3", "confidence": "much"}]}',
    '{"predictions": [{"label": "3", "confidence": 1' + "0" * 400 + "}]}",
]


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: body[:60] or "empty")
def test_fail_if_the_body_is_malformed(case, body):
    """A 200 without a label and a confidence is a failure, not an exception."""
    verdict = judge_answer(case, Answer(status=200, body=body))
    assert verdict.outcome == "fail"
    assert "got no label and confidence" in verdict.reason


GOT = "golden case 'three': expected '3' at 0.80 or more, got"
PREDICTIONS = {
    "exact": ("3", 0.95, Verdict.passed(f"{GOT} '3' at 0.9500")),
    "within tolerance": ("3", 0.9599, Verdict.passed(f"{GOT} '3' at 0.9599")),
    "wrong label": ("8", 0.99, Verdict.failed(f"{GOT} '8' at 0.9900: wrong label")),
    "confidence too low": ("3", 0.79, Verdict.failed(f"{GOT} '3' at 0.7900: confidence too low")),
    "NaN": ("3", float("nan"), Verdict.failed(f"{GOT} '3' at nan: confidence is not between 0 and 1")),
    "below the reference": ("3", 0.93, Verdict.failed(f"{GOT} '3' at 0.9300: 🤗's own model answers 0.9500, a difference of 0.01 is allowed")),
    "above the reference": ("3", 0.97, Verdict.failed(f"{GOT} '3' at 0.9700: 🤗's own model answers 0.9500, a difference of 0.01 is allowed")),
    "infinite": ("3", float("inf"), Verdict.failed(f"{GOT} '3' at inf: confidence is not between 0 and 1")),
}  # fmt: skip


@pytest.mark.parametrize(("label", "confidence", "verdict"), PREDICTIONS.values(), ids=PREDICTIONS)
def test_verdict_of_a_prediction(case, label, confidence, verdict):
    """A prediction must meet the model file's promise and 🤗's own answer."""
    assert verdict == judge_prediction(case, label, confidence)


def test_any_of_several_labels_passes(case):
    """A case with two labels accepts either one, and must still match 🤗's own answer."""
    either = replace(case, label=("3", "8"))
    said = "golden case 'three': expected '3' or '8' at 0.80 or more, got"
    assert judge_prediction(either, "3", 0.95) == Verdict.passed(f"{said} '3' at 0.9500")
    assert judge_prediction(either, "5", 0.95) == Verdict.failed(f"{said} '5' at 0.9500: wrong label")
    assert judge_prediction(either, "8", 0.95) == Verdict.failed(f"{said} '8' at 0.9500: 🤗's own model answers '3'")
    assert judge_prediction(replace(either, reference=None), "8", 0.95).outcome == "pass"


def test_fail_if_the_confidence_is_nan(case):
    """A NaN, which JSON parsers accept, never passes."""
    assert judge_answer(case, answered("3", float("nan"))).outcome == "fail"


def test_fail_if_the_reference_has_another_label(case):
    """The model file's label is not enough if 🤗's own model answers another one."""
    other = replace(case, reference=replace(case.reference, label="8"))
    assert Verdict.failed(f"{GOT} '3' at 0.9500: 🤗's own model answers '8'") == judge_prediction(other, "3", 0.95)


@pytest.mark.parametrize("field", ["confidence", "tolerance"])
def test_fail_if_the_reference_is_nan(case, field):
    """A reference that cannot be compared fails."""
    broken = replace(case, reference=replace(case.reference, **{field: float("nan")}))
    assert judge_prediction(broken, "3", 0.95).outcome == "fail"


@pytest.mark.parametrize(("confidence", "outcome"), [(0.8, "pass"), (0.79999, "fail"), (1.0, "pass")])
def test_the_model_file_decides_if_there_is_no_reference(case, confidence, outcome):
    """A SavedModel archive has no checkpoint: label and minimum confidence decide; the minimum itself passes."""
    assert outcome == judge_prediction(replace(case, reference=None), "3", confidence).outcome


PASS, WAIT, FAIL = Verdict.passed("p"), Verdict.wait("w"), Verdict.failed("f")
ROUNDS = [
    ([PASS, PASS], Verdict.passed("p; p")),
    ([PASS, WAIT], WAIT),
    ([WAIT, FAIL], FAIL),
    ([FAIL, Verdict.failed("g")], FAIL),
    ([Verdict.wait("v"), WAIT], Verdict.wait("v")),
]


@pytest.mark.parametrize(("verdicts", "verdict"), ROUNDS)
def test_worst_verdict_of_a_round(verdicts, verdict):
    """A round has its first fail as its verdict, else its first wait, else a pass."""
    assert verdict == judge_round(verdicts)


def status(state, message="", *, version="7"):
    """TF Serving's status for a version."""
    state = {"version": version, "state": state, "status": {"error_code": "OK", "error_message": message}}
    return Answer(status=200, body=json.dumps({"model_version_status": [state]}))


STATES = {
    "available": (status("AVAILABLE"), Verdict.passed("version 7 is AVAILABLE")),
    "loading": (status("LOADING"), Verdict.wait("version 7 is LOADING")),
    "ended": (status("END", "bad graph"), Verdict.failed("version 7 did not load: bad graph")),
    "ended without a message": (status("END"), Verdict.failed("version 7 did not load: END")),
    "refused": (Answer(status=0, body="Connection refused"), Verdict.wait("version 7: no answer: Connection refused")),
    "404": (Answer(status=404, body="no such"), Verdict.wait("version 7: 404: no such")),
    "429": (Answer(status=429, body="slow down"), Verdict.wait("version 7: 429: slow down")),
    "503": (Answer(status=503, body="soon"), Verdict.wait("version 7: 503: soon")),
    "400": (Answer(status=400, body="no"), Verdict.failed("version 7: no status in HTTP 400: no")),
    "malformed": (Answer(status=200, body="[1]"), Verdict.failed("version 7: no status in HTTP 200: [1]")),
    "empty": (Answer(status=200, body=""), Verdict.failed("version 7: no status in HTTP 200: ")),
}


@pytest.mark.parametrize(("answer", "verdict"), STATES.values(), ids=STATES)
def test_verdict_of_a_status(answer, verdict):
    """Only AVAILABLE passes; only END and an invalid answer fail."""
    assert verdict == judge_status(7, answer)


def test_fail_if_another_version_is_available():
    """The status of another version does not count."""
    assert judge_status(7, status("AVAILABLE", version="6")).outcome == "fail"


@pytest.mark.parametrize(
    ("status", "outcome"), [(400, "pass"), (200, "fail"), (500, "fail"), (404, "fail"), (0, "fail")]
)
def test_garbage_must_be_refused_with_400(status, outcome):
    """Garbage is the client's mistake: only 400 passes."""
    assert outcome == judge_garbage(Answer(status=status, body="x")).outcome


@pytest.mark.parametrize("status", [0, 404, 429, 500, 503])
def test_garbage_waits_behind_a_live_service(status):
    """While old pods may still answer, a missing answer to garbage means wait."""
    assert judge_garbage(Answer(status=status, body="x"), live=True).outcome == "wait"
    assert judge_garbage(Answer(status=200, body="x"), live=True).outcome == "fail"


MARKED = json.dumps({"predictions": [{"label": f"{MARK}is no image", "confidence": 0.0}]})
UNMARKED = json.dumps({"predictions": [{"label": "3", "confidence": 0.9}]})


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer(status=200, body=MARKED), "pass"),
        (Answer(status=200, body=UNMARKED), "fail"),
        (Answer(status=400, body=MARKED), "fail"),
        (Answer(status=200, body="[]"), "fail"),
    ],
)
def test_garbage_must_be_marked_if_the_graph_marks(answer, outcome):
    """A graph that marks bad images answers garbage with 200 and a label that begins with the mark."""
    assert outcome == judge_garbage(answer, marks=True).outcome


def test_garbage_is_a_valid_request_without_an_image():
    """Garbage is a valid predict request whose content is not an image."""
    assert json.loads(GARBAGE_BODY)["signature_name"] == "serving_default"


@pytest.mark.parametrize(
    ("answered", "verdict"),
    [(7, Verdict.passed("version 7 answered")), (6, Verdict.failed("version 7 was requested, version 6 answered"))],
)
def test_the_requested_version_must_answer(answered, verdict):
    """Another version's answer fails."""
    assert verdict == judge_version(7, answered)


GRPC_ANSWERS = {
    "correct": (GrpcPrediction(label="3", confidence=0.95, version=7), Verdict.passed("golden case 'three' over gRPC: version 7 answered")),
    "another version": (GrpcPrediction(label="3", confidence=0.95, version=6), Verdict.failed("over gRPC: version 7 was requested, version 6 answered")),
    "wrong label": (GrpcPrediction(label="8", confidence=0.95, version=7), Verdict.failed(f"over gRPC: {GOT} '8' at 0.9500: wrong label")),
    "not loaded": (GrpcError(code="NOT_FOUND", message="Servable\nnot found"), Verdict.wait("golden case 'three' over gRPC: NOT_FOUND: Servable not found")),
    "no connection": (GrpcError(code="UNAVAILABLE", message="refused"), Verdict.wait("golden case 'three' over gRPC: UNAVAILABLE: refused")),
    "refused": (GrpcError(code="INVALID_ARGUMENT", message="no"), Verdict.failed("golden case 'three' over gRPC: INVALID_ARGUMENT: no")),
    "no label": (GrpcError(code="OK", message="nothing"), Verdict.failed("golden case 'three' over gRPC: OK: nothing")),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "verdict"), GRPC_ANSWERS.values(), ids=GRPC_ANSWERS)
def test_verdict_of_a_grpc_answer(case, answer, verdict):
    """A gRPC answer passes if it meets both promises and names the requested version; some status codes mean wait."""
    assert verdict == judge_grpc_answer(case, 7, answer)


def test_cases_are_read_as_the_export_stored_them(case):
    """Golden cases with and without a reference are read back unchanged."""
    cases = (case, replace(case, name="four", reference=None))
    assert cases == cases_from({"cases": [to_dict(each) for each in cases]})
