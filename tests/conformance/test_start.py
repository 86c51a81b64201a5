"""How a server starts, loads models and fails."""

import pytest

from tests.conformance.client import ask, metric, parsed, predict
from tests.conformance.servers import is_open, wait_until, wait_until_open

pytestmark = [pytest.mark.model, pytest.mark.slow]
source = pytest.mark.source


@source("model_servers/main.cc:341-346")
@pytest.mark.parametrize(
    "name",
    ["broken", "warmup-unreadable", "warmup-no-tfrecord", "warmup-failing", "warmup-too-many", "warmup-large", "no number",
     "batching file alone", "no batching file", "unknown field"],
)  # fmt: skip
def test_server_that_cannot_start_ends_with_255(refused, name):
    """A bad model, warmup record, flag or configuration ends the server with exit(-1), without an open port."""
    server = refused[name]
    wait_until(lambda: server.exit_code() is not None, server)
    assert server.exit_code() == 255
    assert not is_open(server)


@source("servables/tensorflow/saved_model_warmup_util.cc:116-130")
def test_log_has_the_reason_of_a_bad_warmup(refused):
    """The log names an unreadable record, a failing record, and one record too many."""
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
    """A record of three rows fails the load of a server that batches at most two."""
    server = refused["warmup-large"]
    wait_until(lambda: server.exit_code() is not None, server)
    assert "Task size 3 is larger than maximum input batch size 2" in server.log()


@source("util/retrier.cc:27-55")
def test_load_is_retried_and_newer_versions_take_over(start, root, complete, call, request_of):
    """A model that is fixed between two tries is served. A larger version replaces it, and the old version ends."""
    server = start("fixed", "--max_num_load_retries=100000", "--load_retry_interval_micros=200000", "--no_such_flag=1")
    wait_until(lambda: server.log().count("failed") > 1, server)
    assert not is_open(server)
    complete("fixed", "1")
    wait_until_open(server)
    assert call(server, "Predict", request_of(name="fixed", x=[1.0])).model_spec.version.value == 1
    complete("fixed", "0012")
    wait_until(lambda: b'"12"' in ask(server, "GET", "/v1/models/fixed")[2], server)
    wait_until(lambda: states(server) == [("12", "AVAILABLE"), ("1", "END")], server)
    assert call(server, "Predict", request_of(name="fixed", x=[1.0])).model_spec.version.value == 12
    assert "no_such_flag" in server.log()  # it is named and otherwise ignored (model_servers/main.cc:333-335)


def states(server):
    """The versions and their states, in the server's order."""
    body = parsed(ask(server, "GET", "/v1/models/fixed")[2])
    return [(entry["version"], entry["state"]) for entry in body["model_version_status"]]


@source("servables/tensorflow/saved_model_warmup_util.cc:125-130")
def test_thousand_warmup_records_are_replayed(start):
    """A thousand records are allowed."""
    server = start("warmup-full", "--monitoring_config_file={root}/monitoring.txt")
    wait_until_open(server)
    path = f'model_path="{server.root}/warmup-full/7",status="OK"'
    assert metric(server, "model_warmup_records_read", path) == 1000


@source("model_servers/main.cc:337-339")
@source("tensorflow/compiler/jit/device_compiler.h:484-498")
def test_xla_is_refused(start, call, request_of):
    """A request for a function that only XLA may run is INTERNAL by default, and 500 over REST."""
    server = start("compiled")
    wait_until_open(server)
    status, body = predict(server, {"instances": [1.0]}, "compiled")
    assert status == 500
    assert "XLA compilation disabled" in body["error"]
    code, words = call(server, "Predict", request_of(name="compiled", x=[1.0]))
    assert code == "INTERNAL"
    assert "XLA compilation disabled" in words


@source("model_servers/main.cc:337-339")
@pytest.mark.parametrize("flag", ["--xla_cpu_compilation_enabled", "--xla_gpu_compilation_enabled=true"])
def test_flag_allows_xla(start, flag):
    """Either flag lets XLA compile, on the CPU too."""
    server = start("compiled", flag)
    wait_until_open(server)
    assert predict(server, {"instances": [1.0, 2.0, 5.0]}, "compiled") == (200, {"predictions": [2.5, 3.0, 4.5]})
