"""The stand-in for tensorflow/serving as a process: its flags, its start, and how it fails."""

import os
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import grpc
import pytest

pytestmark = [pytest.mark.model, pytest.mark.slow]

SOON_S = 600  # a busy machine takes long to load TensorFlow and a model
PREDICT = "/tensorflow.serving.PredictionService/Predict"
DT_BFLOAT16, DT_INT64 = 14, 9


@pytest.fixture
def base(tmp_path):
    """An empty base path."""
    folder = tmp_path / "digits-vit"
    folder.mkdir()
    return folder


def wait_for_line(server, words, limit_s=SOON_S):
    """Wait until the server's log contains these words."""
    deadline = time.monotonic() + limit_s
    while words not in server.log.read_text():
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)


def is_answering(server):
    """True if the server answers a request for the model's status with 200."""
    try:
        with urllib.request.urlopen(f"{server.rest}/v1/models/digits-vit", timeout=60) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_unsupported_flag_ends_the_server(start_stand_in, base):
    """If ignoring a flag would change answers, the server ends and names the flag."""
    server = start_stand_in(f"--model_base_path={base}", "--model_config_file=/models.config")
    assert server.process.wait(timeout=SOON_S) == 255
    assert "--model_config_file is not supported" in server.log.read_text()


def test_base_path_is_required(start_stand_in):
    """Without a base path the server ends."""
    server = start_stand_in()
    assert server.process.wait(timeout=SOON_S) == 255
    assert "--model_base_path is required" in server.log.read_text()


def test_bad_model_ends_the_server_at_once_without_retries(start_stand_in, base):
    """With --max_num_load_retries=0 a SavedModel that cannot be loaded ends the server. The log names it and the error."""
    (base / "1").mkdir()
    (base / "1" / "saved_model.pb").write_bytes(b"no model")
    server = start_stand_in(f"--model_base_path={base}", "--max_num_load_retries=0")
    assert server.process.wait(timeout=SOON_S) == 255
    log = server.log.read_text()
    assert f"loading servable digits-vit version 1 from {base}/1 failed (try 1 of 1)" in log
    assert "Traceback" not in log


def test_load_of_a_bad_model_is_retried(start_stand_in, digits_export, base):
    """With retries, the load is retried after the interval. A model that is fixed in the meantime is served."""
    (base / "1").mkdir()
    flags = (f"--model_base_path={base}", "--max_num_load_retries=1000", "--load_retry_interval_micros=200000")
    server = start_stand_in(*flags)
    wait_for_line(server, "failed (try 2 of 1001)")
    assert not is_answering(server)
    shutil.copytree(digits_export / "savedmodel", base / "1", dirs_exist_ok=True)
    wait_for_line(server, "Exporting HTTP/REST API")
    assert is_answering(server)


def test_server_waits_for_a_version_with_closed_ports(start_stand_in, digits_export, base):
    """With an empty base path the process runs with closed ports. It serves once a version is there, with any known flags."""
    accepted = (
        "--rest_api_num_threads=4", "--rest_api_timeout_in_ms=5000", "--tensorflow_inter_op_parallelism=2",
        "--tensorflow_intra_op_parallelism=8", "--file_system_poll_wait_seconds=1", "--enable_batching",
        "--enable_model_warmup=true", "--enable_profiler=false",
    )  # fmt: skip
    server = start_stand_in(f"--model_base_path={base}", *accepted)
    wait_for_line(server, "waiting")
    assert server.process.poll() is None
    assert not is_answering(server)
    shutil.copytree(digits_export / "savedmodel", base.with_name("arriving"))
    base.with_name("arriving").rename(base / "12")
    wait_for_line(server, "Exporting HTTP/REST API")
    assert is_answering(server)
    log = server.log.read_text()
    assert "Successfully loaded servable version digits-vit 12" in log
    assert "accepted without effect: --enable_profiler" in log


def test_largest_version_is_served(stand_in):
    """Of the versions 3 and 7 it serves 7. Its log states that this is a stand-in."""
    with urllib.request.urlopen(f"{stand_in.rest}/v1/models/digits-vit", timeout=60) as answer:
        assert b'"version": "7"' in answer.read()
    assert "stand-in for tensorflow/serving: this is not tensorflow/serving" in stand_in.log.read_text()


def test_used_grpc_port_ends_the_server(start_stand_in, stand_in, digits_export, base):
    """A gRPC port in use ends the server; the log names port and flag. With a REST port in use it runs without REST."""
    shutil.copytree(digits_export / "savedmodel", base / "1")
    ports = (stand_in.grpc.rpartition(":")[2], stand_in.rest.rpartition(":")[2])
    server = start_stand_in(f"--model_base_path={base}", f"--rest_api_port={ports[1]}")
    wait_for_line(server, f"Failed to start HTTP Server at localhost:{ports[1]}")
    assert server.process.poll() is None
    server = start_stand_in(f"--model_base_path={base}", f"--port={ports[0]}")
    assert server.process.wait(timeout=SOON_S) == 255
    assert f"gRPC port {ports[0]}: " in server.log.read_text()
    assert "--port" in server.log.read_text()


def test_entrypoint_ignores_sigterm_as_pid_1(tmp_path, model_python):
    """As PID 1 of its own PID namespace the entrypoint's shell survives SIGTERM. It passes arguments to the server."""
    entrypoint = Path(__file__).parents[3] / "local" / "serving" / "tf_serving_entrypoint.sh"
    program = tmp_path / "tensorflow_model_server"
    program.write_text(
        '#!/bin/sh\necho "$@" > "$0.args"; until test -e "$0.go"; do sleep 0.1; done; echo done > "$0.end"\n'
    )
    program.chmod(0o755)
    command = ["unshare", "--pid", "--fork", "--kill-child", str(entrypoint), "--extra=1"]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "MODEL_NAME": "digits-vit", "MODEL_BASE_PATH": "/models"}
    process = subprocess.Popen(command, env=environment)
    arguments = tmp_path / "tensorflow_model_server.args"
    deadline = time.monotonic() + SOON_S
    while not (arguments.exists() and arguments.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGTERM)
    (tmp_path / "tensorflow_model_server.go").touch()
    assert process.wait(timeout=SOON_S) == 0
    assert (tmp_path / "tensorflow_model_server.end").read_text() == "done\n"
    expected = "--port=8500 --rest_api_port=8501 --model_name=digits-vit --model_base_path=/models/digits-vit --extra=1"
    assert arguments.read_text().strip() == expected


def test_passed_deadlines_do_not_block_the_server(stand_in, digits_export):
    """After hundreds of calls whose deadlines pass before, during or after their run, every thread still answers."""
    golden = (digits_export / "golden" / "three" / "grpc.bin").read_bytes()
    with grpc.insecure_channel(stand_in.grpc) as channel:
        predict = channel.unary_unary(PREDICT)
        calls = [predict.future(golden, timeout=number % 40 / 1000 + 0.001) for number in range(400)]
        codes = {call.code() for call in calls}
        assert grpc.StatusCode.DEADLINE_EXCEEDED in codes
        assert codes <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.OK}
        after = [predict.future(golden, timeout=SOON_S) for _ in range(40)]  # more calls than threads
        assert all(call.code() == grpc.StatusCode.OK for call in after)


def test_different_types_in_a_batch_are_refused_and_the_batch_thread_survives(
    start_stand_in, digits_export, base, tmp_path
):
    """Two requests of different types in one batch are both INVALID_ARGUMENT. The same thread answers the next request."""
    shutil.copytree(digits_export / "savedmodel", base / "1")
    (tmp_path / "batching.txt").write_text(
        "max_batch_size { value: 2 } batch_timeout_micros { value: 2000000 } num_batch_threads { value: 1 }"
    )
    flags = ("--enable_batching", f"--batching_parameters_file={tmp_path}/batching.txt", "--enable_model_warmup=false")
    server = start_stand_in(f"--model_base_path={base}", *flags)
    wait_for_line(server, "Exporting HTTP/REST API")
    golden = (digits_export / "golden" / "three" / "grpc.bin").read_bytes()
    with grpc.insecure_channel(server.grpc) as channel:
        predict = channel.unary_unary(PREDICT)
        pair = [predict.future(typed(golden, number), timeout=SOON_S) for number in (DT_BFLOAT16, DT_INT64)]
        assert {call.code() for call in pair} == {grpc.StatusCode.INVALID_ARGUMENT}
        assert predict.future(golden, timeout=SOON_S).code() == grpc.StatusCode.OK


def typed(request, number):
    """A PredictRequest's bytes with one zero of a type in place of its string: TensorProto {dtype, shape [1], zero bytes}."""
    size = 2 if number == DT_BFLOAT16 else 8
    tensor = bytes([0x08, number, 0x12, 0x04, 0x12, 0x02, 0x08, 0x01, 0x22, size]) + bytes(size)
    entry = b"\x0a\x0cstring_input" + bytes([0x12, len(tensor)]) + tensor
    return request[: 2 + request[1]] + bytes([0x12, len(entry)]) + entry  # model_spec comes first
