"""What a server of digits-vit answers over REST.

The tests do not depend on which server they use. If SLIPWAY_SERVING_REST (a base URL) and SLIPWAY_SERVING_GRPC
(host:port) are set, it is the server at these addresses, such as a real tensorflow/serving with digits-vit; otherwise they
run against the stand-in and against the ONNX server.
"""

import base64
import concurrent.futures
import gzip
import http.client
import json
import urllib.parse
from pathlib import Path

import pytest

from tests.local.serving.contract import ANSWER_LIMIT_S, MODEL, NAMES, assert_answers, exchange

pytestmark = pytest.mark.model

PAGE = Path(__file__).parents[3] / "docs" / "model.md"


@pytest.mark.parametrize("by_version", [False, True])
def test_status_is_available(server, by_version):
    """The model's status is AVAILABLE, requested with or without its version. The version is a string."""
    path = f"/v1/models/{MODEL}" + (f"/versions/{server.version}" if by_version else "")
    entry = {
        "version": str(server.version),
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    assert server.ask("GET", path) == (200, {"model_version_status": [entry]})


@pytest.mark.parametrize("path", ["/v1/models/nobody", "/v1/models/digits-vit/versions/{unknown}"])
def test_status_of_unknown_is_404(server, path):
    """A model or version that is not served gives 404, with the reason in `error`."""
    status, body = server.ask("GET", path.format(unknown=server.version + 1))
    assert status == 404
    assert set(body) == {"error"}


def test_metadata_names_the_signature(server):
    """The metadata has the model's name, its version, and serving_default's inputs and outputs."""
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
    """A golden case's body, sent unchanged, gets its label and confidence, also from a named version."""
    status, body = server.predict(
        cases[name]["rest"], f"/v1/models/{MODEL}{path}:predict".format(version=server.version)
    )
    assert status == 200, body
    (answer,) = body["predictions"]
    assert_answers(cases[name], answer)


@pytest.mark.parametrize("signature", ["serving_default", "raw_bytes", "top_k"])
def test_request_in_the_docs_gets_the_answer_in_the_docs(server, cases, signature):
    """For each signature, the request in docs/model.md with complete images gets the answer that the page shows."""
    _, _, shown = PAGE.read_text().partition(f"`{signature}`:\n```json\n")
    request, answer = (json.loads(line) for line in shown.splitlines()[:2])
    assert request["signature_name"] == signature
    images = [base64.urlsafe_b64decode(cases[name]["image"]) for name in NAMES]
    wholes = [whole(short, image) for short, image in zip(request["instances"], images, strict=False)]
    status, body = server.predict({**request, "instances": wholes})
    assert (status, rounded(body)) == (200, rounded(answer))


def whole(short, image):
    """An instance of the page with the complete image, of which the page shows only the beginning."""
    if isinstance(short, dict):
        return {"b64": whole_text(short["b64"], base64.b64encode(image))}
    return whole_text(short, base64.urlsafe_b64encode(image))


def whole_text(short, text):
    """The complete text that the page abbreviates."""
    assert text.decode().startswith(short.removesuffix("…"))
    return text.decode()


def rounded(value):
    """A JSON value with its floats rounded to four decimals, since further digits differ between CPUs."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def test_batch_is_answered_in_order(server, cases):
    """A request with several images gets one answer for each, in the same order."""
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
    """A request with `inputs` gets `outputs`: for each output the list of its values."""
    images = [cases["three"]["image"], cases["eight"]["image"]]
    status, body = server.predict({"inputs": {"string_input": images} if named else images})
    assert status == 200
    assert body["outputs"]["label"] == ["3", "8"]
    assert len(body["outputs"]["confidence"]) == 2


def test_b64_object_is_decoded_before_the_graph(server, cases):
    """{"b64": …} means the decoded bytes: here the web-safe base64 text, which the graph decodes again."""
    twice = base64.b64encode(cases["three"]["image"].encode()).decode()
    status, body = server.predict({"instances": [{"b64": twice}]})
    assert status == 200
    assert_answers(cases["three"], body["predictions"][0])


def test_b64_object_of_the_image_itself_is_400(server, cases):
    """An image in {"b64": …} is decoded before the graph, which refuses its bytes."""
    image = base64.urlsafe_b64decode(cases["three"]["image"])
    status, _ = server.predict({"instances": [{"b64": base64.b64encode(image).decode()}]})
    assert status == 400


def test_path_is_case_insensitive(server, cases):
    """`/V1/Models/` means `/v1/models/`; only the verb must be lower case."""
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
    """An invalid request gives 400, with the reason in `error`."""
    status, answer = server.predict(body)
    assert status == 400
    assert set(answer) == {"error"}
    assert answer["error"]


@pytest.mark.parametrize("path", ["/v1/models/nobody:predict", "/v1/models/digits-vit/versions/{unknown}:predict"])
def test_prediction_of_unknown_is_404(server, cases, path):
    """A prediction for a model or version that is not served gives 404."""
    status, body = server.predict(cases["three"]["rest"], path.format(unknown=server.version + 1))
    assert status == 404
    assert set(body) == {"error"}


def test_version_and_label_together_are_400(server, cases):
    """A path may name a version or a label, but not both."""
    path = f"/v1/models/{MODEL}/versions/{server.version}/labels/stable:predict"
    assert server.predict(cases["three"]["rest"], path)[0] == 400


def test_gzip_body_is_read(server, cases):
    """A compressed request gets the same answer as a plain one."""
    status, body = server.predict(gzip.compress(cases["seven"]["rest"]), headers={"Content-Encoding": "gzip"})
    assert status == 200
    assert_answers(cases["seven"], body["predictions"][0])


def test_connection_stays_open_after_an_error(server, cases):
    """One connection serves request after request, also after refused ones."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(server.rest).netloc, timeout=ANSWER_LIMIT_S)
    path = f"/v1/models/{MODEL}:predict"
    assert exchange(connection, "POST", path, cases["three"]["rest"])[0] == 200
    first = connection.sock
    assert exchange(connection, "POST", path, b"{")[0] == 400
    assert exchange(connection, "GET", f"/v1/models/{MODEL}")[0] == 200
    assert exchange(connection, "POST", path, cases["eight"]["rest"])[0] == 200
    assert connection.sock is first
    connection.close()


def test_concurrent_clients_get_their_own_answers(server, cases):
    """Each of forty requests on forty connections gets its own answer."""
    names = [NAMES[number % 3] for number in range(40)]
    with concurrent.futures.ThreadPoolExecutor(max_workers=20) as pool:
        answers = list(pool.map(lambda name: server.predict(cases[name]["rest"]), names))
    for name, (status, body) in zip(names, answers, strict=True):
        assert status == 200
        assert_answers(cases[name], body["predictions"][0])
