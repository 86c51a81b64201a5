"""The gRPC API."""

import concurrent.futures

import pytest

from tests.conformance.client import metric
from tests.conformance.servers import wait_until

pytestmark = [pytest.mark.model, pytest.mark.slow]
source = pytest.mark.source


@source("servables/tensorflow/predict_util.cc:95-189")
def test_grpc_prediction_names_its_version(sample, call, request_of):
    """The values are in the field of their type. The response names the version and the signature that answered."""
    response = call(sample, "Predict", request_of(x=[1.0, 2.0, 5.0]))
    assert list(response.outputs["y"].float_val) == [2.5, 3.0, 4.5]
    assert [dim.size for dim in response.outputs["y"].tensor_shape.dim] == [3]
    assert (response.model_spec.name, response.model_spec.version.value) == ("sample", 7)
    assert response.model_spec.signature_name == "serving_default"


@source("servables/tensorflow/predict_util.cc:129-159")
def test_output_filter_selects_outputs(sample, call, request_of):
    """Only the named outputs are returned. Unknown and duplicate names are refused."""
    both = {"a": [3.0], "b": [1.0]}
    assert dict(call(sample, "Predict", request_of("two", ["sum"], **both)).outputs).keys() == {"sum"}
    code, words = call(sample, "Predict", request_of("two", ["another"], **both))
    assert code == "INVALID_ARGUMENT"
    assert "output tensor alias not found in signature: another" in words
    code, words = call(sample, "Predict", request_of("two", ["sum", "sum"], **both))
    assert (code, words) == ("INVALID_ARGUMENT", "duplicate output tensor alias: sum")


@source("servables/tensorflow/predict_util.cc:51-73")
def test_wrong_number_of_inputs_is_invalid(sample, call, request_of):
    """Too few or too many inputs are refused. The message names the missing or extra ones."""
    code, words = call(sample, "Predict", request_of("two", a=[1.0]))
    assert code == "INVALID_ARGUMENT"
    assert "input size does not match signature: 1!=2 len({a}) != len({a,b})" in words
    assert "Missing but required: {b}." in words
    code, words = call(sample, "Predict", request_of(x=[1.0], another=[1.0]))
    assert code == "INVALID_ARGUMENT"
    assert "Sent extra: {another}." in words


@source("tensorflow/cc/saved_model/util.cc:38-79")
def test_input_of_another_name_is_invalid(sample, call, request_of):
    """An input with a wrong name is refused, even if the number of inputs is right."""
    assert call(sample, "Predict", request_of(another=[1.0]))[0] == "INVALID_ARGUMENT"


@source("servables/tensorflow/predict_util.cc:104-109")
def test_input_of_another_type_is_invalid(sample, call, request_of):
    """TensorFlow refuses text where the graph takes floats."""
    assert call(sample, "Predict", request_of(x=[b"text"]))[0] == "INVALID_ARGUMENT"


@source("servables/tensorflow/predict_util.cc:85-92")
def test_unknown_signature_is_a_failed_precondition(sample, call, request_of):
    """Over gRPC the code is FAILED_PRECONDITION; over REST the status is 400, with another message."""
    code, words = call(sample, "Predict", request_of("another", x=[1.0]))
    assert (code, words) == ("FAILED_PRECONDITION", 'Serving signature key "another" not found.')


@source("model_servers/server_core.cc:841-892")
def test_model_spec_is_read(sample, call, request_of, message):
    """A request may name a version. A wrong name or version is NOT_FOUND; no spec, no name or a label INVALID_ARGUMENT."""
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
    """A run that never ends is cancelled at its caller's deadline. The server counts each as DEADLINE_EXCEEDED."""
    labels = ('model_name="sample"', '"DEADLINE_EXCEEDED"')
    before = metric(sample, "request_count", *labels)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        never = list(pool.map(lambda _: call(sample, "Predict", request_of("never", x=[1.0]), 2), range(3)))
    assert {code for code, _ in never} == {"DEADLINE_EXCEEDED"}
    wait_until(lambda: metric(sample, "request_count", *labels) == before + 3, sample)


@source("model_servers/prediction_service_impl.cc:52-59")
def test_grpc_requests_are_counted(sample, call, request_of):
    """Answered predictions have a latency with the entry point GRPC."""
    labels = 'model_name="sample",API="Predict",entrypoint="GRPC"'
    before = metric(sample, "request_latency_count", labels)
    call(sample, "Predict", request_of(x=[1.0]))
    assert metric(sample, "request_latency_count", labels) == before + 1


@source("model_servers/get_model_status_impl.cc:66-109")
def test_status_over_grpc(sample, call, message):
    """The served version is AVAILABLE without error, another is NOT_FOUND, and a missing spec is INVALID_ARGUMENT."""
    request = message("GetModelStatusRequest")
    assert call(sample, "GetModelStatus", request) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    request.model_spec.name = "sample"
    (entry,) = call(sample, "GetModelStatus", request).model_version_status
    assert (entry.version, entry.state, entry.status.error_code) == (7, 30, 0)
    request.model_spec.version.value = 3
    assert call(sample, "GetModelStatus", request) == ("NOT_FOUND", "Could not find version 3 of model sample")


@source("servables/tensorflow/get_model_metadata_impl.cc:33-100")
def test_metadata_over_grpc(sample, call, message):
    """`signature_def` is the only metadata field, and a request must name it."""
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
