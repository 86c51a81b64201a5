"""The server as a process: how it starts, keeps its limits, joins requests and ends."""

import concurrent.futures
import http.client
import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import grpc
import pytest

from serving_protocol.messages import PredictRequest
from tests.conformance.client import ask, metric, parsed, predict
from tests.conformance.servers import is_open, wait_until, wait_until_open
from tests.include.onnx_server.colours import DESCRIPTION, png, rows, slow, web_safe

pytestmark = pytest.mark.model

SERVER = Path(__file__).parents[3] / "include" / "onnx_server"
STATUS = "/v1/models/colours/versions/7"
ALIVE = "/healthz"
RUNS = "runtime_latency_count"
BEGUN_TICKS = 15  # of processor time, after which a slow request has been read and its images are being decoded


def ended(server, limit_s=60):
    """The exit status of a server that ends by itself."""
    wait_until(lambda: server.exit_code() is not None, server, limit_s)
    return server.exit_code()


REFUSED = {
    "another format": ({"format": 2}, "model.json: format 2 is not known, only 1"),
    "an unknown step": ({"steps": [{"kind": "blur", "radius": 2}]}, "model.json: the step 'blur' is not known"),
    "an unknown filter": (
        {"steps": [{"kind": "resize", "height": 8, "width": 8, "filter": "mean"}]},
        "model.json: the step resize has the filter 'mean'",
    ),
    "a step without a setting": (
        {"steps": [{"kind": "resize", "height": 8, "width": 8}]},
        "model.json: the step resize has ['height', 'width']",
    ),
    "no size": ({"steps": DESCRIPTION["steps"][1:]}, "no step gives all images one size"),
    "sizes after values": ({"steps": DESCRIPTION["steps"][::-1]}, "a step that changes the size comes after"),
    "another size than the model's": (
        {"steps": [{"kind": "resize", "height": 9, "width": 8, "filter": "box"}]},
        "its steps give (3, 9, 8)",
    ),
    "no limit": ({"max_side": None}, "model.json: max_side is None"),
    "no word on joining": ({"may_join": None}, "model.json: may_join is None"),
    "no labels": ({"labels": []}, "model.json: labels is not a list of texts"),
    "another way with bad images": ({"on_bad_image": "ignore"}, "on_bad_image 'ignore' is neither refuse nor mark"),
}


def test_model_that_cannot_be_served_ends_the_server(start):
    """The exit status is 255, the log has one line that names file and reason, and no port was open."""
    servers = {name: start(**changes) for name, (changes, _) in REFUSED.items()}
    for name, (_, words) in REFUSED.items():
        assert ended(servers[name]) == 255, name
        assert words in servers[name].log(), name
        assert "Traceback" not in servers[name].log(), name


def test_file_that_is_no_model_ends_the_server(start):
    """So does a file that ONNX Runtime does not read."""
    server = start("--model_base_path={root}/broken")
    version = server.root / "broken" / "1"
    version.mkdir(parents=True)
    (version / "model.json").write_text(json.dumps(DESCRIPTION))
    (version / "model.onnx").write_bytes(b"no model")
    assert ended(server) == 255
    assert "broken/1/model.onnx: " in server.log()
    assert "Traceback" not in server.log()


def warmup_of(folder, *images):
    """Write a warmup request with these images."""
    request = PredictRequest()
    request.model_spec.name = "colours"
    tensor = request.inputs["string_input"]
    tensor.dtype = 7
    tensor.tensor_shape.dim.add(size=len(images))
    tensor.string_val.extend(web_safe(image).encode() for image in images)
    folder.mkdir(exist_ok=True)
    (folder / f"{len(list(folder.iterdir())):04}.bin").write_bytes(request.SerializeToString())


def test_warmup_requests_are_answered_before_the_ports_open(start):
    """Both requests were run. A request that is refused fails the load."""
    server = start("--model_base_path={root}/later")
    later = server.root / "colours" / "7"
    warmup_of(later / "warmup", png("red"))
    warmup_of(later / "warmup", png("red"), png("blue"))
    later.parent.rename(server.root / "later")
    wait_until_open(server)
    assert metric(server, RUNS) == 2
    path = f'model_path="{server.root}/later/7",status="OK"'
    assert metric(server, "model_warmup_records_read", path) == 2
    bad = start("--model_base_path={root}/later")
    warmup_of(bad.root / "colours" / "7" / "warmup", b"hello")
    (bad.root / "colours").rename(bad.root / "later")
    assert ended(bad) == 255
    assert "image 1 is no JPEG" in bad.log()


def ticks(server):
    """The processor time that the process has taken, in ticks of 10 ms."""
    return sum(map(int, Path(f"/proc/{server.popen.pid}/stat").read_text().split()[13:15]))


def kept_busy(server, pool, count=20):
    """Send a request that takes seconds, and wait until it runs."""
    before = ticks(server)
    busy = pool.submit(predict, server, slow(count), "colours")
    wait_until(lambda: ticks(server) > before + BEGUN_TICKS, server)
    assert not busy.done()
    return busy


def test_request_is_refused_if_too_many_wait(start):
    """One runs and one waits; all others are 503 at once, over gRPC UNAVAILABLE. Status and liveness are answered, and so are the first two."""
    patient = "--rest_api_timeout_in_ms=600000"  # the machine may be busy
    server = start("--tensorflow_intra_op_parallelism=1", "--max_queued_requests=1", patient)
    wait_until_open(server)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        busy = kept_busy(server, pool, 60)
        others = [pool.submit(predict, server, rows("blue"), "colours") for _ in range(3)]
        wait_until(lambda: sum(other.done() for other in others) == 2, server)
        assert ask(server, "GET", STATUS)[0] == 200
        assert ask(server, "GET", ALIVE)[0] == 200
        assert refused_code(server, 60) == grpc.StatusCode.UNAVAILABLE
        assert not busy.done()
        answers = sorted(other.result()[0] for other in others)
        assert (answers, busy.result()[0]) == ([200, 503, 503], 200)
    full = (503, {"error": "The server is behind: 1 requests are waiting."})
    assert [other.result() for other in others if other.result()[0] == 503] == [full] * 2
    assert predict(server, rows("green"), "colours")[0] == 200


def refused_code(server, limit_s, size=0):
    """The code of a gRPC request that is refused. It has at least so many bytes."""
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        request = PredictRequest()
        request.model_spec.name = "colours"
        request.inputs["image_bytes"].string_val.append(b"x" * size)
        with pytest.raises(grpc.RpcError) as refused:
            call(request.SerializeToString(), timeout=limit_s)
        return refused.value.code()


def test_request_ends_at_its_limit(start):
    """A request that takes too long is 504. What is left of it is not done: the only thread is free for the next request."""
    server = start("--tensorflow_intra_op_parallelism=1", "--rest_api_timeout_in_ms=2000")
    wait_until_open(server)
    late = (504, {"error": "the request's time limit passed before it was answered"})
    assert predict(server, slow(200), "colours") == late
    wait_until(lambda: predict(server, rows("blue"), "colours")[0] == 200, server, 10)
    assert refused_code(server, 0.001) == grpc.StatusCode.DEADLINE_EXCEEDED


def test_large_request_is_refused(start):
    """413 before it is in memory, also without a length, and RESOURCE_EXHAUSTED over gRPC. The connection stays usable."""
    server = start("--max_request_bytes=10000")
    wait_until_open(server)
    connection = http.client.HTTPConnection(*server.rest, timeout=60)
    large = b"x" * 5_000_000
    for body, headers in ((large, {}), (iter([large]), {"Transfer-Encoding": "chunked"})):
        connection.request("POST", "/v1/models/colours:predict", body, headers, encode_chunked=bool(headers))
        answer = connection.getresponse()
        assert answer.status == 413
        assert json.load(answer) == {"error": "The request has more than 10000 bytes (--max_request_bytes)."}
    assert refused_code(server, 60, 10_000) == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert metric(server, "request_count", '"RESOURCE_EXHAUSTED"') == 2
    assert ask(server, "GET", STATUS, connection=connection)[0] == 200


def test_slow_upload_ends_at_the_limit(start):
    """The time limit begins with the request: an upload that takes longer is 504, and its connection is closed."""
    server = start("--rest_api_timeout_in_ms=500")
    wait_until_open(server)
    with socket.create_connection(server.rest, timeout=60) as slow_one:
        slow_one.sendall(b"POST /v1/models/colours:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = b"".join(iter(lambda: slow_one.recv(4096), b""))  # until the server closes it
    assert answer.startswith(b"HTTP/1.1 504 ")


def test_call_is_counted_by_the_reason_of_its_end(start):
    """A caller that gives up early has CANCELLED its call; one whose deadline passes has not been answered in time."""
    server = start("--tensorflow_intra_op_parallelism=1", "--rest_api_timeout_in_ms=0")
    wait_until_open(server)
    request = PredictRequest()
    request.model_spec.name = "colours"
    with concurrent.futures.ThreadPoolExecutor(1) as pool, grpc.insecure_channel(server.grpc) as channel:
        busy = kept_busy(server, pool, 30)
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        gone, late = (call.future(request.SerializeToString(), timeout=limit_s) for limit_s in (600, 0.5))
        assert late.exception(timeout=60).code() == grpc.StatusCode.DEADLINE_EXCEEDED
        gone.cancel()
        for code in ("CANCELLED", "DEADLINE_EXCEEDED"):
            wait_until(lambda code=code: metric(server, "request_count", f'"{code}"') == 1, server)
        assert busy.result()[0] == 200


def send(server, body):
    """Send a request on a connection of its own, and return it without its answer."""
    connection = http.client.HTTPConnection(*server.rest, timeout=60)
    connection.request("POST", "/v1/models/colours:predict", json.dumps(body))
    return connection


def begun(server, body):
    """Send a request, and wait until it runs."""
    before = ticks(server)
    connection = send(server, body)
    wait_until(lambda: ticks(server) > before + BEGUN_TICKS, server)
    return connection


def test_sigterm_finishes_what_runs(start):
    """The status fails first, while it is alive and requests are answered, with the end of their connection; then the server ends with 0."""
    server = start("--shutdown_delay_in_ms=2000", "--shutdown_timeout_in_ms=60000")
    wait_until_open(server)
    idle = http.client.HTTPConnection(*server.rest, timeout=60)
    assert ask(server, "GET", STATUS, connection=idle)[0] == 200
    running = begun(server, slow(16))
    server.popen.send_signal(signal.SIGTERM)
    wait_until(lambda: ask(server, "GET", STATUS)[0] == 503, server)
    assert health(server) == "NOT_SERVING"
    assert ask(server, "GET", ALIVE)[0] == 200
    last = send(server, rows("blue")).getresponse()
    assert (last.status, last.headers["connection"]) == (200, "close")
    assert json.load(last)["predictions"][0]["label"] == "blue"
    assert server.exit_code() is None
    answer = running.getresponse()
    assert answer.status == 200
    assert len(json.load(answer)["predictions"]) == 16
    assert ended(server) == 0
    assert not is_open(server)
    assert "Traceback" not in server.log()


def health(server):
    """What the gRPC health service answers for the whole server."""
    with grpc.insecure_channel(server.grpc) as channel:
        answer = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=60)
    return {b"\x08\x01": "SERVING", b"\x08\x02": "NOT_SERVING"}[answer]


def test_health_is_served(colours):
    """A server that serves is SERVING."""
    assert health(colours) == "SERVING"


def test_sigterm_has_a_limit(start):
    """A request that takes longer than the limit gets no answer, and the server ends with 0."""
    server = start("--shutdown_delay_in_ms=0", "--shutdown_timeout_in_ms=500")
    wait_until_open(server)
    running = begun(server, slow(200))
    began = time.monotonic()
    server.popen.send_signal(signal.SIGTERM)
    assert ended(server, 10) == 0
    assert time.monotonic() - began < 8
    assert "some requests still run" in server.log()
    answer = running.getresponse()
    assert (answer.status, json.load(answer)) == (503, {"error": "The server ended before the request was answered."})


def test_sigterm_ends_a_server_that_waits_for_a_version(start):
    """Its status is 0: it has nothing to finish."""
    server = start("--model_base_path={root}/nowhere")
    wait_until(lambda: "waiting" in server.log(), server)
    server.popen.send_signal(signal.SIGTERM)
    assert ended(server) == 0


def test_entrypoint_becomes_the_server(tmp_path):
    """It passes TensorFlow Serving's variables and extra arguments on, and the server takes its place: it gets SIGTERM."""
    program = tmp_path / "onnx_model_server"
    program.write_text('#!/bin/sh\necho $$ "$@"\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "MODEL_NAME": "colours", "MODEL_BASE_PATH": "/models"}
    process = subprocess.Popen(
        [SERVER / "onnx_serving_entrypoint.sh", "--extra=1"], env=environment, stdout=subprocess.PIPE, text=True
    )
    said = process.communicate(timeout=60)[0].split()
    assert said[0] == str(process.pid)
    assert said[1:] == [
        "--port=8500", "--rest_api_port=8501", "--model_name=colours", "--model_base_path=/models/colours", "--extra=1",
    ]  # fmt: skip


def test_used_ports(start, colours):
    """A gRPC port in use ends the server; with a REST port in use it runs without REST."""
    ports = colours.grpc.rpartition(":")[2], colours.rest[1]
    server = start(f"--port={ports[0]}")
    assert ended(server) == 255
    assert f"gRPC port {ports[0]}: " in server.log()
    server = start(f"--rest_api_port={ports[1]}")
    wait_until(lambda: f"Failed to start HTTP Server at localhost:{ports[1]}" in server.log(), server)
    assert server.exit_code() is None


def test_metrics_page_has_its_path(colours):
    """The page is the one that the monitoring file turns on."""
    assert b":tensorflow:serving:request_count" in ask(colours, "GET", "/monitoring/prometheus/metrics")[2]
    assert parsed(ask(colours, "GET", STATUS)[2])["model_version_status"][0]["state"] == "AVAILABLE"
