"""The load test's program on a small real server."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from small_server import start_server, stop_server

LOADER = Path(__file__).parents[2] / "include" / "load"

pytestmark = pytest.mark.model  # it needs an environment of its own
PLAN = {"rates_per_s": [4], "closed_users": [2], "step_s": 5, "settle_s": 2}


class Served(BaseHTTPRequestHandler):
    """Answers as a model server does; `wrong` answers from now on are wrong."""

    protocol_version = "HTTP/1.1"
    wrong, asked, connections, lock, versions = 0, 0, 0, threading.Lock(), []

    def setup(self):
        """A client has connected."""
        super().setup()
        with Served.lock:
            Served.connections += 1

    def do_POST(self):
        """One prediction."""
        self.rfile.read(int(self.headers["Content-Length"]))
        Served.versions.append(self.path.partition("/versions/")[2].partition(":")[0])
        with Served.lock:
            Served.asked += 1
            label = "8" if Served.asked > 10 and Served.wrong > 0 else "3"
            Served.wrong -= label == "8"
        body = json.dumps({"predictions": [{"label": label, "confidence": 0.9}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        """Nothing."""


@pytest.fixture
def server():
    """The server; it counts what it was asked."""
    Served.wrong = Served.asked = Served.connections = 0
    Served.versions = []
    started = start_server(Served)
    yield started
    stop_server(started)


@pytest.fixture
def command(load_python, server, tmp_path):
    """The command that tests the server under load."""
    request = {
        "target": {"rest": f"http://127.0.0.1:{server.server_port}", "grpc": None, "model": "vit", "version": 3},
        "questions": [{"name": "three", "rest_body": "{}", "grpc_request": "", "labels": ["3"]}],
        "descriptors": "",
        "plan": PLAN,
    }
    (tmp_path / "request.json").write_text(json.dumps(request))
    return [load_python, LOADER / "load.py", "--request", tmp_path / "request.json", "--out", tmp_path / "out"]


def run(command, *words, **environment):
    """Run the program to its end."""
    return subprocess.run(
        [*command, *words], capture_output=True, text=True, check=False, timeout=600, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_the_test_ends_by_itself_and_leaves_its_figures(command, tmp_path, workers):
    """In one process, or by a master and two workers: figures, a picture, Locust's report, and every sample."""
    done = run(command, "--workers", str(workers))
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "out" / "load.json").read_text())
    rate, closed = figures["steps"]
    assert rate["errors"] == closed["errors"] == {}
    assert rate["requests"] > 4
    assert closed["reached_per_s"] > rate["reached_per_s"]
    # No more users than the step has: each waits for its answer.
    assert closed["reached_per_s"] * closed["p50_ms"] / 1000 < 2 * closed["users"]
    assert rate["p50_ms"] <= rate["p95_ms"] <= rate["p99_ms"]
    assert "2 users: " in done.stdout
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names >= {"load.json", "load.png", "report.html", "locust_stats.csv", "samples.csv"}
    assert (tmp_path / "out" / "load.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "out" / "samples.csv").read_text().splitlines()) > 10


def test_the_workers_may_run_elsewhere(command, tmp_path):
    """A master that only listens, and two workers that are started apart from it; its last line has the figures."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        at = f"127.0.0.1:{free.getsockname()[1]}"
    worker = [*command[:4], "--worker", at]
    with subprocess.Popen(worker, stderr=subprocess.DEVNULL) as first, subprocess.Popen(worker) as second:
        done = run(command, "--listen", at, "--workers", "2", "--print-figures")
        assert (first.wait(timeout=60), second.wait(timeout=60)) == (0, 0)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "out" / "load.json").read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == figures
    assert figures["errors"] == 0
    assert figures["steps"][0]["requests"] > 4


@pytest.mark.parametrize("keep_s", [0, None])
def test_a_user_closes_its_connection_after_so_many_seconds(command, tmp_path, keep_s):
    """With `keep_s` 0 each request has a new connection; without it each user keeps one."""
    request = json.loads((tmp_path / "request.json").read_text())
    (tmp_path / "request.json").write_text(json.dumps({**request, "keep_s": keep_s}))
    done = run(command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Served.asked > 20
    assert Served.connections == Served.asked if keep_s == 0 else Served.connections < 20
    kept = json.loads((tmp_path / "out" / "request.json").read_text())
    assert kept["keep_s"] == keep_s


def test_a_wrong_answer_is_an_error(command, tmp_path):
    """It is counted by its kind, and its step has no latency."""
    Served.wrong = 3
    done = run(command)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "out" / "load.json").read_text())
    assert figures["errors"] == 3
    assert "errors: 3 times wrong label" in done.stdout


def test_two_servers_are_asked_in_turns(command, server, tmp_path):
    """Each round measures both, and only the release that is tested has promised answers."""
    file = tmp_path / "request.json"
    request = json.loads(file.read_text())
    beside = request["target"] | {"version": 2}
    plan = {"rates_per_s": [5], "closed_users": [], "step_s": 3, "settle_s": 1, "rounds": 3}
    file.write_text(json.dumps(request | {"beside": beside, "plan": plan}))
    done = run(command)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "out" / "load.json").read_text())
    assert figures["beside"] == {"address": f"http://127.0.0.1:{server.server_port}", "version": 2}
    assert [(step["round"], step["at"]) for step in figures["steps"]] == [
        (1, "release"), (1, "beside"), (2, "beside"), (2, "release"), (3, "release"), (3, "beside"),
    ]  # fmt: skip
    assert all(step["requests"] and step["p95_ms"] and not step["errors"] for step in figures["steps"])
    assert set(Served.versions) == {"2", "3"}


def test_another_test_is_in_the_same_picture(command, tmp_path):
    """The figures say which one."""
    file = tmp_path / "request.json"
    plan = {"rates_per_s": [4], "closed_users": [], "step_s": 3, "settle_s": 1}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"plan": plan}))
    figures = {"version": 2, "began": "2026-11-28T00:00:00+00:00", "steps": [], "holds_up_to_per_s": None}
    (tmp_path / "before.json").write_text(json.dumps(figures))
    done = run(command, "--before", tmp_path / "before.json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out" / "load.json").read_text())["before"]
    assert found == {"version": 2, "began": "2026-11-28T00:00:00+00:00"}


def test_ends_early_after_so_many_requests(command, tmp_path):
    """The number of requests is bounded too: a fast server could fill the worker's memory with samples."""
    done = run(command, SLIPWAY_LOAD_REQUESTS="8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the test ends early, after 8 requests" in done.stdout
    assert json.loads((tmp_path / "out" / "load.json").read_text())["steps"][1]["requests"] == 0


def test_refused_if_the_server_answers_wrongly_without_load(command, server, tmp_path):
    """One line names the server and the question; there is no output."""
    stop_server(server)
    done = run(command)
    assert (done.returncode, (tmp_path / "out").exists()) == (1, False)
    [line] = done.stderr.splitlines()[-1:]
    assert (
        f"http://127.0.0.1:{server.server_port}: question three: no answer, before there was any load. Next: " in line
    )


def test_the_load_ends_with_whoever_started_it(command):
    """If standard input ends, as when the task is killed, no request is sent any more."""
    process = subprocess.Popen(
        [*command, "--workers", "1", "--end-with-stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end_s = time.monotonic() + 300
        while Served.asked < 5:
            assert process.poll() is None
            assert time.monotonic() < end_s
            time.sleep(0.1)
        process.stdin.close()
        process.wait(timeout=60)
        time.sleep(1)
        seen = Served.asked
        time.sleep(2)
        assert Served.asked == seen
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
