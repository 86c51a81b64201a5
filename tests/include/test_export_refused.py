"""Exports that are refused for their golden images, weights or output folder."""

import shutil

import pytest
from exporter_checks import assert_refused

pytestmark = pytest.mark.model


def test_broken_promise_is_refused(run_exporter, digits_request, tmp_path):
    """A broken promise stops the export; the message has the case, the promise and the answer."""
    golden = [{**digits_request["golden"][0], "label": "8"}]
    done = run_exporter({**digits_request, "golden": golden}, tmp_path / "out")
    assert_refused(
        done,
        tmp_path / "out",
        "golden case three",
        "answers '3' (0.9",
        "the case promises '8' (at least 0.85)",
        status=65,
    )


@pytest.mark.slow
def test_invalid_golden_image_is_refused(run_exporter, digits_request, tmp_path):
    """A golden image that PIL cannot open is refused by name."""
    (tmp_path / "three.png").write_text("no image")
    golden = [{**digits_request["golden"][0], "image": str(tmp_path / "three.png")}]
    done = run_exporter({**digits_request, "golden": golden}, tmp_path / "out")
    assert_refused(done, tmp_path / "out", "golden case three", "three.png", "cannot identify image file")


def test_damaged_weights_are_refused(run_exporter, digits_request, tmp_path):
    """A checkpoint with a truncated weights file is refused; the message has its folder."""
    shutil.copytree(digits_request["source"]["path"], tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    done = run_exporter(
        {**digits_request, "source": {"kind": "folder", "path": str(tmp_path / "cut")}}, tmp_path / "out"
    )
    assert_refused(done, tmp_path / "out", f"{tmp_path / 'cut'}: ", "Next: check its weights.")


def test_simple_mistakes_are_refused_before_loading_tensorflow(run_exporter, digits_request, tmp_path):
    """A missing folder, a missing image and an OUT that is not empty are refused before TensorFlow is loaded."""
    out = tmp_path / "out"
    missing = run_exporter({**digits_request, "source": {"kind": "folder", "path": "/nowhere"}}, out)
    assert_refused(missing, out, "source: no folder /nowhere")
    golden = [{**digits_request["golden"][0], "image": "/nowhere.png"}]
    assert_refused(run_exporter({**digits_request, "golden": golden}, out), out, "golden case three: /nowhere.png")
    out.mkdir()
    (out / "mine").touch()
    taken = run_exporter(digits_request, out)
    assert taken.returncode == 1
    assert f"{out}: is not empty" in taken.stderr
    assert [path.name for path in out.iterdir()] == ["mine"]
