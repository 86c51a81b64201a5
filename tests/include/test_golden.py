"""Golden cases: how the exported graph's answer is judged, and the request that is sent."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
from golden import Answer, Reference, judge_case, rest_body
from request import GoldenImage

CASE = GoldenImage(name="three", image=Path("/three.png"), label="3", min_confidence=0.85)


NAN = float("nan")


def graph(label, confidence):
    """The exported graph's answer."""
    return Answer(label=label, confidence=confidence)


def reference(label, confidence, tolerance=0.01):
    """🤗's own answer."""
    return Reference(label=label, confidence=confidence, tolerance=tolerance)


@pytest.mark.parametrize(
    ("answer", "own", "message"),
    [
        (graph("3", 0.90), reference("3", 0.905), None),
        (graph("3", 0.90), None, None),
        (
            graph("3", 0.90),
            reference("3", 0.95),
            "the exported graph answers '3' (0.9000), 🤗's own model '3' (0.9500) ± 0.01",
        ),
        (graph("3", 0.90), reference("3", 0.95, tolerance=0.1), None),
        (graph("8", 0.90), reference("3", 0.90), "the exported graph answers '8' (0.9"),
        (graph("8", 0.90), None, "the exported graph answers '8' (0.9000); the case promises '3' (at least"),
        (graph("3", 0.80), None, "the exported graph answers '3' (0.8000); the case promises '3' (at least"),
        (graph("8", 0.90), reference("8", 0.90), "🤗's own model answers '8' (0.9000)"),
        (graph("3", 0.84), reference("3", 0.84), "🤗's own model answers '3' (0.8400)"),
        (graph("3", NAN), None, "the exported graph answers '3' (nan); the case promises '3' (at least"),
        (graph("3", NAN), reference("3", 0.90), "the exported graph answers '3' (nan), 🤗's own model '3' (0.9000)"),
        (graph("3", 0.90), reference("3", NAN), "🤗's own model answers '3' (nan)"),
    ],
)
def test_case_holds_only_if_promise_and_reference_agree(answer, own, message):
    """The message of a failed case has its name and both answers; a case that holds has none; a NaN always fails."""
    problem = judge_case(CASE, answer, own)
    if message is None:
        assert problem is None
    else:
        assert problem.startswith("golden case three: ")
        assert message in problem


def test_case_of_several_labels_holds_with_any_of_them():
    """Any of the labels keeps the promise if 🤗's own model and the graph agree on it."""
    case = replace(CASE, label=("3", "8"))
    assert judge_case(case, graph("8", 0.9), reference("8", 0.9)) is None
    assert judge_case(case, graph("8", 0.9), None) is None
    assert "the case promises '3' or '8' (at least 0.85)" in judge_case(case, graph("5", 0.9), reference("5", 0.9))
    assert "the exported graph answers '8'" in judge_case(case, graph("8", 0.9), reference("3", 0.9))


def test_rest_body_has_the_format_of_the_seed():
    """The image is sent as one web-safe base64 string, in row format, to serving_default."""
    image = bytes(range(256))
    body = json.loads(rest_body(image))
    assert {"signature_name": "serving_default", "instances": [base64.urlsafe_b64encode(image).decode()]} == body
