"""The text that a sweep leaves in docs/load.md."""

import pytest

from benchmarks import sweep_figures
from benchmarks.sweep_figures import BEGIN, END, indented, main

SWEEP = "variant  p95 ms at 8/s\nlocal    90 (80 to 100)\n\nsweep: recommended: local"


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page with marks in place of docs/load.md, and a picture next to it."""
    page = tmp_path / "load.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    monkeypatch.setattr(sweep_figures, "PAGE", page)
    monkeypatch.setattr(sweep_figures, "PICTURE", tmp_path / "sweep.png")
    return page


def test_table_and_picture_of_a_sweep(page, tmp_path):
    """Between the marks of the page; the rest of it stays."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "sweep.txt").write_text(f"{SWEEP}\n")
    (kept / "sweep.png").write_text("picture")
    (kept / "server.txt").write_text("The stand-in on a machine")
    assert main(["--from", str(kept)]) == 0
    assert page.read_text().splitlines() == [
        "before", BEGIN, "", "The stand-in on a machine; the load and the server shared the machine.", "",
        "    variant  p95 ms at 8/s", "    local    90 (80 to 100)", "", "    sweep: recommended: local", "", END, "after",
    ]  # fmt: skip
    assert (tmp_path / "sweep.png").read_text() == "picture"


def test_a_long_line_is_cut():
    """The reason why a variant was not measured is as long as the cluster's message."""
    assert indented("a" * 160) == f"    {'a' * 150} …"
