"""The table of a load test's figures."""

import base64
import json

import pytest

from benchmarks import load_figures
from benchmarks.first_requests import served
from benchmarks.load_figures import PAGE, cell, load_request, main, render

STEP = {"name": "5/s", "reached_per_s": 5.0, "p50_ms": 10.0, "p95_ms": 20.5, "p99_ms": 30.0, "errors": {}}


def test_a_row_for_each_step_and_a_column_for_each_server():
    """With the errors of a step in place of its latencies, and up to which rate the objective held."""
    bad = {**STEP, "errors": {"HTTP 503": 2}, "p50_ms": None, "p95_ms": None, "p99_ms": None}
    found = [
        ("version 1", {"steps": [bad], "holds_up_to_per_s": None}),
        ("version 2", {"steps": [STEP], "holds_up_to_per_s": 5}),
    ]
    said, _, head, _, row, _, held = render(found, "this machine").splitlines()
    assert said.startswith("The stand-in, not TensorFlow Serving, ")
    assert head == "| step | version 1: reached/s, p50, p95, p99 ms | version 2: reached/s, p50, p95, p99 ms |"
    assert row == "| 5/s | 5, errors: 2 HTTP 503 | 5, 10, 20.5, 30 |"
    assert held.endswith("held with version 1 up to 0/s, with version 2 up to 5/s.")
    assert cell(STEP) == "5, 10, 20.5, 30"


def test_the_golden_cases_of_an_export_are_asked(tmp_path):
    """With their labels, to the server that is named."""
    for name in ("three", "seven", "eight"):
        (tmp_path / "golden" / name).mkdir(parents=True)
        (tmp_path / "golden" / name / "rest.json").write_text("{}")
        (tmp_path / "golden" / name / "grpc.bin").write_bytes(b"g")
    (tmp_path / "descriptors.bin").write_bytes(b"d")
    request = load_request(tmp_path, {"rest": "http://a", "grpc": None, "model": "m", "version": 1})
    assert [(one["name"], one["labels"]) for one in request["questions"]] == [
        ("three", ["3"]),
        ("seven", ["7"]),
        ("eight", ["8"]),
    ]
    assert (request["target"]["rest"], base64.b64decode(request["descriptors"])) == ("http://a", b"d")
    assert json.dumps(request)


@pytest.mark.slow
@pytest.mark.model
def test_a_server_elsewhere_is_loaded(digits_export, monkeypatch, tmp_path):
    """Over REST and gRPC, as the version that is named; the page is not changed."""
    monkeypatch.setattr(load_figures, "export_version", lambda *_: digits_export)
    monkeypatch.setattr(load_figures, "PLAN", {"rates_per_s": [4], "closed_users": [], "step_s": 4, "settle_s": 1})
    page, out = PAGE.read_text(), tmp_path / "out"
    with served(digits_export, version=3) as server:
        where = ["--rest", f"http://127.0.0.1:{server.rest}", "--grpc", f"127.0.0.1:{server.grpc}"]
        assert main([*where, "--version", "3", "--out", str(out)]) == 0
    figures = json.loads((out / "load.json").read_text())
    assert (figures["version"], figures["errors"], PAGE.read_text()) == (3, 0, page)
    assert set(figures["steps"][0]["by_protocol"]) == {"grpc", "rest"}
