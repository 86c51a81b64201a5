"""The stand-in for tensorflow/serving as a process: its flags, its start, and how it fails."""

import os
import shutil
import signal
import subprocess
import time
import urllib.request

import grpc
import pytest

pytestmark = pytest.mark.model

SOON_S = 600
PREDICT = "/tensorflow.serving.PredictionService/Predict"
DT_BFLOAT16, DT_INT64 = 14, 9


@pytest.fixture
def base(tmp_path):
    """An empty base path."""
    folder = tmp_path / "digits-vit"
    folder.mkdir()
    return folder


def wait_for_line(server, words, limit_s=SOON_S):
    """Return when the server's log holds these words."""
    deadline = time.monotonic() + limit_s
    while words not in server.log.read_text():
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)


def is_answering(server):
    """Whether the model's status is answered with 200."""
    try:
        with urllib.request.urlopen(f"{server.rest}/v1/models/digits-vit", timeout=60) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_flag_that_would_be_another_server_ends_it(start_stand_in, base):
    """A flag without whose effect the answers would be wrong ends the server, naming the flag."""
    server = start_stand_in(f"--model_base_path={base}", "--model_config_file=/models.config")
    assert server.process.wait(timeout=SOON_S) == 255
    assert "--model_config_file is not imitated" in server.log.read_text()


def test_base_path_is_required(start_stand_in):
    """Without a base path there is nothing to serve."""
    server = start_stand_in()
    assert server.process.wait(timeout=SOON_S) == 255
    assert "--model_base_path is required" in server.log.read_text()


def test_bad_model_ends_the_server_at_once_if_no_retries_are_asked(start_stand_in, base):
    """With --max_num_load_retries=0 a SavedModel that cannot be loaded ends the server, saying which and why."""
    (base / "1").mkdir()
    (base / "1" / "saved_model.pb").write_bytes(b"no model")
    server = start_stand_in(f"--model_base_path={base}", "--max_num_load_retries=0")
    assert server.process.wait(timeout=SOON_S) == 255
    log = server.log.read_text()
    assert f"loading servable digits-vit version 1 from {base}/1 failed (try 1 of 1)" in log
    assert "Traceback" not in log


def test_bad_model_is_tried_again(start_stand_in, digits_export, base):
    """Otherwise it is tried again after the interval: a model that is mended meanwhile is served."""
    (base / "1").mkdir()
    flags = (f"--model_base_path={base}", "--max_num_load_retries=1000", "--load_retry_interval_micros=200000")
    server = start_stand_in(*flags)
    wait_for_line(server, "failed (try 2 of 1001)")
    assert not is_answering(server)
    shutil.copytree(digits_export / "savedmodel", base / "1", dirs_exist_ok=True)
    wait_for_line(server, "Exporting HTTP/REST API")
    assert is_answering(server)


def test_empty_base_path_is_waited_for_with_ports_closed(start_stand_in, digits_export, base):
    """No version yet: the process lives, its ports stay closed; with a version it serves, whatever flags it was given."""
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
    assert "accepted but not imitated: --enable_profiler" in log


def test_largest_version_is_served(stand_in):
    """Of the versions 3 and 7 it is 7, and the log says at every start that this is a stand-in."""
    with urllib.request.urlopen(f"{stand_in.rest}/v1/models/digits-vit", timeout=60) as answer:
        assert b'"version": "7"' in answer.read()
    assert "stand-in for tensorflow/serving: this is not tensorflow/serving" in stand_in.log.read_text()


def test_taken_grpc_port_ends_the_server(start_stand_in, stand_in, digits_export, base):
    """A gRPC port that somebody has ends the server, naming the port and the flag; a REST port leaves it without REST."""
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
    """As the first process of its own PID namespace the entrypoint's shell outlives SIGTERM, and passes arguments on."""
    from pathlib import Path

    entrypoint = Path(__file__).parents[2] / "local" / "serving" / "tf_serving_entrypoint.sh"
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


def test_deadlines_that_pass_under_load_leave_the_server_answering(stand_in, digits_export):
    """Hundreds of calls whose deadlines pass before, while and after they run take nobody's turn away for good."""
    golden = (digits_export / "golden" / "three" / "grpc.bin").read_bytes()
    with grpc.insecure_channel(stand_in.grpc) as channel:
        predict = channel.unary_unary(PREDICT)
        asked = [predict.future(golden, timeout=number % 40 / 1000 + 0.001) for number in range(400)]
        codes = {call.code() for call in asked}
        assert grpc.StatusCode.DEADLINE_EXCEEDED in codes
        assert codes <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.OK}
        after = [predict.future(golden, timeout=SOON_S) for _ in range(40)]  # more than one for each thread
        assert all(call.code() == grpc.StatusCode.OK for call in after)


def test_types_that_do_not_merge_are_refused_and_the_batch_thread_lives_on(
    start_stand_in, digits_export, base, tmp_path
):
    """Two requests of different types in one batch are both INVALID_ARGUMENT; the one thread then answers the next."""
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
    """A PredictRequest's bytes with one zero of that type for its string: TensorProto {dtype, shape [1], zero bytes}."""
    size = 2 if number == DT_BFLOAT16 else 8
    tensor = bytes([0x08, number, 0x12, 0x04, 0x12, 0x02, 0x08, 0x01, 0x22, size]) + bytes(size)
    entry = b"\x0a\x0cstring_input" + bytes([0x12, len(tensor)]) + tensor
    return request[: 2 + request[1]] + bytes([0x12, len(entry)]) + entry  # model_spec comes first
