"""The load test's request, and what is wrong with an answer."""

import json
from types import SimpleNamespace

import pytest
from answers import Wrong, answered, check, read_grpc, read_rest
from load_errors import LoadRefused
from load_request import Question, Target, read_request

GOOD = {
    "target": {"rest": "http://127.0.0.1:1", "grpc": None, "model": "vit", "version": 3},
    "questions": [{"name": "three", "rest_body": "{}", "grpc_request": "", "labels": ["3"]}],
    "descriptors": "",
    "plan": {"rates_per_s": [2, 5], "closed_users": [4], "step_s": 10, "settle_s": 2},
}
TARGET = Target(rest="http://127.0.0.1:1", grpc=None, model="vit", version=3)
QUESTION = Question(name="three", rest_body="{}", grpc_request=b"")


def read(tmp_path, **changes):
    """Read the good request with these changes."""
    file = tmp_path / "request.json"
    file.write_text(json.dumps(GOOD | changes))
    return read_request(file)


def test_a_request_is_read(tmp_path):
    """Rates become steps with users; without a gRPC address all users ask over REST."""
    request = read(tmp_path)
    assert [step.name for step in request.steps] == ["2/s", "5/s", "4 users"]
    assert (request.grpc_share, request.target.path) == (0, "/v1/models/vit/versions/3:predict")


def test_the_first_step_begins_before_it_is_measured(tmp_path):
    """Its users begin one after another. Every step is measured for the same time."""
    request = read(tmp_path)
    assert [(step.seconds, step.settle_s) for step in request.steps] == [(13, 5), (10, 2), (10, 2)]
    assert request.seconds == 33
    assert (request.keep_s, read(tmp_path, keep_s=5).keep_s) == (None, 5)


def test_the_picture_names_both_tests(tmp_path):
    """A server elsewhere is no release; what it is compared with is the live one."""
    assert read(tmp_path).names == ("this release", "the release before")
    assert read(tmp_path, elsewhere=True).names == ("this server", "the live release")


def test_rounds_alternate(tmp_path):
    """Each round asks both targets, and begins with another one than the round before."""
    beside = GOOD["target"] | {"rest": "http://127.0.0.1:2", "version": 2}
    plan = GOOD["plan"] | {"rates_per_s": [2], "rounds": 3}
    request = read(tmp_path, beside=beside, plan=plan)
    assert [step.name for step in request.steps] == [
        "2/s, round 1, release", "2/s, round 1, beside", "2/s, round 2, beside", "2/s, round 2, release",
        "2/s, round 3, release", "2/s, round 3, beside",
    ]  # fmt: skip
    assert [target.version for target in request.targets] == [3, 2]


def test_only_the_tested_release_has_promised_answers(tmp_path):
    """The other one may be of an earlier revision, whose answers differ."""
    plan = GOOD["plan"] | {"rounds": 3}
    request = read(tmp_path, beside=GOOD["target"], plan=plan)
    assert [request.questions_at(at)[0].labels for at in (0, 1)] == [("3",), ()]


@pytest.mark.parametrize(
    "changes",
    [
        {"target": {"rest": None, "grpc": None, "model": "vit", "version": 3}},
        {"questions": []},
        {"plan": GOOD["plan"] | {"settle_s": 10}},
        {"plan": {}},
        {"target": {"where": "here"}},
        {"questions": 3},
        {"plan": GOOD["plan"] | {"rates_per_s": [0]}},
        {"beside": GOOD["target"]},
        {"beside": GOOD["target"] | {"grpc": "127.0.0.1:2"}, "plan": GOOD["plan"] | {"rounds": 3}},
    ],
    ids=[
        "no address",
        "no question",
        "nothing measured",
        "no plan",
        "another field",
        "no list",
        "no rate",
        "beside without rounds",
        "beside over gRPC too",
    ],
)
def test_refused_in_one_line(tmp_path, changes):
    """The line names the file and what is wrong."""
    with pytest.raises(LoadRefused, match=r"request\.json: \w+Error: .* Next: "):
        read(tmp_path, **changes)


@pytest.mark.parametrize(
    ("status", "body", "wrong"),
    [
        (0, None, "no answer"),
        (503, "", "HTTP 503"),
        (200, "not JSON", "no label and confidence in the answer"),
        (200, '{"predictions": []}', "no label and confidence in the answer"),
    ],
)
def test_an_answer_without_a_prediction(status, body, wrong):
    """Each has a kind of its own, of which reports show the number."""
    with pytest.raises(Wrong, match=f"^{wrong}$"):
        read_rest(status, body)


def test_a_prediction_is_read():
    """Label and confidence of the first."""
    assert read_rest(200, '{"predictions": [{"label": "3", "confidence": 0.9}]}') == ("3", 0.9)


def response(version, *, floats=(0.5,)):
    """A gRPC answer."""
    return SimpleNamespace(
        model_spec=SimpleNamespace(version=SimpleNamespace(value=version)),
        outputs={
            "label": SimpleNamespace(string_val=[b"3"]),
            "confidence": SimpleNamespace(float_val=floats, tensor_content=b"\0\0\0\x3f"),
        },
    )


def test_a_grpc_answer_names_its_version():
    """An answer of another version is wrong, however right its label. The number has two encodings."""
    assert read_grpc(response(3), TARGET) == read_grpc(response(3, floats=()), TARGET) == ("3", 0.5)
    with pytest.raises(Wrong, match=r"^another version$"):
        read_grpc(response(2), TARGET)


def test_the_first_answer_counts_if_none_is_promised():
    """Later answers must equal it."""
    first = answered(QUESTION, "3", 0.9)
    check(first, "3", 0.905)
    for label, confidence, wrong in (("8", 0.9, "wrong label"), ("3", 0.8, "wrong confidence"), ("3", float("nan"), "wrong confidence")):  # fmt: skip
        with pytest.raises(Wrong, match=f"^{wrong}$"):
            check(first, label, confidence)
