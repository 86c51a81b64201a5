"""TensorFlow Serving's API, as its documents and its source have it: what any server of this product's images answers.

Nothing here knows which server it asks (see conftest.py). Each test and each case names its source: a path below
`tensorflow_serving/` in tensorflow/serving at tag 2.20.0, or below `tensorflow/` in tensorflow/tensorflow at v2.20.0.
"""

import concurrent.futures
import http.client
import json
import re
import sys

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tests.conformance.cases import CASES, THE_STATUS
from tests.conformance.conftest import is_open, wait_until, wait_until_open

pytestmark = pytest.mark.model

SOURCE = re.compile(r"(tensorflow/)?[\w./-]+\.(cc|h|md|proto):\d+(-\d+)?")
METRIC = ":tensorflow:serving:"
source = pytest.mark.source


def ask(server, method, path, body=None, headers=(), *, connection=None):
    """One REST request; (status, content type, body as bytes)."""
    used = connection or http.client.HTTPConnection(*server.rest, timeout=60)
    used.request(method, path, body, dict(headers))
    answer = used.getresponse()
    result = answer.status, answer.headers["Content-Type"], answer.read()
    if connection is None:
        used.close()
    return result


def parsed(data):
    """A JSON body; NaN and Infinity as text, bytes that are no UTF-8 kept apart."""
    return json.loads(data.decode(errors="surrogateescape"), parse_constant=str)


def predict(server, body, model="plain"):
    """One prediction over REST; (status, parsed body)."""
    status, _, data = ask(server, "POST", f"/v1/models/{model}:predict", json.dumps(body).encode())
    return status, parsed(data)


def metric(server, name, *labels):
    """The value of a metric's line, 0 where there is none."""
    page = ask(server, "GET", "/monitoring/prometheus/metrics")[2].decode()
    lines = [line for line in page.splitlines() if line.startswith((f"{METRIC}{name}{{", f"{METRIC}{name} "))]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in labels))


def test_every_case_and_test_names_its_source():
    """No expectation without the line of the document or source that it comes from."""
    tests = {name: test for name, test in vars(sys.modules[__name__]).items() if name.startswith("test_")}
    own = {"test_every_case_and_test_names_its_source", "test_rest_request_is_answered"}
    marks = {
        name: [mark.args[0] for mark in getattr(test, "pytestmark", []) if mark.name == "source"]
        for name, test in tests.items()
        if name not in own
    }
    sources = {**{case.name: [case.source] for case in CASES}, **marks}
    assert len(sources) == len(CASES) + len(marks)
    assert [name for name, found in sources.items() if not found or not all(map(SOURCE.fullmatch, found))] == []


# --- REST -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rest_request_is_answered(sample, case):
    """The answer has the status, and the whole body or the words of the error, that the source says."""
    status, kind, data = ask(sample, case.method, case.path, case.body, case.headers)
    assert status == case.status, data
    if case.answer is not None:
        assert parsed(data) == case.answer
    if case.error is not None:
        assert list(parsed(data)) == ["error"]
        assert case.error in parsed(data)["error"]
        assert kind == "application/json"


@source("model_servers/http_rest_api_util.cc:36-38")
def test_answers_are_json(sample):
    """An answer says that it is JSON."""
    assert ask(sample, "GET", "/v1/models/sample")[1] == "application/json"


@source("model_servers/http_rest_api_util.cc:147-201")
def test_metadata_holds_every_signature(sample):
    """The model's name and version, and each signature's inputs and outputs with fields that are empty too."""
    status, _, data = ask(sample, "GET", "/v1/models/sample/versions/7/metadata")
    assert status == 200
    body = parsed(data)
    assert body["model_spec"] == {"name": "sample", "signature_name": "", "version": "7"}
    signatures = body["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "two", "text", "__saved_model_init_op"} <= set(signatures)
    (x,) = signatures["serving_default"]["inputs"].values()
    assert x["dtype"] == "DT_FLOAT"
    assert x["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert signatures["serving_default"]["method_name"] == "tensorflow/serving/predict"


@source("util/net_http/server/internal/evhttp_request.cc:187-203")
def test_chunked_body_is_read(sample):
    """A body may come in pieces."""
    pieces = iter([b'{"insta', b'nces": [1.0]}'])
    status, _, data = ask(sample, "POST", "/v1/models/sample:predict", pieces)
    assert (status, parsed(data)) == (200, {"predictions": [2.5]})


@source("util/net_http/server/internal/evhttp_request.cc:369-374")
def test_connection_stays_open_after_errors(sample):
    """One connection carries request after request, refused ones among them."""
    connection = http.client.HTTPConnection(*sample.rest, timeout=60)
    statuses = []
    for path, body in (("sample:predict", b"{"), ("nobody:predict", b'{"instances": [1.0]}'), ("sample:predict", b"{")):
        statuses.append(ask(sample, "POST", f"/v1/models/{path}", body, connection=connection)[0])
        first = connection.sock
    assert parsed(ask(sample, "GET", "/v1/models/sample", connection=connection)[2]) == THE_STATUS
    assert statuses == [400, 404, 400]
    assert connection.sock is first
    connection.close()


# --- metrics ----------------------------------------------------------------------------------------------------------


@source("model_servers/http_server.cc:89-117")
def test_metrics_have_their_path(sample):
    """The page is text at the default path; with a query it is refused, with the path that is meant."""
    status, kind, _ = ask(sample, "GET", "/monitoring/prometheus/metrics")
    assert (status, kind) == (200, "text/plain")
    status, kind, data = ask(sample, "GET", "/monitoring/prometheus/metrics?a=1")
    assert (status, kind) == (400, "text/plain")
    assert b"Should be /monitoring/prometheus/metrics" in data


@source("model_servers/http_server.cc:194-201")
def test_requests_are_counted_by_status(sample):
    """Each REST request counts by model and status; only answered ones have a latency."""
    counts = {code: metric(sample, "request_count", 'model_name="sample"', f'"{code}"') for code in ("OK", "NOT_FOUND")}
    latency = metric(sample, "request_latency_count", 'model_name="sample",API="predict",entrypoint="REST"')
    assert predict(sample, {"instances": [1.0]}, "sample")[0] == 200
    ask(sample, "POST", "/v1/models/sample/versions/9:predict", b'{"instances": [1.0]}')
    assert metric(sample, "request_count", 'model_name="sample"', '"OK"') == counts["OK"] + 1
    assert metric(sample, "request_count", 'model_name="sample"', '"NOT_FOUND"') == counts["NOT_FOUND"] + 1
    name = 'model_name="sample",API="predict",entrypoint="REST"'
    assert metric(sample, "request_latency_count", name) == latency + 1


@source("servables/tensorflow/util.cc:65-89")
def test_latency_has_33_limits_of_a_growing_scale(sample):
    """Buckets begin at 10 microseconds and grow by 1.8; the last has no limit and holds all."""
    assert predict(sample, {"instances": [1.0]}, "sample")[0] == 200
    page = ask(sample, "GET", "/monitoring/prometheus/metrics")[2].decode()
    label = f'{METRIC}runtime_latency_bucket{{model_name="sample",API="Predict",runtime="TF1",le="'
    limits = [line.removeprefix(label).partition('"')[0] for line in page.splitlines() if line.startswith(label)]
    assert len(limits) == 34
    assert limits[:3] == ["10", "18", "32.4"]
    assert limits[-1] == "+Inf"
    assert f"# TYPE {METRIC}runtime_latency histogram" in page
    assert f"# TYPE {METRIC}request_count counter" in page


@source("servables/tensorflow/saved_model_warmup_util.cc:225-229")
def test_warmup_is_measured(sample):
    """The two records of `sample` were replayed before it was served, and are counted."""
    path = f'model_path="{sample.root}/sample/7",status="OK"'
    assert metric(sample, "model_warmup_latency_count", path) == 1
    assert metric(sample, "model_warmup_records_read", path) == 2


# --- gRPC: with nothing but grpcio, protobuf and descriptors ----------------------------------------------------------


@pytest.fixture(scope="module")
def message(root):
    """Makes a message of that name from keyword arguments."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString((root / "descriptors.bin").read_bytes()).file:
        pool.Add(file)

    def make(name, **fields):
        package = "tensorflow.serving"
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))(**fields)

    return make


@pytest.fixture(scope="module")
def call(message):
    """Calls a method with a request; the response, or the code and words of the refusal."""

    def run(server, method, request, timeout_s=60):
        service = "ModelService" if method == "GetModelStatus" else "PredictionService"
        with grpc.insecure_channel(server.grpc) as channel:
            asked = channel.unary_unary(
                f"/tensorflow.serving.{service}/{method}",
                request_serializer=lambda sent: sent.SerializeToString(),
                response_deserializer=type(message(f"{method}Response")).FromString,
            )
            try:
                return asked(request, timeout=timeout_s)
            except grpc.RpcError as error:
                return error.code().name, error.details()

    return run


@pytest.fixture
def request_of(message):
    """Makes a PredictRequest: inputs as lists of floats or bytes."""

    def make(signature="", wanted=(), name="sample", version=None, **inputs):
        request = message("PredictRequest", output_filter=wanted)
        request.model_spec.name = name
        request.model_spec.signature_name = signature
        if version is not None:
            request.model_spec.version.value = version
        for alias, values in inputs.items():
            text = isinstance(values[0], bytes)
            tensor = request.inputs[alias]
            tensor.dtype = 7 if text else 1
            tensor.tensor_shape.dim.add(size=len(values))
            (tensor.string_val if text else tensor.float_val).extend(values)
        return request

    return make


@source("servables/tensorflow/predict_util.cc:95-189")
def test_grpc_prediction_names_its_version(sample, call, request_of):
    """The values are in the field of their type, and the response says which version and signature answered."""
    response = call(sample, "Predict", request_of(x=[1.0, 2.0, 5.0]))
    assert list(response.outputs["y"].float_val) == [2.5, 3.0, 4.5]
    assert [dim.size for dim in response.outputs["y"].tensor_shape.dim] == [3]
    assert (response.model_spec.name, response.model_spec.version.value) == ("sample", 7)
    assert response.model_spec.signature_name == "serving_default"


@source("servables/tensorflow/predict_util.cc:129-159")
def test_output_filter_leaves_the_rest_out(sample, call, request_of):
    """Only the outputs that are named come back; unknown ones and doubles are refused."""
    both = {"a": [3.0], "b": [1.0]}
    assert dict(call(sample, "Predict", request_of("two", ["sum"], **both)).outputs).keys() == {"sum"}
    code, words = call(sample, "Predict", request_of("two", ["another"], **both))
    assert code == "INVALID_ARGUMENT"
    assert "output tensor alias not found in signature: another" in words
    code, words = call(sample, "Predict", request_of("two", ["sum", "sum"], **both))
    assert (code, words) == ("INVALID_ARGUMENT", "duplicate output tensor alias: sum")


@source("servables/tensorflow/predict_util.cc:51-73")
def test_wrong_number_of_inputs_is_invalid(sample, call, request_of):
    """Too few and too many inputs are refused, with the names that are missing and too many."""
    code, words = call(sample, "Predict", request_of("two", a=[1.0]))
    assert code == "INVALID_ARGUMENT"
    assert "input size does not match signature: 1!=2 len({a}) != len({a,b})" in words
    assert "Missing but required: {b}." in words
    code, words = call(sample, "Predict", request_of(x=[1.0], another=[1.0]))
    assert code == "INVALID_ARGUMENT"
    assert "Sent extra: {another}." in words


@source("tensorflow/cc/saved_model/util.cc:38-79")
def test_input_of_another_name_is_invalid(sample, call, request_of):
    """The right number of inputs under a wrong name is refused."""
    assert call(sample, "Predict", request_of(another=[1.0]))[0] == "INVALID_ARGUMENT"


@source("servables/tensorflow/predict_util.cc:104-109")
def test_input_of_another_type_is_invalid(sample, call, request_of):
    """TensorFlow refuses text where the graph takes floats."""
    assert call(sample, "Predict", request_of(x=[b"text"]))[0] == "INVALID_ARGUMENT"


@source("servables/tensorflow/predict_util.cc:85-92")
def test_unknown_signature_is_a_failed_precondition(sample, call, request_of):
    """Over gRPC; over REST it is 400 in other words."""
    code, words = call(sample, "Predict", request_of("another", x=[1.0]))
    assert (code, words) == ("FAILED_PRECONDITION", 'Serving signature key "another" not found.')


@source("model_servers/server_core.cc:841-892")
def test_model_spec_is_read(sample, call, request_of, message):
    """A version may be named; a wrong name or version is NOT_FOUND; no spec, no name or a label INVALID_ARGUMENT."""
    assert list(call(sample, "Predict", request_of(version=7, x=[1.0])).outputs["y"].float_val) == [2.5]
    assert call(sample, "Predict", request_of(version=9, x=[1.0])) == (
        "NOT_FOUND",
        "Servable not found for request: Specific(sample, 9)",
    )
    assert call(sample, "Predict", request_of(name="nobody", x=[1.0]))[0] == "NOT_FOUND"
    assert call(sample, "Predict", message("PredictRequest")) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    assert call(sample, "Predict", request_of(name="", x=[1.0])) == (
        "INVALID_ARGUMENT",
        "ModelSpec has no name specified.",
    )
    labelled = request_of(x=[1.0])
    labelled.model_spec.version_label = "stable"
    assert call(sample, "Predict", labelled) == (
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: stable",
    )


@source("model_servers/prediction_service_impl.cc:42-59")
def test_deadline_of_the_caller_ends_the_run(sample, call, request_of):
    """A run that never ends is called off with its caller: the server counts each as DEADLINE_EXCEEDED."""
    labels = ('model_name="sample"', '"DEADLINE_EXCEEDED"')
    before = metric(sample, "request_count", *labels)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        never = list(pool.map(lambda _: call(sample, "Predict", request_of("never", x=[1.0]), 2), range(3)))
    assert {code for code, _ in never} == {"DEADLINE_EXCEEDED"}
    wait_until(lambda: metric(sample, "request_count", *labels) == before + 3, sample)


@source("model_servers/prediction_service_impl.cc:52-59")
def test_grpc_requests_are_counted(sample, call, request_of):
    """Answered predictions have a latency of their own entry point."""
    labels = 'model_name="sample",API="Predict",entrypoint="GRPC"'
    before = metric(sample, "request_latency_count", labels)
    call(sample, "Predict", request_of(x=[1.0]))
    assert metric(sample, "request_latency_count", labels) == before + 1


@source("model_servers/get_model_status_impl.cc:66-109")
def test_status_over_grpc(sample, call, message):
    """The version is AVAILABLE without error; what is not served is NOT_FOUND; no spec is INVALID_ARGUMENT."""
    request = message("GetModelStatusRequest")
    assert call(sample, "GetModelStatus", request) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    request.model_spec.name = "sample"
    (entry,) = call(sample, "GetModelStatus", request).model_version_status
    assert (entry.version, entry.state, entry.status.error_code) == (7, 30, 0)
    request.model_spec.version.value = 3
    assert call(sample, "GetModelStatus", request) == ("NOT_FOUND", "Could not find version 3 of model sample")


@source("servables/tensorflow/get_model_metadata_impl.cc:33-100")
def test_metadata_over_grpc(sample, call, message):
    """Signatures are what there is to ask for, and have to be asked for."""
    request = message("GetModelMetadataRequest", metadata_field=["signature_def"])
    assert call(sample, "GetModelMetadata", request) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    request.model_spec.name = "sample"
    response = call(sample, "GetModelMetadata", request)
    assert (response.model_spec.name, response.model_spec.version.value) == ("sample", 7)
    signatures = message("SignatureDefMap")
    assert response.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def["two"].outputs) == {"sum", "difference"}
    del request.metadata_field[:]
    code, words = call(sample, "GetModelMetadata", request)
    assert (code, words) == ("INVALID_ARGUMENT", "GetModelMetadataRequest must specify at least one metadata_field")
    request.metadata_field.append("another")
    code, words = call(sample, "GetModelMetadata", request)
    assert (code, words) == ("INVALID_ARGUMENT", "Metadata field another is not supported")


# --- batching ---------------------------------------------------------------------------------------------------------


def at_once(server, *bodies):
    """Predictions that are sent together; their answers in order."""
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: predict(server, body), bodies))


@source("tensorflow/core/kernels/batching_util/shared_batch_scheduler.h:936-952")
def test_requests_that_arrive_together_run_once(batching):
    """Two rows of two requests fill the batch: one run, and each gets its own answer."""
    before = metric(batching, "batching_session:wrapped_run_count")
    answers = at_once(batching, {"instances": [1.0]}, {"instances": [2.0]})
    assert answers == [(200, {"predictions": [2.5]}), (200, {"predictions": [3.0]})]
    assert metric(batching, "batching_session:wrapped_run_count") == before + 1


@source("batching/batching_session.cc:729-744")
def test_one_error_fails_every_merged_request(batching):
    """A row that the graph refuses fails the request beside it too, which alone is answered."""
    good, wrong = ({"signature_name": "no_negatives", "instances": [x]} for x in (1.0, -1.0))
    answers = at_once(batching, good, wrong)
    assert [status for status, _ in answers] == [400, 400]
    assert all("no negatives please" in body["error"] for _, body in answers)
    good["instances"] = [1.0, 1.0]
    assert predict(batching, good) == (200, {"predictions": [1.0, 1.0]})


@source("tensorflow/core/kernels/batching_util/shared_batch_scheduler.h:1106-1112")
def test_request_larger_than_a_batch_is_invalid(batching):
    """Three rows do not fit into two."""
    status, body = predict(batching, {"instances": [1.0, 2.0, 3.0]})
    assert status == 400
    assert "Task size 3 is larger than maximum input batch size 2" in body["error"]


@source("batching/batching_session.cc:533-546")
def test_different_shapes_do_not_merge(batching):
    """Rows of different shapes in one batch are refused, both."""
    answers = at_once(batching, {"instances": [[1.0]]}, {"instances": [[1.0, 2.0]]})
    assert [status for status, _ in answers] == [400, 400]
    assert all("from different tasks have different shapes" in body["error"] for _, body in answers)


@source("batching/batching_session.cc:629-637")
def test_output_that_is_no_batch_is_refused(batching):
    """A batched output has as many rows as the input."""
    status, body = predict(batching, {"signature_name": "scalar", "inputs": [1.0, 2.0]})
    assert (status, body) == (400, {"error": "Batched output tensor has 0 dimensions"})
    status, body = predict(batching, {"signature_name": "uneven", "inputs": [1.0, 2.0]})
    assert status == 400
    assert "0th dimension does not equal the sum of the 0th dimension sizes" in body["error"]


@source("tensorflow/core/kernels/batching_util/shared_batch_scheduler.h:1126-1147")
def test_full_queue_is_unavailable(batching, call, request_of):
    """While the one thread is busy, one request waits in the one batch; the next is turned away with 503."""
    taken = metric(batching, "batching_session:queuing_latency_count")
    never = request_of("never", name="plain", x=[1.0, 1.0])
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        busy = pool.submit(call, batching, "Predict", never, 3)
        wait_until(lambda: metric(batching, "batching_session:queuing_latency_count") > taken, batching)
        answers = dict(at_once(batching, {"instances": [1.0, 2.0]}, {"instances": [1.0, 2.0]}))
        assert busy.result()[0] == "DEADLINE_EXCEEDED"
    assert answers.keys() == {200, 503}
    assert answers[200] == {"predictions": [2.5, 3.0]}
    assert "The batch scheduling queue to which this task was submitted is full" in answers[503]["error"]


# --- starting ---------------------------------------------------------------------------------------------------------


@source("model_servers/main.cc:341-346")
@pytest.mark.parametrize(
    "name",
    ["broken", "warmup-unreadable", "warmup-no-tfrecord", "warmup-failing", "warmup-too-many", "warmup-large", "no number",
     "batching file alone", "no batching file", "unknown field"],
)  # fmt: skip
def test_server_that_cannot_start_ends_with_255(refused, name):
    """A model that cannot be loaded, a bad warmup record, a bad flag or configuration: exit(-1), no port open."""
    server = refused[name]
    wait_until(lambda: server.exit_code() is not None, server)
    assert server.exit_code() == 255
    assert not is_open(server)


@source("servables/tensorflow/saved_model_warmup_util.cc:116-130")
def test_bad_warmup_says_what_is_wrong(refused):
    """The log has the reason: a record that is none, one that fails, one too many."""
    expected = {
        "warmup-unreadable": "Failed to parse warmup record",
        "warmup-failing": "no negatives please",
        "warmup-too-many": "Number of warmup records exceeds the maximum (1000)",
    }
    for name, words in expected.items():
        wait_until(lambda server=refused[name]: server.exit_code() is not None, refused[name])
        assert words in refused[name].log()


@source("servables/tensorflow/saved_model_bundle_source_adapter.cc:77-83")
def test_warmup_is_batched_like_any_request(refused):
    """A record of three rows fails the load of a server that joins at most two."""
    server = refused["warmup-large"]
    wait_until(lambda: server.exit_code() is not None, server)
    assert "Task size 3 is larger than maximum input batch size 2" in server.log()


@source("util/retrier.cc:27-55")
def test_load_is_tried_again_and_newer_versions_take_over(start, root, mend, call, request_of):
    """A model that is mended between two tries is served; a larger version takes its place; the older one has ended."""
    server = start("mended", "--max_num_load_retries=100000", "--load_retry_interval_micros=200000", "--no_such_flag=1")
    wait_until(lambda: server.log().count("failed") > 1, server)
    assert not is_open(server)
    mend("mended", "1")
    wait_until_open(server)
    assert call(server, "Predict", request_of(name="mended", x=[1.0])).model_spec.version.value == 1
    mend("mended", "0012")
    wait_until(lambda: b'"12"' in ask(server, "GET", "/v1/models/mended")[2], server)
    wait_until(lambda: states(server) == [("12", "AVAILABLE"), ("1", "END")], server)
    assert call(server, "Predict", request_of(name="mended", x=[1.0])).model_spec.version.value == 12
    assert "no_such_flag" in server.log()  # named, and no more (model_servers/main.cc:333-335)


def states(server):
    """The versions and their states, as they come."""
    body = parsed(ask(server, "GET", "/v1/models/mended")[2])
    return [(entry["version"], entry["state"]) for entry in body["model_version_status"]]


@source("servables/tensorflow/saved_model_warmup_util.cc:125-130")
def test_thousand_warmup_records_are_replayed(start):
    """A thousand records are allowed."""
    server = start("warmup-full", "--monitoring_config_file={root}/monitoring.txt")
    wait_until_open(server)
    path = f'model_path="{server.root}/warmup-full/7",status="OK"'
    assert metric(server, "model_warmup_records_read", path) == 1000
