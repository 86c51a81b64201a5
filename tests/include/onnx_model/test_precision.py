"""Weights stored as float16, and models in int8: what is written, what is measured, and what is refused."""

import base64
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from errors import ExportRefused
from exporter_checks import assert_refused, contents
from golden import Answer
from labelled import LabelledImage, choose_calibration, compare_answers, read_labelled

from tests.include.conftest import run_trial
from tests.include.onnx_model.conftest import CODE, HERE


@pytest.fixture(scope="session")
def labelled_file(onnx_python, digits_request, tmp_path_factory):
    """A labelled set of the golden digits at twelve places, and of one file that is no image."""
    digits = [f"{case['label']}={case['image']}" for case in digits_request["golden"]]
    file = tmp_path_factory.mktemp("labelled") / "labelled.json"
    file.write_text(json.dumps(run_trial(onnx_python, HERE / "labelled_trial.py", *digits)))
    return file


@pytest.fixture(scope="session")
def int8_request(digits_request, labelled_file):
    """A request for digits-vit in int8, calibrated."""
    settings = {"precision": "int8", "calibration": "labelled"}
    return {**digits_request, "settings": settings, "labelled": str(labelled_file)}


@pytest.fixture(scope="session")
def exports(run_onnx_exporter, digits_request, int8_request, tmp_path_factory):
    """digits-vit with float16 weights, in int8 with fixed scales, and in int8 without."""
    folder, found = tmp_path_factory.mktemp("precision"), {}
    for name, request in {
        "float16": {**digits_request, "settings": {"precision": "float16_weights"}},
        "static": int8_request,
        "dynamic": {**int8_request, "settings": {"precision": "int8"}},
    }.items():
        done = run_onnx_exporter(request, folder / name)
        assert done.returncode == 0, done.stdout + done.stderr
        found[name] = folder / name
    return found


@pytest.fixture(scope="session")
def trial(onnx_python, exports):
    """What is in the three graphs, and how graphs without products are refused."""
    files = [exports[name] / "model" / "model.onnx" for name in ("float16", "static", "dynamic")]
    return run_trial(onnx_python, HERE / "precision_trial.py", *files, path=CODE)


def card_of(out):
    """An export's card."""
    return json.loads((out / "card" / "card.json").read_text())


@pytest.mark.model
def test_float16_weights_halve_the_file_within_the_same_bound(exports, onnx_digits_export):
    """All else is as in float32: only the graph's file, and what model.json says of it, differ."""
    small, large = (out / "model" / "model.onnx" for out in (exports["float16"], onnx_digits_export))
    assert small.stat().st_size < 0.55 * large.stat().st_size
    parity = card_of(exports["float16"])["parity"]
    assert (parity["labels_equal"], parity["largest_levels"]) == (parity["images"], 0)
    assert 0 < parity["largest_difference"] <= 1e-3
    different = contents(exports["float16"] / "model").items() - contents(onnx_digits_export / "model").items()
    assert {name for name, _ in different} == {"model.onnx", "model.json"}
    assert json.loads((exports["float16"] / "model" / "model.json").read_text())["precision"] == "float16_weights"


@pytest.mark.model
def test_only_large_weights_are_stored_as_float16(trial):
    """Biases and norms stay in float32. Each weight is made float32 again, and computed with as before."""
    graph = trial["graphs"][0]
    assert 1 not in graph["weights"]["float16"]["ranks"]
    assert graph["weights"]["float32"]["most_values"] < 1024 or graph["weights"]["float32"]["ranks"] == [1]
    assert graph["operations"]["Cast"] == 26
    assert graph["operations"]["Attention"] == 4
    assert trial["stored"] == {
        "large": "FLOAT16",
        "too large a value": "FLOAT",  # float16 ends at 65504
        "few values": "FLOAT",
        "one dimension": "FLOAT",
    }


def scaled(checkpoint, folder, factors):
    """A copy of a checkpoint in which the weights whose names have these parts are multiplied."""
    shutil.copytree(checkpoint, folder)
    file = folder / "model.safetensors"
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    for part, factor in factors.items():
        (found,) = [value for key, value in header.items() if part in key]
        first, last = (8 + length + offset for offset in found["data_offsets"])
        data[first:last] = (np.frombuffer(bytes(data[first:last]), np.float32) * np.float32(factor)).tobytes()
    file.write_bytes(data)
    return folder


@pytest.mark.model
def test_float16_weights_beyond_the_bound_are_refused(run_onnx_exporter, digits_request, digits_checkpoint, tmp_path):
    """Values near the smallest ones of float16 lose most of their bits. In float32 the two factors cancel each other out."""
    layer = "layer_._0/attention"
    small = {f"{layer}/attention/value/kernel": 1e-6, f"{layer}/attention/value/bias": 1e-6}
    checkpoint = scaled(digits_checkpoint, tmp_path / "checkpoint", {**small, f"{layer}/output/dense/kernel": 1e6})
    request = {**digits_request, "source": {"kind": "folder", "path": str(checkpoint)}, "golden": []}
    out = tmp_path / "out"
    done = run_onnx_exporter({**request, "settings": {"precision": "float16_weights"}}, out)
    assert_refused(done, out, "parity: ", " images differ from 🤗; ", "allowed: 1 level and 0.001", status=65)


@pytest.mark.model
def test_int8_is_a_third_of_the_file(exports, onnx_digits_export):
    """Most of a small model's weights are in products. Only with fixed scales may requests be joined."""
    whole = (onnx_digits_export / "model" / "model.onnx").stat().st_size
    for name in ("static", "dynamic"):
        assert (exports[name] / "model" / "model.onnx").stat().st_size < 0.4 * whole
        described = json.loads((exports[name] / "model" / "model.json").read_text())
        assert (described["precision"], described["may_join"]) == ("int8", name == "static")


@pytest.mark.model
def test_int8_does_not_saturate(trial):
    """Activations are unsigned, weights have seven bits: the same sums on every CPU. Fixed scales quantise the convolution too."""
    _, static, dynamic = trial["graphs"]
    assert dynamic["operations"]["DynamicQuantizeLinear"] > 0
    assert dynamic["operations"]["MatMulInteger"] == 25
    assert dynamic["operations"]["Conv"] == 1
    assert static["operations"]["QuantizeLinear"] > 0
    assert "DynamicQuantizeLinear" not in static["operations"]
    assert static["weights"]["uint8"]["ranks"] == [0]  # zero points of activations
    for graph in (static, dynamic):
        assert -64 <= graph["weights"]["int8"]["least"] < 0 < graph["weights"]["int8"]["largest"] <= 64


@pytest.mark.model
def test_graph_without_products_is_refused(trial):
    """There is nothing to compute in int8; without fixed scales, convolutions are not either."""
    without, calibrated = trial["refusals"]
    assert without.endswith("Next: let export.calibration be labelled, which quantises convolutions too.")
    assert calibrated.endswith("Next: use float32.")


@pytest.mark.model
def test_int8_is_measured_on_the_images_that_it_was_not_calibrated_with(exports, labelled_file):
    """export.json has both labels of each such image, and the card the sums; a file that is no image has no label."""
    images = {image["name"]: image["label"] for image in json.loads(labelled_file.read_text())["images"]}
    for name, calibrated in (("static", 9), ("dynamic", 0)):
        labels = json.loads((exports[name] / "export.json").read_text())["int8"]
        assert set(labels["float32"]) == set(labels["int8"]) <= set(images)
        assert len(labels["float32"]) == 37 - calibrated
        assert labels["float32"]["3/broken.png"] is labels["int8"]["3/broken.png"] is None
        card = card_of(exports[name])["int8"]
        assert (card["images"], card["calibration_images"]) == (37 - calibrated, calibrated)
        assert card["labels_changed"] == sum(
            labels["int8"][image] != label for image, label in labels["float32"].items()
        )
        assert card["correct_int8"] == sum(label == images[image] for image, label in labels["int8"].items())
        assert card["correct_float32"] == sum(label == images[image] for image, label in labels["float32"].items()) > 0
        assert 0 < card["largest_difference"] < 1
        assert "## int8 against float32" in (exports[name] / "card" / "README.md").read_text()


@pytest.mark.model
def test_parity_of_int8_is_that_of_its_float32_graph(exports, onnx_digits_export):
    """The graph is proven before it is quantised, so a wrong resize cannot hide behind int8."""
    for name in ("static", "dynamic"):
        assert card_of(exports[name])["parity"] == card_of(onnx_digits_export)["parity"]


@pytest.mark.model
def test_golden_case_of_int8_promises_the_label(exports):
    """The confidence may be anything above the case's own: the labelled set says how far int8 is from float32."""
    case = json.loads((exports["static"] / "golden" / "three" / "case.json").read_text())
    assert (case["reference"]["label"], case["reference"]["tolerance"]) == ("3", 1)


@pytest.mark.model
@pytest.mark.slow
def test_same_request_gives_same_model(run_onnx_exporter, int8_request, digits_request, exports, tmp_path):
    """Every byte of the model is the same, also with fixed scales."""
    again = {
        "float16": {**digits_request, "settings": {"precision": "float16_weights"}},
        "static": int8_request,
        "dynamic": {**int8_request, "settings": {"precision": "int8"}},
    }
    for name, request in again.items():
        done = run_onnx_exporter(request, tmp_path / name, PYTHONHASHSEED="77", TZ="Asia/Tokyo")
        assert done.returncode == 0, done.stderr
        assert contents(exports[name] / "model") == contents(tmp_path / name / "model")


IMAGES = [
    LabelledImage(name=f"3/{n:02}.png", label="3", data=base64.urlsafe_b64encode(b"%d" % n).decode()) for n in range(20)
]
ANSWERS = {image.name: Answer(label="3", confidence=0.9) for image in IMAGES}


def test_calibration_images_are_the_same_wherever_the_set_lies():
    """One of four, by content: another order of the set changes nothing. An image without an answer is not among them."""
    chosen = choose_calibration(IMAGES, ANSWERS)
    assert (len(chosen), chosen) == (5, choose_calibration(IMAGES[::-1], ANSWERS))
    unread = {**ANSWERS, chosen[0].name: None}
    assert chosen[0] not in choose_calibration(IMAGES, unread)


def test_refused_if_too_few_images_are_left():
    """Three images would leave nothing to calibrate with."""
    with pytest.raises(ExportRefused, match=r"^labelled: 3 readable images are too few to calibrate int8 with"):
        choose_calibration(IMAGES[:3], ANSWERS)


def test_sums_of_what_int8_changed():
    """A label that is lost or gained counts as changed."""
    after = {**ANSWERS, "3/00.png": Answer(label="8", confidence=0.5), "3/01.png": None}
    found = compare_answers(IMAGES, 4, ANSWERS, after)
    assert found == {
        "images": 20,
        "calibration_images": 4,
        "labels_changed": 2,
        "correct_float32": 20,
        "correct_int8": 18,
        "largest_difference": 0.4,
    }


@pytest.mark.parametrize("text", ["[", "[]", "{}", '{"images": [{"name": "a"}]}'])
def test_no_labelled_set_is_refused(tmp_path, text):
    """One line says which file."""
    file = Path(tmp_path / "labelled.json")
    file.write_text(text)
    with pytest.raises(ExportRefused, match=r"^labelled: .*labelled\.json: no labelled set"):
        read_labelled(file)
    with pytest.raises(ExportRefused, match=r"^labelled: .*: No such file"):
        read_labelled(tmp_path / "absent.json")
