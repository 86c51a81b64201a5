"""What a server of digits-vit answers over gRPC, to a client with only grpcio, protobuf and the export's descriptors.

The servers are those of test_rest_contract.py.
"""

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tests.local.serving.contract import ANSWER_LIMIT_S, MODEL, NAMES, assert_answers

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def messages(digits_export):
    """The message classes of the export's descriptors by their short names."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString((digits_export / "descriptors.bin").read_bytes()).file:
        pool.Add(file)

    def find(name):
        package = "tensorflow" if name == "TensorProto" else "tensorflow.serving"
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))

    return find


@pytest.fixture(scope="module")
def call(server, messages):
    """Calls a method of a service with a message and returns the response."""
    with grpc.insecure_channel(server.grpc) as channel:

        def run(service, method, request, response):
            method_call = channel.unary_unary(
                f"/tensorflow.serving.{service}/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=messages(response).FromString,
            )
            return method_call(request, timeout=ANSWER_LIMIT_S)

        yield run


@pytest.fixture
def predict(call):
    """Calls PredictionService.Predict."""
    return lambda request: call("PredictionService", "Predict", request, "PredictResponse")


def refused_code(ask):
    """The status code of a refused call."""
    with pytest.raises(grpc.RpcError) as refused:
        ask()
    return refused.value.code()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("by_version", [False, True])
def test_golden_case_is_answered_over_grpc(server, cases, messages, predict, name, by_version):  # noqa: PLR0917 (fixtures)
    """A golden request gets the expected label and confidence. The response names the version that answered."""
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


def test_output_filter_selects_outputs(cases, messages, predict):
    """Only the named outputs are returned."""
    request = messages("PredictRequest").FromString(cases["three"]["grpc"])
    request.output_filter.append("label")
    assert set(predict(request).outputs) == {"label"}


def test_status_over_grpc_is_available(server, messages, call):
    """GetModelStatus returns AVAILABLE (30) without an error."""
    request = messages("GetModelStatusRequest")()
    request.model_spec.name = MODEL
    (entry,) = call("ModelService", "GetModelStatus", request, "GetModelStatusResponse").model_version_status
    assert (entry.version, entry.state, entry.status.error_code) == (server.version, 30, 0)


def test_metadata_over_grpc_has_the_signature(server, messages, call):
    """GetModelMetadata returns the signatures for `signature_def`, and refuses any other field."""
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
    """A model or version that is not served is NOT_FOUND, for predictions and for status."""
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
    """No image, no input, or an input of another name, type or number of dimensions is INVALID_ARGUMENT."""
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
    """A signature that the model does not have is INVALID_ARGUMENT or FAILED_PRECONDITION."""
    request = messages("PredictRequest").FromString(cases["three"]["grpc"])
    request.model_spec.signature_name = "another"
    code = refused_code(lambda: predict(request))
    assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}
