"""The exporter as a program: its output is complete, and the same bytes each time."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from exporter_checks import contents
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from slipway.model.content import write_model_layer

pytestmark = pytest.mark.model

PROJECT = Path(__file__).parents[2]


def test_export_writes_all_files(digits_export):
    """OUT has the SavedModel without its fingerprint, the cases, the card, the descriptors and the facts."""
    case = {"case.json", "grpc.bin", "rest.json"}
    cases = ("three", "seven", "eight")
    expected = {f"golden/{name}/{file}" for name in cases for file in case} | {
        *(f"card/{name}.png" for name in cases),
        "card/README.md",
        "card/card.json",
        "descriptors.bin",
        "export.json",
        "savedmodel/assets.extra/tf_serving_warmup_requests",
        "savedmodel/saved_model.pb",
        "savedmodel/variables/variables.data-00000-of-00001",
        "savedmodel/variables/variables.index",
    }
    assert expected == set(contents(digits_export))
    facts = json.loads((digits_export / "export.json").read_text())
    string, number = {"dtype": "DT_STRING", "shape": [-1]}, {"dtype": "DT_FLOAT", "shape": [-1]}
    signature = {"inputs": {"string_input": string}, "outputs": {"label": string, "confidence": number}}
    assert signature == facts["signature"]
    assert facts["labels"] == [str(digit) for digit in range(10)]
    assert facts["peak_rss_bytes"] < 2 << 30


def test_case_has_promise_and_reference(digits_export):
    """A case has the model file's promise, and 🤗's own answer with its tolerance."""
    case = json.loads((digits_export / "golden" / "three" / "case.json").read_text())
    reference = case.pop("reference")
    assert case == {"name": "three", "label": "3", "min_confidence": 0.85}
    assert reference["label"] == "3"
    assert reference["tolerance"] == 0.01
    assert 0.85 <= reference["confidence"] <= 1


def test_grpc_request_can_be_read_with_the_descriptors(digits_export):
    """A client without TensorFlow needs only descriptors.bin to read and write the requests."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString((digits_export / "descriptors.bin").read_bytes()).file:
        pool.Add(file)
    methods = {
        method.full_name
        for service in ("PredictionService", "ModelService")
        for method in pool.FindServiceByName(f"tensorflow.serving.{service}").methods
    }
    wanted = {"tensorflow.serving.PredictionService.Predict", "tensorflow.serving.ModelService.GetModelStatus"}
    assert wanted <= methods
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.serving.PredictRequest"))
    request = message.FromString((digits_export / "golden" / "three" / "grpc.bin").read_bytes())
    body = json.loads((digits_export / "golden" / "three" / "rest.json").read_text())
    assert (request.model_spec.name, request.model_spec.signature_name) == ("digits-vit", "serving_default")
    assert not request.model_spec.HasField("version")
    assert [value.decode() for value in request.inputs["string_input"].string_val] == body["instances"]


def test_card_describes_the_export(digits_export):
    """The card has class, size, signatures, parity and golden answers; its page shows the images."""
    card = json.loads((digits_export / "card" / "card.json").read_text())
    assert (card["class"], card["labels"], card["settings"]["top_k"]) == ("TFViTForImageClassification", 10, 5)
    assert card["parameters"] == 181_194
    assert card["graph"].startswith("written anew: ")
    assert list(card["signatures"]) == ["raw_bytes", "serving_default", "top_k"]
    assert card["signatures"]["top_k"]["outputs"]["scores"] == {"dtype": "DT_FLOAT", "shape": [-1, 5]}
    parity = card["parity"]
    assert (parity["largest_levels"], parity["labels_equal"]) == (0, parity["images"])
    assert parity["largest_difference"] <= 1e-5
    assert [case["graph"]["label"] for case in card["golden"]] == ["3", "7", "8"]
    assert card["toolchain"]["transformers"] == "4.57.6"
    assert card["measured"]["stages"]["saving the SavedModel"] > 0
    page = (digits_export / "card" / "README.md").read_text()
    assert "![three](three.png)" in page
    assert (digits_export / "card" / "three.png").read_bytes().startswith(b"\x89PNG")


def test_warmup_requests_have_golden_images(digits_export):
    """There are six PredictionLog records for this model: each signature with one image and with four."""
    records = list(read_records(digits_export / "savedmodel" / "assets.extra" / "tf_serving_warmup_requests"))
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString((digits_export / "descriptors.bin").read_bytes()).file:
        pool.Add(file)
    predict_request = message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.serving.PredictRequest"))
    found = []
    for record in records:
        request = predict_request.FromString(field(field(record, 6), 1))  # PredictionLog.predict_log.request
        [(name, tensor)] = request.inputs.items()
        assert request.model_spec.name == "digits-vit"
        found.append((request.model_spec.signature_name, name, tensor.tensor_shape.dim[0].size))
    signatures = [("serving_default", "string_input"), ("raw_bytes", "image_bytes"), ("top_k", "image_bytes")]
    assert found == [(*signature, count) for signature in signatures for count in (1, 4)]


def read_records(path):
    """The records of a TFRecord file: length, its checksum, content, its checksum."""
    data = path.read_bytes()
    while data:
        length = int.from_bytes(data[:8], "little")
        yield data[12 : 12 + length]
        data = data[16 + length :]


def field(message, number):
    """The content of a message's only field, which is a message of an unknown type."""
    at, tag, shift, length = 0, number << 3 | 2, 0, 0
    assert message[at] == tag
    while True:
        at += 1
        length |= (message[at] & 0x7F) << shift
        shift += 7
        if message[at] < 0x80:
            return message[at + 1 : at + 1 + length]


# Simulates another CPU: fewer instructions for oneDNN, NumPy and the C library, and TensorFlow's own kernels.
OTHER_CPU = {
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX512F,-ERMS,-FSRM",
}


@pytest.mark.slow
def test_same_checkpoint_gives_same_layer(model_python, digits_request, digits_export, tmp_path):
    """On a simulated other machine every byte of the SavedModel is the same, and so is the layer.

    The user, host name, home, scratch folder, locale, time zone, umask and hash seed differ; so do the paths of checkpoint,
    exporter and environment, and the dates of their files. It has one of this machine's CPUs, with fewer instructions.
    """
    places = {"checkpoint": digits_request["source"]["path"], "exporter": PROJECT / "include" / "model"}
    for name, original in places.items():
        shutil.copytree(original, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in tmp_path.rglob("*"):
        os.utime(file, (1_000_000_000, 1_000_000_000))
    (tmp_path / "environment").symlink_to(model_python.parents[1])
    request, out = tmp_path / "request.json", tmp_path / "out"
    source = {"kind": "folder", "path": str(tmp_path / "checkpoint")}
    request.write_text(json.dumps({**digits_request, "source": source}))
    for name in ("home", "scratch"):
        (tmp_path / name).mkdir()
    elsewhere = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "scratch"),
        "LC_ALL": "POSIX", "TZ": "Pacific/Chatham", "USER": "somebody", "PYTHONHASHSEED": "1234", **OTHER_CPU,
    }  # fmt: skip
    script = (
        'umask 077; hostname elsewhere; test "$(hostname)" = elsewhere && '
        'exec unshare --user --map-user=4242 --map-group=4242 taskset --cpu-list "$0" "$@"'
    )
    cpu = str(max(os.sched_getaffinity(0)))
    command = ["unshare", "--user", "--map-root-user", "--uts", "sh", "-c", script, cpu]
    python, program = tmp_path / "environment" / "bin" / "python", tmp_path / "exporter" / "export.py"
    done = subprocess.run(
        [*command, python, program, "--request", request, "--out", out],
        capture_output=True, text=True, check=False, timeout=3600, cwd=tmp_path, env=elsewhere,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(digits_export / "savedmodel") == contents(out / "savedmodel")
    layers = [tmp_path / "here.tar", tmp_path / "there.tar"]
    for exported, layer in zip((digits_export, out), layers, strict=True):
        write_model_layer(exported / "savedmodel", "/models/digits-vit/1", layer)
    assert len({hashlib.sha256(layer.read_bytes()).hexdigest() for layer in layers}) == 1


def test_exporter_ends_with_its_standard_input(model_python, digits_request, tmp_path):
    """If standard input ends, as when a worker is killed, the exporter and its process group are killed."""
    request = tmp_path / "request.json"
    request.write_text(json.dumps(digits_request))
    command = [
        model_python,
        PROJECT / "include" / "model" / "export.py",
        "--request",
        request,
        "--out",
        tmp_path / "out",
    ]
    with subprocess.Popen(
        [*command, "--end-with-stdin"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        process.stdout.readline()
        process.stdin.close()
        assert process.wait(timeout=300) == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
