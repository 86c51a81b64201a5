"""How the server computes: joined requests, runs in turns, decoding in turns, threads, memory."""

import concurrent.futures
import os
import subprocess
from pathlib import Path

import pytest

from tests.conformance.client import metric, predict
from tests.conformance.servers import wait_until_open
from tests.include.onnx_server.colours import png, raw, rows, slow, write_model

pytestmark = pytest.mark.model

SERVER = Path(__file__).parents[3] / "include" / "onnx_server"
JOINED_RUNS = "batching_session:wrapped_run_count"


def batching(folder, size, timeout_s):
    """The flags that join so many images, and a parameters file for them."""
    file = folder / "batching.txt"
    file.write_text(
        f"max_batch_size {{ value: {size} }}\nbatch_timeout_micros {{ value: {timeout_s * 1_000_000} }}\n"
        "num_batch_threads { value: 1 }\n"
    )
    return "--enable_batching", f"--batching_parameters_file={file}"


def labels(answer):
    """The labels of an answer."""
    return [one["label"] for one in answer[1]["predictions"]]


def test_requests_are_joined_if_the_flags_say_so(start, tmp_path):
    """Two requests fill a batch and run once. A bad image fails only its own request."""
    server = start(*batching(tmp_path, 2, 30))
    wait_until_open(server)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        bad = pool.submit(predict, server, raw(b"hello"), "colours")
        both = [pool.submit(predict, server, rows(colour), "colours") for colour in ("red", "blue")]
        assert [labels(one.result()) for one in both] == [["red"], ["blue"]]
        assert bad.result()[0] == 400
    assert metric(server, JOINED_RUNS) == 1


def test_model_that_may_not_be_joined_never_is(start, tmp_path):
    """Not even if the flags say so: a request runs alone at once, and one that is larger than a batch is answered too."""
    server = start(*batching(tmp_path, 2, 600), may_join=False)
    wait_until_open(server)
    assert labels(predict(server, rows("red"), "colours")) == ["red"]
    assert labels(predict(server, rows("red", "green", "blue"), "colours")) == ["red", "green", "blue"]
    assert server.log().count("requests are not joined: this model's answer depends on") == 1


def test_joining_is_measured(colours):
    """The log says what an image costs. For a model of microseconds joining does not pay."""
    (line,) = [line for line in colours.log().splitlines() if "processor time of an image" in line]
    assert " ms in a batch of 1, " in line
    assert line.endswith("; requests are not joined")


def test_requests_that_wait_are_joined_if_it_pays(start):
    """Of three requests at once two run together, because they wait for the first; a request that is larger than a batch runs alone."""
    server = start(program=Path(__file__).with_name("joining_server.py"))
    wait_until_open(server)
    assert "up to 2 images of several requests run together" in server.log()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        three = list(pool.map(lambda colour: predict(server, rows(colour), "colours"), ["red", "green", "blue"]))
    assert [labels(one) for one in three] == [["red"], ["green"], ["blue"]]
    assert metric(server, JOINED_RUNS) == 2
    assert labels(predict(server, rows("red", "green", "blue"), "colours")) == ["red", "green", "blue"]
    assert metric(server, JOINED_RUNS) == 2


def test_waiting_requests_are_decoded_in_turns(start, tmp_path):
    """Of eight images of 48 MB that wait for one batch, as many are decoded at once as there are processors: here one."""
    server = start("--tensorflow_intra_op_parallelism=1", *batching(tmp_path, 8, 600))
    wait_until_open(server)
    before = peak_kib(server)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(predict, server, slow(1), "colours") for _ in range(8)]
        assert [labels(one.result()) for one in answers] == [["red"]] * 8
    assert metric(server, JOINED_RUNS) == 1
    assert peak_kib(server) - before < 200 * 1024


def test_narrow_image_takes_little_memory(start):
    """Of an image of 4,000 x 1 pixels whose shorter side becomes 256, only the part that the crop keeps is computed, not a gigabyte."""
    steps = [
        {"kind": "resize_shortest_edge", "edge": 256, "filter": "bicubic"},
        {"kind": "center_crop", "height": 8, "width": 8},
    ]
    server = start(steps=steps)
    wait_until_open(server)
    predict(server, rows("red"), "colours")
    before = peak_kib(server)
    status, body = predict(server, raw(png("blue", 4000, 1)), "colours")
    assert (status, body["predictions"][0]["label"]) == (200, "blue")
    assert peak_kib(server) - before < 100 * 1024


def peak_kib(server):
    """The most memory that the process has had."""
    lines = Path(f"/proc/{server.popen.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def threads_of(server):
    """How many threads the process has."""
    return len(list(Path(f"/proc/{server.popen.pid}/task").iterdir()))


def test_threads_are_those_of_the_flag(start):
    """The runtime has one thread less than the flag says: the caller is the first."""
    one, five = (start(f"--tensorflow_intra_op_parallelism={count}") for count in (1, 5))
    wait_until_open(one)
    wait_until_open(five)
    assert threads_of(five) - threads_of(one) == 4


OPTIONS = """
import sys
from pathlib import Path
from onnx_server.session import Session
options = Session(Path(sys.argv[1]), threads=2)._session.get_session_options()
print(options.get_session_config_entry("session.intra_op.allow_spinning"), options.enable_cpu_mem_arena, options.intra_op_num_threads)
"""


def test_waiting_threads_sleep(onnx_server_python, tmp_path):
    """ONNX Runtime's threads do not spin, and it keeps no memory that a run has taken."""
    command = [onnx_server_python, "-c", OPTIONS, write_model(tmp_path / "colours")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SERVER, timeout=60)
    assert done.stdout.split() == ["0", "False", "2"]


LOADING = """
import ctypes, sys
from pathlib import Path
import onnxruntime
from onnx_server.session import Session

SIZE, COUNT = 1 << 20, 100
true_session = onnxruntime.InferenceSession
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def load(*given, **named):
    taken = [libc.malloc(SIZE) for _ in range(COUNT)]
    for place in taken:
        ctypes.memset(place, 1, SIZE)
    libc.malloc(SIZE // 10)  # stays, behind them
    for place in taken:
        libc.free(place)
    return true_session(*given, **named)

def resident_mib():
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmRSS"))

onnxruntime.InferenceSession = load
libc.free(libc.malloc(31 << 20))  # from here on glibc puts all blocks up to this size into the heap
for session in (lambda file: Session(file.parent, threads=1), load):
    before = resident_mib()
    session(Path(sys.argv[1]) / "model.onnx")
    print(resident_mib() - before)
"""


def test_loading_leaves_no_holes(onnx_server_python, tmp_path):
    """The 100 MiB that loading takes for a moment go back to the system. What a run takes stays in the heap for the next run."""
    command = [onnx_server_python, "-c", LOADING, write_model(tmp_path / "colours")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SERVER, timeout=60)
    loading, afterwards = map(int, done.stdout.split())
    assert loading < 20
    assert afterwards > 90


TURNS = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from onnx_server import classifier
from onnx_server.session import Session

running, most, lock, true_run = 0, 0, threading.Lock(), Session.run

def run(session, pixels):
    global running, most
    with lock:
        running += 1
        most = max(most, running)
    time.sleep(0.05)
    try:
        return true_run(session, pixels)
    finally:
        with lock:
            running -= 1

Session.run = run
file = Path(sys.argv[2]).read_bytes()
for threads in (64, 1):
    most = 0
    model = classifier.load_classifier(Path(sys.argv[1]), threads=threads)
    ask = lambda _: model.run("raw_bytes", {"image_bytes": np.array([file], object)}, ["label"], None)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    print(most)
"""


def test_runs_take_turns(onnx_server_python, tmp_path):
    """With a thread for each processor and more, one run at a time; with one thread, as many runs as there are processors."""
    image = tmp_path / "red.png"
    image.write_bytes(png("red"))
    command = [onnx_server_python, "-c", TURNS, write_model(tmp_path / "colours"), image]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SERVER, timeout=60)
    alone, beside = map(int, done.stdout.split())
    assert alone == 1
    assert 1 <= beside <= len(os.sched_getaffinity(0))
