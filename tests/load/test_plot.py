"""The picture of a load test, drawn in the load test's environment."""

import json
import subprocess
from pathlib import Path

import pytest

LOADER = Path(__file__).parents[2] / "include" / "load"
SHOWN = """
import json, sys
sys.path.append(sys.argv[1])
import matplotlib
matplotlib.use("Agg")
from plot import picture_of
[axes] = picture_of(*json.loads(sys.argv[2])).axes
print(json.dumps([[text.get_text() for text in axes.get_legend().get_texts()], *axes.get_ylim()]))
"""

pytestmark = pytest.mark.model  # it needs an environment of its own


def step(asked, p95=20.0, *, kind="rate", number=0, at="release", **errors):
    """A step's figures."""
    times = dict.fromkeys(("p50_ms", "p95_ms"), None if errors else p95)
    return {"kind": kind, "at": at, "round": number, "asked_per_s": asked, "reached_per_s": asked, "errors": errors, **times}  # fmt: skip


def figures_of(version, *steps, best=None):
    """A test's figures."""
    return {
        "model": "vit", "version": version, "address": "http://a:1", "began": "2026-11-29", "objective": {"p95_ms": 100},
        "steps": steps, "holds_up_to_per_s": best,
    }  # fmt: skip


@pytest.fixture
def picture(load_python):
    """Draws a picture; what its legend says, and where its upright axis begins and ends."""

    def draw(figures, before=None, names=("this release", "the release before")):
        words = [load_python, "-c", SHOWN, LOADER, json.dumps([figures, before, names])]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return draw


@pytest.fixture
def legend(picture):
    """Draws a picture; what its legend says."""
    return lambda *drawn: picture(*drawn)[0]


def test_the_legend_tells_the_two_releases_apart(legend):
    """Also if both have the same version; and it says where the objective of each ends."""
    steps = (step(5), step(10, HTTP=3), step(8, 40, kind="closed"))
    assert legend(figures_of(3, *steps, best=5), figures_of(3, step(5), best=5)) == [
        "this release, version 3: p95",
        "this release, version 3: p50",
        "this release, version 3: p95 in closed loops",
        "this release, version 3: errors",
        "this release, version 3: holds up to 5/s",
        "the release before, version 3: p95",
        "the release before, version 3: p50",
        "the release before, version 3: holds up to 5/s",
        "objective: p95 100 ms",
    ]


def test_another_server_is_beside_the_live_release(legend):
    """It is no release."""
    shown = legend(figures_of(3, step(5)), figures_of(2, step(5)), ["this server", "the live release"])
    assert shown[::2] == ["this server, version 3: p95", "the live release, version 2: p95", "objective: p95 100 ms"]


def test_rounds_are_drawn_one_after_the_other(legend):
    """Of a preview, and of the live release beside it."""
    steps = [step(5, number=1), step(5, number=1, at="beside"), step(5, number=2, HTTP=1), step(5, number=2, at="beside")]  # fmt: skip
    assert legend(figures_of(3, *steps))[:3] == ["this release: p95", "this release: errors", "the live release: p95"]


def test_the_objective_is_in_the_picture_of_fast_rounds(picture):
    """The axis begins at 0, and what is far above all rounds is in the picture too; so is the slowest round, with room above."""
    _, bottom, top = picture(figures_of(3, step(5, 20, number=1), step(5, 30, number=2)))
    assert bottom == 0
    assert top > 100
    _, bottom, top = picture(figures_of(3, step(5, 200, number=1), step(5, 400, number=2)))
    assert bottom == 0
    assert top > 400


def test_nothing_was_measured(legend):
    """There is a picture all the same."""
    assert legend(figures_of(3, step(5, HTTP=1)))[0] == "this release, version 3: errors"
