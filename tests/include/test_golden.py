"""Golden cases: how the exported graph's answer is judged, and what is sent."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
from golden import Answer, judge_case, rest_body
from request import GoldenImage

CASE = GoldenImage(name="three", image=Path("/three.png"), label="3", min_confidence=0.85)


@pytest.mark.parametrize(
    ("graph", "reference", "says"),
    [
        (Answer(label="3", confidence=0.90), Answer(label="3", confidence=0.905), None),
        (Answer(label="3", confidence=0.90), None, None),
        (Answer(label="3", confidence=0.90), Answer(label="3", confidence=0.95), "the exported graph answers '3' (0.9"),
        (Answer(label="8", confidence=0.90), Answer(label="3", confidence=0.90), "the exported graph answers '8' (0.9"),
        (
            Answer(label="8", confidence=0.90),
            None,
            "the exported graph answers '8' (0.9000), promised is '3' (at least",
        ),
        (
            Answer(label="3", confidence=0.80),
            None,
            "the exported graph answers '3' (0.8000), promised is '3' (at least",
        ),
        (Answer(label="8", confidence=0.90), Answer(label="8", confidence=0.90), "🤗's own model answers '8' (0.9000)"),
        (Answer(label="3", confidence=0.84), Answer(label="3", confidence=0.84), "🤗's own model answers '3' (0.8400)"),
    ],
)
def test_case_holds_only_if_promise_and_reference_agree(graph, reference, says):
    """A case that fails names itself and both answers; a case that holds has nothing to say."""
    problem = judge_case(CASE, graph, reference)
    if says is None:
        assert problem is None
    else:
        assert problem.startswith("golden case three: ")
        assert says in problem


def test_case_of_several_labels_holds_with_any_of_them():
    """Any of the labels keeps the promise, as long as 🤗's own model and the graph agree on it."""
    case = replace(CASE, label=("3", "8"))
    eight, five = Answer(label="8", confidence=0.9), Answer(label="5", confidence=0.9)
    assert judge_case(case, eight, eight) is None
    assert judge_case(case, eight, None) is None
    assert "promised is '3' or '8' (at least 0.85)" in judge_case(case, five, five)
    assert "the exported graph answers '8'" in judge_case(case, eight, Answer(label="3", confidence=0.9))


def test_rest_body_is_the_seeds_request():
    """The image travels as one web-safe base64 string, in row format, for serving_default."""
    image = bytes(range(256))
    body = json.loads(rest_body(image))
    assert {"signature_name": "serving_default", "instances": [base64.urlsafe_b64encode(image).decode()]} == body
