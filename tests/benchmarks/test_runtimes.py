"""What the tables of `make bench-runtimes` say of measured rounds, and that it runs."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import graph_speed, runtime_models, runtimes
from benchmarks.first_requests import free_port
from benchmarks.runtime_figures import (
    BARE,
    ONNX_FLOAT16,
    ONNX_FLOAT32,
    ONNX_INT8,
    ONNX_SERVER,
    RULES,
    STAND_IN,
    TENSORFLOW_GRAPH,
    Figures,
    Footprint,
    Goal,
    InProcess,
    Served,
    percentile,
    plan_goals,
    products_gflop,
    ratios,
    render,
    short,
)  # fmt: skip
from benchmarks.runtime_models import digits, export_request, int8_of, judge_int8_card, vit_b16
from benchmarks.runtime_servers import Server, first_answer_s, load
from benchmarks.runtime_worker import measured

PROJECT = Path(__file__).parents[2]
VIT_B16 = {
    "hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072, "image_size": 224, "patch_size": 16, "num_channels": 3,
}  # fmt: skip


def run(runtime, batch, threads, cpu_ms):
    """A runtime whose two rounds took this processor time."""
    ms = tuple((one, 2 * one) for one in cpu_ms)
    return InProcess(runtime=runtime, threads=threads, batch=batch, ms=ms, cpu_ms=cpu_ms, answer=("cat", 0.5))


def served(server, connections, per_s, cpu_ms=(10.0, 10.0), batch=1):
    """A server that answered so many requests a second in two rounds."""
    return Served(server=server, batch=batch, connections=connections, ms=((5.0,), (7.0,)), cpu_ms=cpu_ms, per_s=per_s)


def figures(**changes):
    """A large model's figures: everything as fast in both runtimes, except for what is changed."""
    whole = {
        "model": "ViT-B/16",
        "gflop": 35.0,
        "threads": 2,
        "in_process": (
            run(TENSORFLOW_GRAPH, 1, 1, (100.0, 200.0)),
            run(ONNX_FLOAT32, 1, 1, (65.0, 130.0)),
            run(TENSORFLOW_GRAPH, 8, 1, (100.0, 100.0)),
            run(ONNX_FLOAT32, 8, 1, (105.0, 103.0)),
            run(ONNX_INT8, 1, 1, (45.0, 90.0)),
            run(ONNX_INT8, 8, 1, (65.0, 66.0)),
            run(TENSORFLOW_GRAPH, 1, 2, (10.0, 10.0)),
            run(BARE, 1, 2, (10.0, 10.0)),
        ),
        "gflop_per_s": {1: 100.0, 2: 90.0},
        "served": (
            served(STAND_IN, 1, (10.0, 20.0)),
            served(ONNX_SERVER, 1, (12.0, 22.0), cpu_ms=(10.5, 10.75)),
            served(STAND_IN, 4, (10.0, 20.0), batch=8),
            served(ONNX_SERVER, 4, (9.0, 18.0), batch=8),
        ),
        "footprints": (
            Footprint(server=STAND_IN, first_answer_s=(9.0, 12.0), warm_mib=(900.0, 1000.0), loaded_mib=1100.0),
            Footprint(server=ONNX_SERVER, first_answer_s=(2.0, 6.0), warm_mib=(450.0, 470.0), loaded_mib=600.0),
        ),
        "file_mb": {TENSORFLOW_GRAPH: 350.0, ONNX_FLOAT32: 347.0, ONNX_FLOAT16: 174.0},
        "int8": "It held.",
    }
    return Figures(**(whole | changes))


def test_goals_are_judged_by_the_median_of_the_rounds():
    """At every batch size and number of connections."""
    said = {goal.what: (goal.ratios, goal.is_met) for goal in plan_goals([figures()])}
    assert said == {
        "ViT-B/16, batch 1: CPU time of ONNX Runtime over TensorFlow's": ((0.65, 0.65), True),
        "ViT-B/16, batch 8: CPU time of ONNX Runtime over TensorFlow's": ((1.05, 1.03), False),
        "ViT-B/16, batch 1: CPU time of ONNX Runtime, int8 over TensorFlow's": ((0.45, 0.45), True),
        "ViT-B/16, batch 8: CPU time of ONNX Runtime, int8 over TensorFlow's": ((0.65, 0.66), False),
        "ViT-B/16: CPU time of a request to the ONNX server over the bare session's": ((1.05, 1.075), True),
        "ViT-B/16: the model's files with float16_weights over float32": ((174 / 347,), True),
        "ViT-B/16: resident memory of the ONNX server over the stand-in's": ((0.5, 0.47), True),
        "ViT-B/16: the stand-in's time from start to first answer over the ONNX server's": ((4.5, 2.0), True),
        "ViT-B/16, batch 1, 1 connection: requests/s of the ONNX server over the stand-in's": ((1.2, 1.1), True),
        "ViT-B/16, batch 8, 4 connections: requests/s of the ONNX server over the stand-in's": ((0.9, 0.9), False),
    }


@pytest.mark.parametrize("what", ["in_process", "served", "footprints"])
def test_a_goal_that_was_not_measured_is_an_error(what):
    """No series can be left out unnoticed. The one with two threads is only in a table."""
    whole = figures()
    series = [
        one
        for one in getattr(whole, what)
        if (getattr(one, "runtime", ""), getattr(one, "threads", 1)) != (TENSORFLOW_GRAPH, 2)
    ]
    for one in series:
        if getattr(one, "server", "") == ONNX_SERVER and getattr(one, "batch", 1) == 8:
            continue  # its goal is made from it
        left = replace(whole, **{what: tuple(other for other in getattr(whole, what) if other is not one)})
        with pytest.raises(ValueError, match="was measured 0 times, not once"):
            plan_goals([left])
    with pytest.raises(ValueError, match="the size of ONNX Runtime, float16_weights was not measured"):
        plan_goals([replace(whole, file_mb={ONNX_FLOAT32: 347.0})])


def test_a_small_model_has_the_goals_of_time_too():
    """A fifth of the memory for the digits; the request and the file of a small model have no goal, and the text says why."""
    goals = plan_goals([figures(model="digits-vit")])
    assert [goal.most for goal in goals if "memory" in goal.what] == [0.2]
    assert [goal.most for goal in goals if "CPU time" in goal.what] == [0.7, 1.0, 0.5, 0.65]
    assert not [goal for goal in goals if "bare session" in goal.what or "files" in goal.what]
    assert "are goals for a large model only" in RULES


@pytest.mark.parametrize(("most", "least", "is_met"), [(1.0, None, True), (0.9, None, False), (None, 1.1, False)])
def test_a_bound_is_kept_by_the_median(most, least, is_met):
    """One slow round of three decides nothing."""
    assert Goal(what="", ratios=(0.9, 1.0, 5.0), most=most, least=least).is_met == is_met


def test_tables_say_what_was_measured():
    """Ratios are of the same round; the processor's limit is the rate of a large product."""
    found = figures()
    rows = render(
        [found], plan_goals([found]), where="a machine", versions="a 1, b 2", note="It was busy."
    ).splitlines()
    assert rows[:2] == ["`make bench-runtimes` on a machine. a 1, b 2.", "It was busy."]
    assert (
        "| ViT-B/16, batch 8: CPU time of ONNX Runtime over TensorFlow's | at most 1.00 | 1.04 (1.03 to 1.05) | **no** |"
        in rows
    )
    assert (
        "| ONNX Runtime | 1 | 1 | 130 | 260 | 7.69 | 97.5 | 0.65 (0.65 to 0.65) | 0.65 (0.65 to 0.65) | 359% | cat | 0.50000 |"
        in rows
    )
    assert "| the ONNX server | 1 | 1 | 6 | 7 | 17 | 17 | 10.6 | 1.15 (1.10 to 1.20) |" in rows
    assert "| the ONNX server | 4.00 (2.00 to 6.00) | 460 | 600 |" in rows
    assert (
        rows[-1]
        == "What a server loads: TensorFlow 350 MB, ONNX Runtime 347 MB, ONNX Runtime, float16_weights 174 MB. It held."
    )


def test_products_are_those_of_the_other_benchmark():
    """By a checkpoint's config, and not only for ViT-B/16."""
    assert products_gflop(VIT_B16, 1000) == pytest.approx(graph_speed.products_gflop(last_whole=True))
    assert products_gflop(digits(Path()).config, 10) == pytest.approx(0.00626, abs=0.00001)


def test_small_figures():
    """Ratios of the same round, a percentile that is one of the values, three digits."""
    assert ratios((1.0, 6.0), (2.0, 3.0)) == (0.5, 2.0)
    assert [percentile(range(1, 21), 95), percentile([3.0], 95)] == [19, 3.0]
    assert [short(value) for value in (1234.5, 12.345, 0.012345)] == ["1234", "12.3", "0.0123"]


def test_every_second_round_has_the_reversed_order():
    """What comes first is not always the same."""
    assert [list(runtimes.in_turn(["a", "b"], number)) for number in (0, 1, 2)] == [["a", "b"], ["b", "a"], ["a", "b"]]


def test_both_exporters_get_the_same_request():
    """With the image as a golden case, and a precision only if it is not the default."""
    request = export_request(digits(Path()), "float32")
    assert request["golden"][0]["label"] == ["3"]
    assert request["settings"] == {}
    assert export_request(digits(Path()), "float16_weights") == {
        **request,
        "settings": {"precision": "float16_weights"},
    }


def test_labelled_set_is_in_the_request_for_int8():
    """digits-vit's int8 is the exporter's own, on the held-out digits."""
    request = export_request(digits(Path()), "int8", Path("/held-out.json"))
    assert (request["settings"], request["labelled"]) == ({"precision": "int8"}, "/held-out.json")


def test_int8_that_is_measured_has_held_its_bounds():
    """2 % of the labels may change, and 1 % of the correct ones may be lost; beyond that, nothing is measured."""
    card = {"images": 200, "labels_changed": 4, "correct_float32": 190, "correct_int8": 188}
    assert judge_int8_card(card) == (
        "Its int8 changed 4 of 200 labels of the held-out digits, and lost 2 correct ones: within the default bounds of `gate.quality`."
    )
    for beyond in ({"labels_changed": 5}, {"correct_int8": 187}):
        with pytest.raises(RuntimeError, match="more than the default bounds"):
            judge_int8_card(card | beyond)


def test_random_weights_hold_no_bound(tmp_path):
    """The page says so."""
    (tmp_path / "photo.jpg").touch()
    assert int8_of(vit_b16(tmp_path), tmp_path).startswith("Its int8 was held to no bound, because random weights")


def test_times_are_for_an_image():
    """A call with four images has four times the time of each."""
    found = measured(lambda texts: [[b"cat"] * len(texts), [0.25] * len(texts)], [b"a"] * 4, 3)
    assert (len(found["ms"]), found["answer"]) == (3, ["cat", 0.25])
    assert found["cpu_ms"] >= 0


HTTP_SERVER = """
import http.server, sys, time
class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        end = time.thread_time() + 0.005
        while time.thread_time() < end: pass
        self.send_response(int(sys.argv[2])); self.send_header("content-length", "2"); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answers).serve_forever()
"""


@pytest.fixture
def http_server():
    """Starts a process that answers each POST with a status, after five milliseconds of a processor for each."""
    processes = []

    def start(status):
        port = free_port()
        processes.append(subprocess.Popen([sys.executable, "-c", HTTP_SERVER, str(port), str(status)]))
        return Server(process=processes[-1], port=port, started_s=time.monotonic())

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_a_load_measures_the_server_alone(http_server):
    """Every request has its time; the processor time is the server's, and the memory its own."""
    server = http_server(200)
    assert first_answer_s(server, b"{}") > 0
    found = load(server, b"{}", connections=4, requests=20)
    assert len(found.ms) == 20
    assert found.cpu_s >= 20 * 0.005
    assert found.wall_s > 0
    assert server.resident_mib() > 1


def test_an_error_ends_a_load(http_server):
    """No figure is made of refused requests."""
    server = http_server(200)
    first_answer_s(server, b"{}")
    refusing = http_server(503)
    with pytest.raises(RuntimeError, match="the load ended early"):
        load(refusing, b"{}", connections=2, requests=4)
    server.process.kill()
    server.process.wait()
    with pytest.raises(RuntimeError, match="the server ended with status -9"):
        first_answer_s(server, b"{}")


@pytest.mark.slow
@pytest.mark.model
def test_the_short_form_measures_the_digits_and_changes_no_page(tmp_path):
    """Every runtime answers the same, and both servers are loaded."""
    page = PROJECT / "docs" / "runtimes.md"
    before = page.read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.runtimes", "--short", "--exports", tmp_path], cwd=PROJECT, capture_output=True,
        text=True, check=False, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [
        row
        for row in done.stdout.splitlines()
        if row.startswith(("| TensorFlow | 1 | 1 |", "| ONNX Runtime | 1 | 1 |"))
    ]
    assert [row.split(" | ")[-2] for row in rows] == ["3", "3"]
    assert "| the ONNX server | 8 | 8 |" in done.stdout
    assert "Its int8 changed " in done.stdout
    assert page.read_bytes() == before
    made, exports = tmp_path / "unjudged", tmp_path / "digits"
    made.mkdir()
    program = [runtime_models.python_of("onnx"), runtime_models.__file__]
    for precision in ("float16_weights", "int8"):  # as for ViT-B/16, which has no labelled set
        subprocess.run([*program, precision, exports / "onnx-float32" / "model", made / precision], check=True)
        judged = exports / f"onnx-{precision}" / "model" / "model.onnx"
        assert (made / precision / "model.onnx").stat().st_size == pytest.approx(judged.stat().st_size, rel=0.01)
    assert json.loads((tmp_path / "digits" / "onnx-float32" / "export.json").read_text())["model"] == "digits-vit"
