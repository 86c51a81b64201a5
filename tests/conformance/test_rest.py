"""The REST API and the metrics page."""

import http.client

import pytest

from slipway.serving.metrics import PAGE, read_page
from tests.conformance.cases import CASES, THE_STATUS
from tests.conformance.client import METRIC, ask, metric, parsed, predict

pytestmark = [pytest.mark.model, pytest.mark.slow]
source = pytest.mark.source


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rest_request_is_answered(sample, case):
    """The answer has the expected status, and the expected body or error message."""
    status, kind, data = ask(sample, case.method, case.path, case.body, case.headers)
    assert status == case.status, data
    if case.answer is not None:
        assert parsed(data) == case.answer
    if case.error is not None:
        assert list(parsed(data)) == ["error"]
        assert case.error in parsed(data)["error"]
        assert kind == "application/json"


@source("model_servers/http_rest_api_util.cc:36-38")
def test_content_type_is_json(sample):
    """An answer has the content type of JSON."""
    assert ask(sample, "GET", "/v1/models/sample")[1] == "application/json"


@source("model_servers/http_rest_api_util.cc:147-201")
def test_metadata_has_every_signature(sample):
    """Metadata has the model's name and version, and each signature's inputs and outputs, with empty fields too."""
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
    """A body may be sent in chunks."""
    pieces = iter([b'{"insta', b'nces": [1.0]}'])
    status, _, data = ask(sample, "POST", "/v1/models/sample:predict", pieces)
    assert (status, parsed(data)) == (200, {"predictions": [2.5]})


@source("util/net_http/server/internal/evhttp_request.cc:369-374")
def test_connection_stays_open_after_errors(sample):
    """One connection serves request after request, also after refused ones."""
    connection = http.client.HTTPConnection(*sample.rest, timeout=60)
    statuses = []
    for path, body in (("sample:predict", b"{"), ("nobody:predict", b'{"instances": [1.0]}'), ("sample:predict", b"{")):
        statuses.append(ask(sample, "POST", f"/v1/models/{path}", body, connection=connection)[0])
        first = connection.sock
    assert parsed(ask(sample, "GET", "/v1/models/sample", connection=connection)[2]) == THE_STATUS
    assert statuses == [400, 404, 400]
    assert connection.sock is first
    connection.close()


@source("model_servers/http_server.cc:89-117")
def test_metrics_have_their_path(sample):
    """The page is text at the default path. With a query it is refused, and the message names the path."""
    status, kind, _ = ask(sample, "GET", "/monitoring/prometheus/metrics")
    assert (status, kind) == (200, "text/plain")
    status, kind, data = ask(sample, "GET", "/monitoring/prometheus/metrics?a=1")
    assert (status, kind) == (400, "text/plain")
    assert b"Should be /monitoring/prometheus/metrics" in data


@source("model_servers/http_server.cc:194-201")
def test_requests_are_counted_by_status(sample):
    """Each REST request is counted by model and status. Only successful ones have a latency."""
    counts = {code: metric(sample, "request_count", 'model_name="sample"', f'"{code}"') for code in ("OK", "NOT_FOUND")}
    latency = metric(sample, "request_latency_count", 'model_name="sample",API="predict",entrypoint="REST"')
    assert predict(sample, {"instances": [1.0]}, "sample")[0] == 200
    ask(sample, "POST", "/v1/models/sample/versions/9:predict", b'{"instances": [1.0]}')
    assert metric(sample, "request_count", 'model_name="sample"', '"OK"') == counts["OK"] + 1
    assert metric(sample, "request_count", 'model_name="sample"', '"NOT_FOUND"') == counts["NOT_FOUND"] + 1
    name = 'model_name="sample",API="predict",entrypoint="REST"'
    assert metric(sample, "request_latency_count", name) == latency + 1


@source("model_servers/http_server.cc:194-201")
def test_probes_are_counted_apart_from_predictions(sample):
    """A status request is a request of its model too. Its latency has no API: only that tells it from a prediction."""
    labels = ('model_name="sample"', 'API=""', 'entrypoint="REST"')
    counted = metric(sample, "request_count", 'model_name="sample"', '"OK"')
    timed = metric(sample, "request_latency_count", *labels)
    assert ask(sample, "GET", "/v1/models/sample/versions/7")[0] == 200
    assert metric(sample, "request_count", 'model_name="sample"', '"OK"') == counted + 1
    assert metric(sample, "request_latency_count", *labels) == timed + 1


@source("servables/tensorflow/util.cc:65-89")
@pytest.mark.parametrize(
    "histogram",
    [
        'runtime_latency_bucket{model_name="sample",API="Predict",runtime="TF1"',
        'request_latency_bucket{model_name="sample",API="predict",entrypoint="REST"',
    ],
)
def test_latency_has_33_exponential_bounds(sample, histogram):
    """The bounds begin at 10 microseconds and grow by the factor 1.8. The last bucket has no bound."""
    assert predict(sample, {"instances": [1.0]}, "sample")[0] == 200
    page = ask(sample, "GET", "/monitoring/prometheus/metrics")[2].decode()
    label = f'{METRIC}{histogram},le="'
    limits = [line.removeprefix(label).partition('"')[0] for line in page.splitlines() if line.startswith(label)]
    assert len(limits) == 34
    assert limits[:3] == ["10", "18", "32.4"]
    assert limits[-1] == "+Inf"
    assert f"# TYPE {METRIC}{histogram.partition('_bucket')[0]} histogram" in page
    assert f"# TYPE {METRIC}request_count counter" in page


@source("util/prometheus_exporter.cc:65-142")
def test_a_bake_reads_the_page(sample):
    """Slipway's own reader finds a prediction, and a request for a version that is not there, on the whole page."""

    def counts():
        return read_page(ask(sample, "GET", PAGE)[2].decode(), "sample")

    before = counts()
    assert predict(sample, {"instances": [1.0]}, "sample")[0] == 200
    ask(sample, "POST", "/v1/models/sample/versions/9:predict", b'{"instances": [1.0]}')
    found = counts().minus(before)
    assert (found.answered, found.errors, found.refused) == (1, 0, 1)
    assert 0 < found.mean_ms <= found.p95_within_ms


@source("servables/tensorflow/saved_model_warmup_util.cc:225-229")
def test_warmup_is_measured(sample):
    """The two records of `sample` were replayed before it was served, and they are counted."""
    path = f'model_path="{sample.root}/sample/7",status="OK"'
    assert metric(sample, "model_warmup_latency_count", path) == 1
    assert metric(sample, "model_warmup_records_read", path) == 2
