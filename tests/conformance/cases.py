"""TensorFlow Serving's REST API as data: requests, expected answers, and the lines of its source that define them.

Every `source` is a path below `tensorflow_serving/` in tensorflow/serving at tag 2.20.0, with its lines. No expectation
was copied from the answers of a server here.
"""

import gzip
import json
from dataclasses import dataclass, field

MODEL = "/v1/models/sample"
PREDICT = f"{MODEL}:predict"
AVAILABLE = {"version": "7", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
THE_STATUS = {"model_version_status": [AVAILABLE]}
HANDLER = "model_servers/http_rest_api_handler.cc"
UTIL = "model_servers/http_rest_api_util.cc"
TENSOR = "util/json_tensor.cc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One REST request. `answer` is the whole expected body, `error` a part of the expected error message."""

    name: str
    source: str
    path: str
    method: str = "GET"
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    answer: object = None
    error: str | None = None


def get(name, source, path, status=200, *, answer=None, error=None, method="GET"):
    """A case without a body."""
    return Case(name=name, source=source, path=path, status=status, answer=answer, error=error, method=method)


def good(name, source, request, answer, *, path=PREDICT, headers=None):
    """A prediction with this expected answer."""
    return Case(
        name=name, source=source, path=path, method="POST", body=_bytes(request), headers=headers or {}, answer=answer
    )


def bad(name, source, request, error, *, status=400, path=PREDICT, headers=None):
    """A prediction that is refused with this error."""
    return Case(
        name=name, source=source, path=path, method="POST", body=_bytes(request), headers=headers or {}, status=status,
        error=error,
    )  # fmt: skip


def _bytes(request):
    return request if isinstance(request, bytes) else json.dumps(request).encode()


def asks(signature, **body):
    """A predict body for another signature than serving_default."""
    return {"signature_name": signature, **body}


def nested(depth):
    """A number nested in this many lists."""
    return [nested(depth - 1)] if depth else 1.0


PATHS = [
    get("status", "g3doc/api_rest.md:447-465", MODEL, answer=THE_STATUS),
    get("status of a version", "g3doc/api_rest.md:30-34", f"{MODEL}/versions/7", answer=THE_STATUS),
    get("status of an unknown version", "model_servers/get_model_status_impl.cc:82-91", f"{MODEL}/versions/9", 404,
        error="Could not find version 9 of model sample"),
    get("status of an unknown model", "model_servers/get_model_status_impl.cc:96-101", "/v1/models/nobody", 404,
        error="Could not find any versions of model nobody"),
    get("status of a label is that of all versions", "model_servers/get_model_status_impl.cc:82-107",
        f"{MODEL}/labels/stable", answer=THE_STATUS),
    get("status needs a name", f"{HANDLER}:185-189", "/v1/models", 400, error="Missing model name in request."),
    get("metadata of an unknown model", "core/basic_manager.cc:138-140", "/v1/models/nobody/metadata", 404,
        error="Servable not found for request: Latest(nobody)"),
    get("metadata of an unknown version", "core/basic_manager.cc:138-140", f"{MODEL}/versions/9/metadata", 404,
        error="Servable not found for request: Specific(sample, 9)"),
    get("metadata in capitals is read as status", f"{HANDLER}:98-104", f"{MODEL}/METADATA", answer=THE_STATUS),
    get("paths are case-insensitive", f"{UTIL}:33-34", "/V1/Models/sample", answer=THE_STATUS),
    get("names may be percent-encoded", f"{UTIL}:109-114", "/v1/models/s%61mple", answer=THE_STATUS),
    get("a version that is not a 64-bit number", f"{UTIL}:115-122", f"{MODEL}/versions/99999999999999999999", 400,
        error="Failed to convert version: 99999999999999999999 to numeric."),
    get("a path of another form", f"{HANDLER}:74-75", "/v1/nothing", 400, error="Malformed request: GET /v1/nothing"),
    get("version and label together", f"{UTIL}:33-34", f"{MODEL}/versions/7/labels/stable", 400,
        error="Malformed request: GET /v1/models/sample/versions/7/labels/stable"),
    get("a query is read as part of the name", "util/net_http/server/internal/evhttp_request.cc:135-137", f"{MODEL}?a=1",
        404, error="Could not find any versions of model sample?a=1"),
    bad("a query after the verb", "util/net_http/server/internal/evhttp_request.cc:135-137", {"instances": [1.0]},
        f"Malformed request: POST {PREDICT}?a=1", path=f"{PREDICT}?a=1"),
    get("another method", f"{HANDLER}:74-105", MODEL, 400, method="PUT", error="Malformed request: PUT /v1/models/sample"),
    get("deletion", f"{HANDLER}:74-105", MODEL, 400, method="DELETE",
        error="Malformed request: DELETE /v1/models/sample"),
    get("GET of a prediction", f"{UTIL}:104-107", PREDICT, 400, error=f"Malformed request: GET {PREDICT}"),
    bad("POST of a status", f"{UTIL}:100-103", {}, f"Malformed request: POST {MODEL}", path=MODEL),
    bad("verbs are lower case", f"{HANDLER}:86-96", {"instances": [1.0]}, "Malformed request: POST",
        path=f"{MODEL}:Predict"),
    get("outside of /v1", "util/net_http/server/internal/evhttp_server.cc:175-177", "/v2/models/sample", 404),
]  # fmt: skip

ROWS = [
    good("rows of one input", "g3doc/api_rest.md:467-473", {"instances": [1.0, 2.0, 5.0]}, {"predictions": [2.5, 3.0, 4.5]}),
    good("a version may be named", "g3doc/api_rest.md:169-173", {"instances": [1.0]}, {"predictions": [2.5]},
         path=f"{MODEL}/versions/7:predict"),
    good("rows may name their input", f"{TENSOR}:532-567", {"instances": [{"x": 1.0}]}, {"predictions": [2.5]}),
    good("rows of two inputs and outputs", "g3doc/api_rest.md:219-239", asks("two", instances=[{"a": 3.0, "b": 1.0}]),
         {"predictions": [{"sum": 4.0, "difference": 2.0}]}),
    good("rows that are lists", "g3doc/api_rest.md:210-213", asks("pairs", instances=[[1.0, 2.0], [3.0, 4.0]]),
         {"predictions": [[2.0, 1.0], [4.0, 3.0]]}),
    good("an empty signature name is the default's", f"{HANDLER}:233-234", asks("", instances=[1.0]),
         {"predictions": [2.5]}),
    good("shapes are not compared with the signature's", "servables/tensorflow/predict_util.cc:119-161",
         {"instances": [[1.0, 2.0], [3.0, 4.0]]}, {"predictions": [[2.5, 3.0], [3.5, 4.0]]}),
    bad("no rows", f"{TENSOR}:687-690", {"instances": []}, "No values in 'instances' array"),
    bad("rows that are not a list", f"{TENSOR}:683-686", {"instances": 1.0}, "Expecting 'instances' to be an list/array"),
    bad("plain rows for two inputs", f"{TENSOR}:526-530", asks("two", instances=[1.0]),
        "instances is a plain list, but expecting list of objects"),
    bad("a row that lacks an input", f"{TENSOR}:568-573", asks("two", instances=[{"a": 1.0}]), "keys must be equal to: a,b"),
    bad("a row with an unknown input", f"{TENSOR}:448-451", {"instances": [{"another": 1.0}]},
        "does not have named input: another"),
    bad("a plain row among objects", f"{TENSOR}:552-555", {"instances": [{"x": 1.0}, 2.0]},
        "Expecting object but got list at item 1 of input list"),
    bad("an object among plain rows", f"{TENSOR}:575-579", {"instances": [1.0, {"x": 2.0}]},
        "Expecting value/list but got object at item 1 of input list"),
    bad("rows of different sizes", f"{TENSOR}:462-464", asks("pairs", instances=[[1.0, 2.0], [3.0]]),
        "Expecting tensor size: 2 but got: 1"),
    bad("rows of different shapes", f"{TENSOR}:465-468", asks("pairs", instances=[[1.0, 2.0], [[3.0, 4.0]]]),
        "Expecting shape [2] but got: [1,2]"),
    bad("a row that is not a tensor", f"{TENSOR}:422-428", asks("pairs", instances=[[[1.0, 2.0], [3.0]]]),
        "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
    bad("a row that is deeper in places", f"{TENSOR}:416-420", asks("pairs", instances=[[1.0, [2.0]]]),
        "Encountered list at unexpected level: 1 expected < 1"),
    bad("a row that is shallower in places", f"{TENSOR}:395-403", asks("pairs", instances=[[[1.0], 2.0]]),
        "found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
    bad("more dimensions than a tensor has", "tensorflow/core/framework/tensor_shape.h:61-63", {"instances": nested(300)}, ""),
    bad("an output without dimensions", f"{TENSOR}:986-989", asks("scalar", instances=[1.0]),
        "Tensor name: total has no shape information"),
    bad("outputs of different lengths", f"{TENSOR}:990-996", asks("uneven", instances=[1.0]), "has inconsistent batch size"),
]  # fmt: skip

COLUMNS = [
    good("a column", "g3doc/api_rest.md:296-303", {"inputs": [1.0, 2.0]}, {"outputs": [2.5, 3.0]}),
    good("a named column", "g3doc/api_rest.md:256-259", {"inputs": {"x": [1.0]}}, {"outputs": [2.5]}),
    good("two columns", "g3doc/api_rest.md:264-271", asks("two", inputs={"a": [3.0, 1.0], "b": [1.0, 1.0]}),
         {"outputs": {"sum": [4.0, 2.0], "difference": [2.0, 0.0]}}),
    good("unknown columns are ignored", f"{TENSOR}:631-646", {"inputs": {"x": [1.0], "another": [2.0]}}, {"outputs": [2.5]}),
    good("a column of one value", f"{TENSOR}:344-355", {"inputs": 1.0}, {"outputs": 2.5}),
    good("an output without dimensions as a column", f"{TENSOR}:952-958", asks("scalar", inputs=[1.0, 2.0]),
         {"outputs": 3.0}),
    good("outputs of different lengths as columns", f"{TENSOR}:1028-1048", asks("uneven", inputs=[1.0]),
         {"outputs": {"once": [1.0], "twice": [1.0, 1.0]}}),
    bad("a plain column for two inputs", f"{TENSOR}:618-622", asks("two", inputs=[1.0]),
        "inputs is a plain value/list, but expecting an object"),
    bad("a missing column", f"{TENSOR}:633-637", asks("two", inputs={"a": [1.0]}), "Missing named input: b in 'inputs' object."),
]  # fmt: skip

BODIES = [
    good("text after the object is ignored", f"{TENSOR}:483-486", b'{"instances": [1.0]} and more', {"predictions": [2.5]}),
    bad("no body", f"{TENSOR}:474-476", b"", "JSON Parse error: The document is empty"),
    bad("broken JSON", f"{TENSOR}:486-490", b'{"instances": [', "JSON Parse error: "),
    bad("not an object", f"{TENSOR}:492-500", b"[1.0]", "Is not object"),
    bad("neither rows nor columns", f"{TENSOR}:704", {}, "Missing 'inputs' or 'instances' key"),
    bad("rows and columns", f"{TENSOR}:677-682", {"instances": [1.0], "inputs": [1.0]},
        "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"),
    bad("a signature name that is not a string", f"{TENSOR}:508-514", {"signature_name": 1, "instances": [1.0]},
        "'signature_name' key must be a string value."),
    bad("an unknown signature", f"{HANDLER}:235-239", asks("another", instances=[1.0]),
        'Serving signature name: "another" not found in signature def'),
    bad("an unknown model", "g3doc/api_rest.md:490-497", {"instances": [1.0, 5.0]},
        "Servable not found for request: Latest(half)", status=404, path="/v1/models/half:predict"),
    bad("an unknown version", "core/basic_manager.cc:138-140", {"instances": [1.0]},
        "Servable not found for request: Specific(sample, 9)", status=404, path=f"{MODEL}/versions/9:predict"),
    bad("an unknown label", "model_servers/server_core.cc:890-891", {"instances": [1.0]},
        "Unrecognized servable version label: stable", path=f"{MODEL}/labels/stable:predict"),
    bad("the body is read before the model is looked up", f"{TENSOR}:659-666", b"{", "JSON Parse error: ",
        path="/v1/models/nobody:predict"),
    good("a gzip body", "util/net_http/server/internal/evhttp_request.cc:181-184", gzip.compress(b'{"instances": [1.0]}'),
         {"predictions": [2.5]}, headers={"Content-Encoding": "gzip"}),
    bad("an invalid gzip body counts as empty", "util/net_http/server/internal/evhttp_request.cc:251-258",
        b'{"instances": [1.0]}', "JSON Parse error: The document is empty", headers={"Content-Encoding": "gzip"}),
]  # fmt: skip

TYPES = [
    good("text, and bytes by the suffix of their name", "g3doc/api_rest.md:311-317", asks("text", instances=["Grüße ✓"]),
         {"predictions": [{"echo": "Grüße ✓", "echo_bytes": {"b64": "R3LDvMOfZSDinJM="}, "length": 11}]}),
    good("b64 objects stand for bytes, whatever their input's name", f"{TENSOR}:404-408",
         asks("text", inputs=[{"b64": "AP8="}, {"b64": "aGk="}]),
         {"outputs": {"echo": ["\x00\udcff", "hi"], "echo_bytes": [{"b64": "AP8="}, {"b64": "aGk="}], "length": [2, 2]}}),
    good("b64 objects in rows", f"{TENSOR}:532-536", asks("text", instances=[{"b64": "aGk="}]),
         {"predictions": [{"echo": "hi", "echo_bytes": {"b64": "aGk="}, "length": 2}]}),
    good("a lone b64 object is a column", f"{TENSOR}:613-617", asks("text", inputs={"b64": "aGk="}),
         {"outputs": {"echo": "hi", "echo_bytes": {"b64": "aGk="}, "length": 2}}),
    bad("invalid b64", f"{TENSOR}:383-387", asks("text", instances=[{"b64": "not base64!"}]), "Unable to base64 decode"),
    bad("b64 with another key is not bytes", f"{TENSOR}:358-372", asks("text", inputs=[{"b64": "aGk=", "x": 1}]),
        "not formatted correctly for base64 data"),
    good("each type is returned", f"{TENSOR}:290-342",
         asks("types", instances=[{"small": -3, "large": 2**53 + 1, "byte": 200, "flag": True, "fine": 0.1}]),
         {"predictions": [{"small": -3, "large": 2**53 + 1, "byte": 200, "flag": True, "fine": 0.1}]}),
    good("integers are accepted as floats", f"{TENSOR}:293-296", {"instances": [1]}, {"predictions": [2.5]}),
    good("NaN and Infinity as input and output", "g3doc/api_rest.md:385-399", b'{"instances": [NaN, Infinity, -Infinity]}',
         {"predictions": ["NaN", "Infinity", "-Infinity"]}),
    good("six digits if they are exact", f"{TENSOR}:129-147", {"instances": [0.2]}, {"predictions": [2.1]}),
    good("nine digits if six are not exact", f"{TENSOR}:141-149", asks("scalar", inputs=[1 / 3]), {"outputs": 0.333333343}),
    bad("text for a number", f"{TENSOR}:262-267", {"instances": ["one"]}, "Type: String is not of expected type: float"),
    bad("a boolean for a number", f"{TENSOR}:293-296", {"instances": [True]}, "Type: True is not of expected type: float"),
    bad("a number for text", f"{TENSOR}:311-314", asks("text", instances=[1]), "Type: Number is not of expected type: string"),
    bad("null for a number", f"{TENSOR}:262-267", {"instances": [None]}, "Type: Null is not of expected type: float"),
    bad("a fraction for an integer", f"{TENSOR}:303-309",
        asks("types", inputs={"small": [1.5], "large": [1], "byte": [1], "flag": [True], "fine": [1]}),
        "Type: Number is not of expected type: int32"),
    bad("a type without a JSON form, as a column", f"{TENSOR}:336-340", asks("half", inputs=[1.0]),
        "Conversion of JSON Value: 1.0 to type: half", status=501),
    bad("a type without a JSON form, in rows", f"{TENSOR}:583-587", asks("half", instances=[1.0]),
        "Failed to process element: 0 of 'instances' list."),
]  # fmt: skip

RUNS = [
    bad("an error of the graph", "model_servers/http_server.cc:56-57", asks("no_negatives", instances=[1.0, -1.0]),
        "no negatives please"),
    bad("a run over the time limit", "model_servers/http_rest_api_handler.cc:56-61", asks("never", instances=[1.0]),
        "", status=504),
]  # fmt: skip

CASES = [*PATHS, *ROWS, *COLUMNS, *BODIES, *TYPES, *RUNS]
