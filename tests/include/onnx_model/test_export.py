"""The second exporter as a program: its output is complete, the same bytes each time, and near the first one's."""

import hashlib
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from exporter_checks import assert_refused, contents

pytestmark = pytest.mark.model

CASES = ("three", "seven", "eight")


def test_export_writes_all_files(onnx_digits_export):
    """OUT has the model with its description and warmup requests, the cases, the card, the descriptors and the facts."""
    expected = {f"golden/{name}/{file}" for name in CASES for file in ("case.json", "grpc.bin", "rest.json")} | {
        *(f"card/{name}.png" for name in CASES),
        *(f"model/warmup/000{number}.bin" for number in range(1, 4)),
        "card/README.md",
        "card/card.json",
        "descriptors.bin",
        "export.json",
        "model/model.json",
        "model/model.onnx",
    }
    assert expected == set(contents(onnx_digits_export))
    facts = json.loads((onnx_digits_export / "export.json").read_text())
    assert {"onnxruntime", "torch", "transformers", "exporter"} < set(facts)
    assert facts["labels"] == [str(digit) for digit in range(10)]
    assert facts["peak_rss_bytes"] < 2 << 30


def test_requests_are_those_of_the_first_exporter(digits_export, onnx_digits_export):
    """Clients notice no difference: signatures and golden requests are equal to the byte, confidences within 0.0001."""
    ours, theirs = ({name: (out / "golden" / name) for name in CASES} for out in (onnx_digits_export, digits_export))
    for name in CASES:
        for file in ("grpc.bin", "rest.json"):
            assert (theirs[name] / file).read_bytes() == (ours[name] / file).read_bytes()
        case, other = (json.loads((folder[name] / "case.json").read_text()) for folder in (ours, theirs))
        assert other["reference"].pop("confidence") == pytest.approx(case["reference"].pop("confidence"), abs=1e-4)
        assert other == case
    cards = [json.loads((out / "card" / "card.json").read_text()) for out in (onnx_digits_export, digits_export)]
    assert cards[0]["signatures"] == cards[1]["signatures"]
    for ours_graph, theirs_graph in zip(*([case["graph"] for case in card["golden"]] for card in cards), strict=True):
        assert ours_graph["label"] == theirs_graph["label"]
        assert ours_graph["confidence"] == pytest.approx(theirs_graph["confidence"], abs=1e-4)


def test_card_describes_the_export(onnx_digits_export):
    """The card has class, size, signatures and parity; no pixel differs, in CMYK neither."""
    card = json.loads((onnx_digits_export / "card" / "card.json").read_text())
    assert (card["class"], card["labels"], card["parameters"]) == ("ViTForImageClassification", 10, 181_194)
    assert card["graph"].startswith("torch.export, ONNX opset 23, ")
    assert card["graph"].endswith(", 11 operations only for the token that is read")
    assert card["content"] == "ONNX model"
    parity = card["parity"]
    assert (parity["images"], parity["cmyk"]["images"]) == (33, 0)
    assert (parity["largest_levels"], parity["labels_equal"]) == (0, 33)
    assert parity["largest_difference"] <= 1e-5
    assert card["toolchain"]["transformers"].startswith("5.")


def test_description_says_how_to_read_an_image(onnx_digits_export):
    """model.json has what the server needs beside the graph."""
    described = json.loads((onnx_digits_export / "model" / "model.json").read_text())
    assert [step["kind"] for step in described["steps"]] == ["resize", "rescale", "normalise"]
    assert (described["format"], described["opset"], described["precision"]) == (1, 23, "float32")
    assert (described["top_k"], described["max_side"], described["on_bad_image"]) == (5, 8192, "refuse")
    assert described["may_join"] is True


def test_model_names_no_folder(onnx_digits_export, digits_checkpoint):
    """The graph has no trace of the machine that made it."""
    model = (onnx_digits_export / "model" / "model.onnx").read_bytes()
    for word in (b"/include/", b"site-packages", b".py", str(digits_checkpoint).encode()):
        assert word not in model


@pytest.mark.slow
def test_same_checkpoint_gives_same_model(onnx_python, run_onnx_exporter, digits_request, onnx_digits_export, tmp_path):
    """With other paths, another home, locale, time zone and hash seed, every byte of the model is the same."""
    checkpoint = tmp_path / "else where" / "checkpoint"
    shutil.copytree(digits_request["source"]["path"], checkpoint)
    other = {**digits_request, "source": {"kind": "folder", "path": str(checkpoint)}}
    environment = {
        "HOME": str(tmp_path),
        "LC_ALL": "C",
        "TZ": "Asia/Tokyo",
        "PYTHONHASHSEED": "77",
        "OMP_NUM_THREADS": "1",
    }
    done = run_onnx_exporter(other, tmp_path / "second" / "out", **environment)
    assert done.returncode == 0, done.stderr
    assert contents(onnx_digits_export / "model") == contents(tmp_path / "second" / "out" / "model")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"settings": {"precision": "int8"}}, "labelled: int8 needs a labelled set"),
        ({"labelled": "/x"}, "no other precision has use for one. Next: "),
        ({"settings": {"calibration": "all"}}, "settings.calibration: 'all' is unknown. Next: use none or labelled."),
        ({"settings": {"precision": "float8"}}, "settings.precision: 'float8' is unknown. Next: use one of float32,"),
    ],
)
def test_request_is_refused(run_onnx_exporter, digits_request, tmp_path, changes, expected):
    """Settings that are unknown, or do not fit together, are refused before the model is opened."""
    out = tmp_path / "out"
    assert_refused(run_onnx_exporter({**digits_request, **changes}, out), out, expected)


def test_archive_is_refused(run_onnx_exporter, digits_request, tmp_path):
    """A SavedModel has no PyTorch class."""
    archive = tmp_path / "model.tar"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(tarfile.TarInfo("model/saved_model.pb"))
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    source = {"kind": "savedmodel", "url": "https://here/model.tar", "sha256": sha256, "kept": str(archive)}
    out = tmp_path / "out"
    done = run_onnx_exporter({**digits_request, "source": source, "without_sandbox": True}, out)
    assert_refused(
        done, out, "source: https://here/model.tar: a SavedModel has no PyTorch class to export to ONNX. Next: "
    )


def test_broken_promise_is_refused(run_onnx_exporter, digits_request, tmp_path):
    """A golden case that the model does not keep ends with the status of a bad model."""
    golden = [{**digits_request["golden"][0], "label": "8"}]
    out = tmp_path / "out"
    done = run_onnx_exporter({**digits_request, "golden": golden}, out)
    assert_refused(done, out, "golden case three: 🤗's own model answers '3'", "the case promises '8'", status=65)


def test_program_prints_its_progress(onnx_python):
    """--help says what OUT has."""
    program = Path(__file__).parents[3] / "include" / "onnx_model" / "export_onnx.py"
    done = subprocess.run([onnx_python, program, "--help"], capture_output=True, text=True, check=True)
    assert "model/{model.onnx,model.json,warmup/0001.bin" in done.stdout
