"""What a server of digits-vit answers over REST and gRPC.

Nothing here knows which server it asks: with SLIPWAY_SERVING_REST (a base URL) and SLIPWAY_SERVING_GRPC (host:port)
set it is the one at those addresses, such as a real tensorflow/serving that has digits-vit; else the stand-in.
"""

import base64
import concurrent.futures
import gzip
import http.client
import json
import os
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

pytestmark = pytest.mark.model

PAGE = Path(__file__).parents[2] / "docs" / "model.md"
MODEL = "digits-vit"
NAMES = ("three", "seven", "eight")
ANSWER_LIMIT_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server's two addresses, and the version that it serves."""

    rest: str
    grpc: str
    version: int

    def ask(self, method, path, body=None, headers=()):
        """One REST request on a connection of its own; (status, parsed body)."""
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.rest).netloc, timeout=ANSWER_LIMIT_S)
        try:
            return exchange(connection, method, path, body, headers)
        finally:
            connection.close()

    def predict(self, body, path=f"/v1/models/{MODEL}:predict", headers=()):
        """One predict request over REST; (status, parsed body)."""
        return self.ask("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)


def exchange(connection, method, path, body=None, headers=()):
    """One request on an open connection; (status, parsed body)."""
    connection.request(method, path, body, dict(headers))
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@pytest.fixture(scope="module")
def server(request):
    """The server at the addresses of the environment, else the stand-in."""
    rest, address = os.environ.get("SLIPWAY_SERVING_REST"), os.environ.get("SLIPWAY_SERVING_GRPC")
    if not rest or not address:
        stand_in = request.getfixturevalue("stand_in")
        rest, address = stand_in.rest, stand_in.grpc
    status, body = Server(rest=rest, grpc=address, version=0).ask("GET", f"/v1/models/{MODEL}")
    assert status == 200, body
    return Server(rest=rest, grpc=address, version=int(body["model_version_status"][0]["version"]))


@pytest.fixture(scope="module")
def cases(digits_export):
    """Each golden case by name: its REST body, its gRPC request, and the answers promised."""
    return {
        name: {
            "rest": (digits_export / "golden" / name / "rest.json").read_bytes(),
            "grpc": (digits_export / "golden" / name / "grpc.bin").read_bytes(),
            "image": json.loads((digits_export / "golden" / name / "rest.json").read_text())["instances"][0],
            **json.loads((digits_export / "golden" / name / "case.json").read_text()),
        }
        for name in NAMES
    }


def assert_answers(case, answer):
    """The answer is the case's label, with 🤗's own confidence."""
    assert set(answer) == {"label", "confidence"}
    assert answer["label"] == case["label"]
    assert answer["confidence"] == pytest.approx(case["reference"]["confidence"], abs=case["reference"]["tolerance"])


# --- REST -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_version", [False, True])
def test_status_is_available(server, by_version):
    """The model's status, asked with or without its version, is AVAILABLE; the version is a string."""
    path = f"/v1/models/{MODEL}" + (f"/versions/{server.version}" if by_version else "")
    entry = {
        "version": str(server.version),
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    assert server.ask("GET", path) == (200, {"model_version_status": [entry]})


@pytest.mark.parametrize("path", ["/v1/models/nobody", "/v1/models/digits-vit/versions/{unknown}"])
def test_status_of_unknown_is_404(server, path):
    """A model or version that is not served is 404, with the reason in `error`."""
    status, body = server.ask("GET", path.format(unknown=server.version + 1))
    assert status == 404
    assert set(body) == {"error"}


def test_metadata_names_the_signature(server):
    """The metadata holds the model's name, its version, and serving_default's inputs and outputs."""
    status, body = server.ask("GET", f"/v1/models/{MODEL}/metadata")
    assert status == 200
    assert body["model_spec"] == {"name": MODEL, "signature_name": "", "version": str(server.version)}
    signature = body["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert {name: info["dtype"] for name, info in signature["inputs"].items()} == {"string_input": "DT_STRING"}
    outputs = {name: info["dtype"] for name, info in signature["outputs"].items()}
    assert outputs == {"label": "DT_STRING", "confidence": "DT_FLOAT"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", ["", "/versions/{version}"])
def test_golden_case_is_answered_over_rest(server, cases, name, path):
    """A golden case's body, sent as it is, gets its label and confidence, from the version that was asked."""
    status, body = server.predict(
        cases[name]["rest"], f"/v1/models/{MODEL}{path}:predict".format(version=server.version)
    )
    assert status == 200, body
    (answer,) = body["predictions"]
    assert_answers(cases[name], answer)


@pytest.mark.parametrize("signature", ["serving_default", "raw_bytes", "top_k"])
def test_request_of_the_page_gets_the_answer_of_the_page(server, cases, signature):
    """What docs/model.md shows of each signature, with the images whole, is what a server is asked and what it answers."""
    _, _, shown = PAGE.read_text().partition(f"`{signature}`:\n```json\n")
    request, answer = (json.loads(line) for line in shown.splitlines()[:2])
    assert request["signature_name"] == signature
    images = [base64.urlsafe_b64decode(cases[name]["image"]) for name in NAMES]
    wholes = [whole(short, image) for short, image in zip(request["instances"], images, strict=False)]
    status, body = server.predict({**request, "instances": wholes})
    assert (status, rounded(body)) == (200, rounded(answer))


def whole(short, image):
    """An instance as the page shows it, with all of the image; the page shows how it begins."""
    if isinstance(short, dict):
        return {"b64": whole_text(short["b64"], base64.b64encode(image))}
    return whole_text(short, base64.urlsafe_b64encode(image))


def whole_text(short, text):
    """The text that the page cuts short."""
    assert text.decode().startswith(short.removesuffix("…"))
    return text.decode()


def rounded(value):
    """A JSON value with its numbers to four digits: what is beyond differs from CPU to CPU."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def test_batch_is_answered_in_order(server, cases):
    """Several images in a request get as many answers, in their order."""
    status, body = server.predict({"instances": [cases[name]["image"] for name in NAMES]})
    assert status == 200
    for name, answer in zip(NAMES, body["predictions"], strict=True):
        assert_answers(cases[name], answer)


def test_row_may_name_its_input(server, cases):
    """An instance may be an object with the input's name."""
    status, body = server.predict({"instances": [{"string_input": cases["three"]["image"]}]})
    assert status == 200
    assert_answers(cases["three"], body["predictions"][0])


@pytest.mark.parametrize("named", [False, True])
def test_column_format_is_answered_in_columns(server, cases, named):
    """`inputs` gets `outputs`: for each output the list of its values."""
    images = [cases["three"]["image"], cases["eight"]["image"]]
    status, body = server.predict({"inputs": {"string_input": images} if named else images})
    assert status == 200
    assert body["outputs"]["label"] == ["3", "8"]
    assert len(body["outputs"]["confidence"]) == 2


def test_b64_object_is_decoded_before_the_graph(server, cases):
    """{"b64": …} stands for the decoded bytes: here for the web-safe text that the graph decodes once more."""
    twice = base64.b64encode(cases["three"]["image"].encode()).decode()
    status, body = server.predict({"instances": [{"b64": twice}]})
    assert status == 200
    assert_answers(cases["three"], body["predictions"][0])


def test_b64_object_of_the_image_itself_is_400(server, cases):
    """An image in {"b64": …} would be decoded twice: the graph refuses its bytes."""
    image = base64.urlsafe_b64decode(cases["three"]["image"])
    status, _ = server.predict({"instances": [{"b64": base64.b64encode(image).decode()}]})
    assert status == 400


def test_path_is_read_in_any_case(server, cases):
    """`/V1/MODELS/` is `/v1/models/`; the verb alone is lower case."""
    status, _ = server.predict(cases["three"]["rest"], f"/V1/Models/{MODEL}:predict")
    assert status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"[]",
        b'{"signature_name": "serving_default"}',
        b'{"instances": []}',
        b'{"instances": "three"}',
        b'{"instances": [1]}',
        b'{"instances": [["aGVsbG8="]]}',
        b'{"instances": ["not base64!"]}',
        b'{"instances": ["aGVsbG8="]}',
        b'{"instances": [{"b64": "not base64!"}]}',
        b'{"instances": ["aGVsbG8="], "inputs": ["aGVsbG8="]}',
        b'{"instances": [{"another_input": "aGVsbG8="}]}',
        b'{"instances": ["aGVsbG8="], "signature_name": "another"}',
        *(
            b"".join([b'{"instances": ', b"[" * deep, b'"aGVsbG8="', b"]" * deep, b"}"])
            for deep in (32, 33, 64, 300, 900)
        ),
        b"[" * 988 + b"]" * 988,
    ],
    ids=lambda body: body[:60].decode(),
)
def test_bad_request_is_400(server, body):
    """What cannot be read or predicted is 400, with the reason in `error`."""
    status, answer = server.predict(body)
    assert status == 400
    assert set(answer) == {"error"}
    assert answer["error"]


@pytest.mark.parametrize("path", ["/v1/models/nobody:predict", "/v1/models/digits-vit/versions/{unknown}:predict"])
def test_prediction_of_unknown_is_404(server, cases, path):
    """A model or version that is not served is 404."""
    status, body = server.predict(cases["three"]["rest"], path.format(unknown=server.version + 1))
    assert status == 404
    assert set(body) == {"error"}


def test_version_and_label_together_are_400(server, cases):
    """A path names a version or a label, never both."""
    path = f"/v1/models/{MODEL}/versions/{server.version}/labels/stable:predict"
    assert server.predict(cases["three"]["rest"], path)[0] == 400


def test_gzip_body_is_read(server, cases):
    """A compressed request is answered like a plain one."""
    status, body = server.predict(gzip.compress(cases["seven"]["rest"]), headers={"Content-Encoding": "gzip"})
    assert status == 200
    assert_answers(cases["seven"], body["predictions"][0])


def test_connection_stays_open_even_after_an_error(server, cases):
    """One connection carries request after request, refused ones among them."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(server.rest).netloc, timeout=ANSWER_LIMIT_S)
    path = f"/v1/models/{MODEL}:predict"
    assert exchange(connection, "POST", path, cases["three"]["rest"])[0] == 200
    first = connection.sock
    assert exchange(connection, "POST", path, b"{")[0] == 400
    assert exchange(connection, "GET", f"/v1/models/{MODEL}")[0] == 200
    assert exchange(connection, "POST", path, cases["eight"]["rest"])[0] == 200
    assert connection.sock is first
    connection.close()


def test_many_clients_at_once_get_their_own_answers(server, cases):
    """Forty requests on forty connections: each gets the answer to its own question."""
    names = [NAMES[number % 3] for number in range(40)]
    with concurrent.futures.ThreadPoolExecutor(max_workers=20) as pool:
        answers = list(pool.map(lambda name: server.predict(cases[name]["rest"]), names))
    for name, (status, body) in zip(names, answers, strict=True):
        assert status == 200
        assert_answers(cases[name], body["predictions"][0])


# --- gRPC: with nothing but grpcio, protobuf and the export's descriptors ---------------------------------------------


@pytest.fixture(scope="module")
def messages(digits_export):
    """The message classes of the export's descriptors, by their short names."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString((digits_export / "descriptors.bin").read_bytes()).file:
        pool.Add(file)

    def find(name):
        package = "tensorflow" if name == "TensorProto" else "tensorflow.serving"
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))

    return find


@pytest.fixture(scope="module")
def call(server, messages):
    """Calls a method of a service with a message; the response comes back."""
    with grpc.insecure_channel(server.grpc) as channel:

        def run(service, method, request, response):
            ask = channel.unary_unary(
                f"/tensorflow.serving.{service}/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=messages(response).FromString,
            )
            return ask(request, timeout=ANSWER_LIMIT_S)

        yield run


@pytest.fixture
def predict(call):
    """Calls PredictionService.Predict."""
    return lambda request: call("PredictionService", "Predict", request, "PredictResponse")


def refused_code(ask):
    """The status code of a call that is refused."""
    with pytest.raises(grpc.RpcError) as refused:
        ask()
    return refused.value.code()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("by_version", [False, True])
def test_golden_case_is_answered_over_grpc(server, cases, messages, predict, name, by_version):  # noqa: PLR0917 (fixtures)
    """A golden case's request gets its label and confidence, and the response names the version that answered."""
    request = messages("PredictRequest").FromString(cases[name]["grpc"])
    if by_version:
        request.model_spec.version.value = server.version
    response = predict(request)
    assert response.model_spec.name == MODEL
    assert response.model_spec.version.value == server.version
    assert set(response.outputs) == {"label", "confidence"}
    answer = {
        "label": response.outputs["label"].string_val[0].decode(),
        "confidence": response.outputs["confidence"].float_val[0],
    }
    assert_answers(cases[name], answer)


def test_output_filter_leaves_the_rest_out(cases, messages, predict):
    """Only the outputs that are named come back."""
    request = messages("PredictRequest").FromString(cases["three"]["grpc"])
    request.output_filter.append("label")
    assert set(predict(request).outputs) == {"label"}


def test_status_over_grpc_is_available(server, messages, call):
    """GetModelStatus says AVAILABLE (30) and no error."""
    request = messages("GetModelStatusRequest")()
    request.model_spec.name = MODEL
    (entry,) = call("ModelService", "GetModelStatus", request, "GetModelStatusResponse").model_version_status
    assert (entry.version, entry.state, entry.status.error_code) == (server.version, 30, 0)


def test_metadata_over_grpc_holds_the_signature(server, messages, call):
    """GetModelMetadata gives the signatures for `signature_def`, and refuses any other question."""
    request = messages("GetModelMetadataRequest")()
    request.model_spec.name = MODEL
    request.metadata_field.append("signature_def")
    response = call("PredictionService", "GetModelMetadata", request, "GetModelMetadataResponse")
    assert response.model_spec.version.value == server.version
    signatures = messages("SignatureDefMap")()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def["serving_default"].inputs) == {"string_input"}
    request.metadata_field[0] = "another"
    code = refused_code(lambda: call("PredictionService", "GetModelMetadata", request, "GetModelMetadataResponse"))
    assert code == grpc.StatusCode.INVALID_ARGUMENT


def test_unknown_model_or_version_over_grpc_is_not_found(server, cases, messages, predict, call):
    """A model or version that is not served is NOT_FOUND, for predictions as for status."""
    request = messages("PredictRequest").FromString(cases["three"]["grpc"])
    request.model_spec.version.value = server.version + 1
    assert refused_code(lambda: predict(request)) == grpc.StatusCode.NOT_FOUND
    request = messages("PredictRequest").FromString(cases["three"]["grpc"])
    request.model_spec.name = "nobody"
    assert refused_code(lambda: predict(request)) == grpc.StatusCode.NOT_FOUND
    status = messages("GetModelStatusRequest")()
    status.model_spec.name = "nobody"
    code = refused_code(lambda: call("ModelService", "GetModelStatus", status, "GetModelStatusResponse"))
    assert code == grpc.StatusCode.NOT_FOUND


def test_bad_input_over_grpc_is_invalid(cases, messages, predict):
    """No image, no input, another input's name, type or number of dimensions: INVALID_ARGUMENT each."""
    good = messages("PredictRequest").FromString(cases["three"]["grpc"])
    no_image, nothing, misnamed, mistyped, deep = (messages("PredictRequest")() for _ in range(5))
    for request in (no_image, nothing, misnamed, mistyped, deep):
        request.CopyFrom(good)
    no_image.inputs["string_input"].string_val[0] = b"aGVsbG8="
    nothing.ClearField("inputs")
    misnamed.ClearField("inputs")
    misnamed.inputs["another_input"].CopyFrom(good.inputs["string_input"])
    mistyped.inputs["string_input"].Clear()
    mistyped.inputs["string_input"].dtype = 1  # DT_FLOAT
    mistyped.inputs["string_input"].tensor_shape.dim.add(size=1)
    mistyped.inputs["string_input"].float_val.append(1.0)
    for _ in range(39):
        deep.inputs["string_input"].tensor_shape.dim.add(size=1)
    for request in (no_image, nothing, misnamed, mistyped, deep):
        assert refused_code(lambda asked=request: predict(asked)) == grpc.StatusCode.INVALID_ARGUMENT


def test_unknown_signature_over_grpc_is_refused(cases, messages, predict):
    """A signature that the model lacks is the caller's mistake."""
    request = messages("PredictRequest").FromString(cases["three"]["grpc"])
    request.model_spec.signature_name = "another"
    code = refused_code(lambda: predict(request))
    assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}
