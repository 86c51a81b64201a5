"""What the server answers: labels, marks and refusals, over REST and gRPC."""

import struct

import grpc
import pytest

from serving_protocol.messages import PredictRequest, PredictResponse
from tests.conformance.client import ask, parsed, predict
from tests.include.onnx_server.colours import LABELS, png, raw, rows, web_safe

pytestmark = pytest.mark.model

NO_IMAGE = "is no JPEG, PNG, GIF, BMP or WebP image"
BOMB = png("red")[:16] + struct.pack(">II", 60_000, 60_000) + png("red")[24:]  # 100 bytes that would be 10 GB of pixels


def test_images_are_answered_in_order(colours):
    """Each image of a request gets the label of its colour, with a confidence, in the same order."""
    status, body = predict(colours, rows("blue", "red", "green", "red"), "colours")
    assert status == 200
    assert [answer["label"] for answer in body["predictions"]] == ["blue", "red", "green", "red"]
    assert all(0.99 < answer["confidence"] < 1 for answer in body["predictions"])


def test_top_k_is_sorted(colours):
    """All four labels, the most likely first; of two equally likely ones the first of the model's."""
    status, body = predict(colours, raw(png("blue"), signature="top_k"), "colours")
    assert status == 200
    (answer,) = body["predictions"]
    assert answer["labels"] == ["blue", "Grün ✓", "red", "green"]
    assert sum(answer["scores"]) == pytest.approx(1, abs=1e-5)
    assert answer["scores"] == sorted(answer["scores"], reverse=True)
    assert answer["scores"][2] == answer["scores"][3]


def test_raw_bytes_and_columns(colours):
    """`raw_bytes` takes the files themselves; in columns, each output is a list."""
    body = {"signature_name": "raw_bytes", "inputs": raw(png("green"), png("red"))["instances"]}
    status, body = predict(colours, body, "colours")
    assert (status, body["outputs"]["label"]) == (200, ["green", "red"])


def test_large_request_is_answered_in_parts(colours):
    """Of 72 images each has its own answer, and a bad one is named by its place in the request."""
    names = ["red", "green", "blue"] * 24
    status, body = predict(colours, raw(*map(png, names)), "colours")
    assert (status, [answer["label"] for answer in body["predictions"]]) == (200, names)
    status, body = predict(colours, raw(*map(png, names[:40]), b""), "colours")
    assert (status, body) == (400, {"error": "image 41 is empty"})


def test_no_images_have_no_answers(colours):
    """An empty column is answered with empty columns."""
    assert predict(colours, {"inputs": []}, "colours") == (200, {"outputs": {"label": [], "confidence": []}})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (raw(png("red"), b"hello"), f"image 2 {NO_IMAGE}"),
        (raw(b""), "image 1 is empty"),
        (raw(png("red") + bytes(1_000_000)), "bytes, 1000000 are allowed"),
        (raw(BOMB), "image 1 has 60000 x 60000 pixels, a side of 4000 is allowed"),
        (rows("red") | {"instances": [web_safe(png("red")), "***"]}, "image 2 is not in web-safe base64"),
        ({"instances": [["aGVsbG8="]]}, "one dimension"),
        ({"inputs": "aGVsbG8="}, "one dimension"),
    ],
)
def test_bad_image_refuses_its_request(colours, body, error):
    """The message says which image it is, and what is wrong."""
    status, answer = predict(colours, body, "colours")
    assert status == 400
    assert error in answer["error"]


def test_marked_image_does_not_affect_others(marking):
    """If bad images are marked, the others get their answers, and a bad one gets the mark, the reason and a confidence of 0."""
    status, body = predict(marking, raw(png("red"), b"hello", png("blue")), "colours")
    assert status == 200
    first, second, third = body["predictions"]
    assert (first["label"], third["label"]) == ("red", "blue")
    assert second == {"label": f"!bad image: {NO_IMAGE}", "confidence": 0.0}
    status, body = predict(marking, {"instances": ["***"]}, "colours")
    assert body["predictions"] == [{"label": "!bad image: is not in web-safe base64", "confidence": 0.0}]


def test_late_bad_image_is_marked_in_its_place(marking):
    """Also in the second part of a large request."""
    status, body = predict(marking, raw(*[png("red")] * 40, b"", png("blue")), "colours")
    assert status == 200
    assert [answer["label"] for answer in body["predictions"]] == [*["red"] * 40, "!bad image: is empty", "blue"]


def test_top_k_marks_bad_images(marking):
    """The mark is the first label; all scores are 0."""
    status, body = predict(marking, raw(b"hello", png("red"), signature="top_k"), "colours")
    assert status == 200
    bad, good = body["predictions"]
    assert bad == {"labels": [f"!bad image: {NO_IMAGE}", "", "", ""], "scores": [0.0] * 4}
    assert good["labels"][0] == "red"


def test_metadata_has_the_three_signatures(colours):
    """Names, types and shapes are those of the graph that the other exporter makes."""
    _, _, data = ask(colours, "GET", "/v1/models/colours/metadata")
    found = parsed(data)["metadata"]["signature_def"]["signature_def"]
    shapes = {
        name: {
            way: {tensor: (info["dtype"], [dim["size"] for dim in info["tensor_shape"]["dim"]]) for tensor, info in tensors.items()}
            for way, tensors in (("inputs", signature["inputs"]), ("outputs", signature["outputs"]))
        }
        for name, signature in found.items()
    }  # fmt: skip
    text, number = ("DT_STRING", ["-1"]), ("DT_FLOAT", ["-1"])
    single = {"label": text, "confidence": number}
    assert shapes == {
        "serving_default": {"inputs": {"string_input": text}, "outputs": single},
        "raw_bytes": {"inputs": {"image_bytes": text}, "outputs": single},
        "top_k": {
            "inputs": {"image_bytes": text},
            "outputs": {"labels": ("DT_STRING", ["-1", "4"]), "scores": ("DT_FLOAT", ["-1", "4"])},
        },
    }
    assert {signature["method_name"] for signature in found.values()} == {"tensorflow/serving/predict"}


@pytest.fixture
def call(colours):
    """Calls Predict with one tensor."""
    with grpc.insecure_channel(colours.grpc) as channel:
        method = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=PredictRequest.SerializeToString,
            response_deserializer=PredictResponse.FromString,
        )

        def run(values, dtype=7, shape=None, **fields):
            request = PredictRequest()
            request.model_spec.name = "colours"
            tensor = request.inputs["string_input"]
            tensor.dtype = dtype
            for size in [len(values)] if shape is None else shape:
                tensor.tensor_shape.dim.add(size=size)
            tensor.string_val.extend(values)
            for name, value in fields.items():
                setattr(tensor, name, value)
            return method(request, timeout=60)

        yield run


def test_grpc_is_answered(call):
    """Labels are bytes, confidences floats, and the response names the version."""
    response = call([web_safe(png("green")).encode(), web_safe(png("blue")).encode()])
    assert list(response.outputs["label"].string_val) == [b"green", b"blue"]
    assert len(response.outputs["confidence"].float_val) == 2
    assert response.model_spec.version.value == 7


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ({"values": [b"hello"]}, "image 1 is not in web-safe base64"),
        ({"values": [b"aGVsbG8="]}, f"image 1 {NO_IMAGE}"),
        ({"values": [], "dtype": 1, "shape": [1]}, "string"),
        ({"values": [b"aGVsbG8="], "shape": [1, 1]}, "one dimension"),
        ({"values": [b"aGVsbG8="], "shape": []}, "one dimension"),
        ({"values": [b"aGVsbG8="] * 2, "shape": [1]}, "tensor parsing error"),
        ({"values": [b"aGVsbG8="], "shape": [2**40]}, "tensor parsing error"),
        ({"values": [b"aGVsbG8="], "shape": [-1]}, "tensor parsing error"),
        ({"values": [], "dtype": 14, "shape": [1]}, "tensor parsing error"),
        ({"values": [], "dtype": 20, "shape": []}, "tensor parsing error"),
        ({"values": [b"x"], "shape": [1] * 33}, "more than 32 dimensions"),
        ({"values": [], "dtype": 1, "shape": [2], "tensor_content": b"xyz"}, "tensor parsing error"),
    ],
)
def test_bad_tensor_is_invalid(call, tensor, words):
    """A tensor that cannot be read, or is not a list of texts, is INVALID_ARGUMENT; the server answers the next request."""
    with pytest.raises(grpc.RpcError) as refused:
        call(**tensor)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert words in refused.value.details()
    assert LABELS[0].encode() in call([web_safe(png("red")).encode()]).outputs["label"].string_val
