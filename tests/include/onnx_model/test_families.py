"""What `make onnx-families` counts as exported, and when it fails."""

import subprocess
from pathlib import Path

import pytest
from families import BEGIN, HEAD, Outcome, exported_before, judge_again, judge_labels, judge_list, place, render
from golden import Answer
from parity import Comparison

from tests.include.onnx_model.conftest import CODE, INCLUDE

PAGE = Path(__file__).parents[3] / "docs" / "runtimes.md"
FIGURES = {"images": 33, "largest_difference": 0.00001, "largest_levels": 0.0, "labels_equal": 33}
SWIN = Outcome(model_type="swin", processor="ViTImageProcessor", answers=6, figures=FIGURES)
DINAT = Outcome(model_type="dinat", processor="ViTImageProcessor", why="not made: it needs NATTEN")
FEW = ["swin", "beit", "resnet", "convnext"]


def compared(ours, theirs):
    """An image with these two labels."""
    one, other = (Answer(label=label, confidence=0.4) for label in (ours, theirs))
    return Comparison(kind="PNG", name="a", levels=0, graph=one, reference=other, difference=0, tie=ours != theirs)


def test_another_label_proves_nothing():
    """Not even in a tie; nor does one label for all images."""
    assert judge_labels([compared("a", "a"), compared("b", "b")]) is None
    assert judge_labels([compared("a", "a"), compared("b", "c")]) == "1 of 2 images have another label than 🤗's"
    assert "are 1 different" in judge_labels([compared("a", "a"), compared("a", "a")])


def test_list_is_that_of_transformers():
    """A family that 🤗 has gained or lost is named."""
    assert judge_list(["swin", "vit"], ["vit", "swin"]) is None
    said = judge_list(["swin", "old"], ["swin", "new", "newer"])
    assert "it has not new, newer; it has too many old. Next: " in said


def test_family_that_was_exported_must_be_again():
    """The page's table is the memory: what it has as exported, and is refused now, is named with the reason."""
    page = place("# Runtimes\n", render([SWIN, DINAT], {}, {"torch": "2"}))
    assert page.count(HEAD) == page.count(BEGIN) == 1
    assert exported_before(page) == {"swin"}
    assert exported_before("# Runtimes\n") == set()
    assert judge_again([SWIN, DINAT], {"swin"}) is None
    assert judge_again([DINAT], {"dinat", "swin"}).startswith(
        "1 families of the page's table are no longer exported (dinat: not made: it needs NATTEN). Next: "
    )


@pytest.mark.slow
@pytest.mark.model
def test_some_families_are_exported_as_the_page_says(onnx_python):
    """Each label is 🤗's, several labels occur, and the page, which already has them as exported, is not changed."""
    before = PAGE.read_bytes()
    assert set(FEW) <= exported_before(PAGE.read_text())
    path = ":".join(map(str, (INCLUDE / "model", *CODE)))
    done = subprocess.run(
        [onnx_python, INCLUDE / "onnx_model" / "families.py", PAGE, "--only", *FEW],
        capture_output=True, text=True, check=False, timeout=1800, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.partition(": | ")[2] for line in done.stdout.splitlines() if ": | " in line]
    cells = {name: cells for name, *cells in (row.removesuffix(" |").split(" | ") for row in rows)}
    assert list(cells) == FEW
    for _processor, difference, levels, equal, answers in cells.values():
        assert float(difference) <= 1e-3
        assert float(levels) <= 1
        assert len(set(equal.split(" of "))) == 1
        assert int(answers) >= 2
    assert PAGE.read_bytes() == before
