"""The exporter as a program: what it leaves, that it leaves the same bytes each time, and how it refuses."""

import hashlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import tarfile
import threading
from functools import partial
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hub_stub import REPO, REVISION

from slipway.folders import write_layer

pytestmark = pytest.mark.model

PROJECT = Path(__file__).parents[2]


def contents(folder):
    """Every file below a folder by its relative name, with its sha256."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_refused(done, out, *says, status=1):
    """The exporter ended with this status and one line that says all this, and left nothing where OUT would be."""
    assert done.returncode == status, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for words in says:
        assert words in done.stderr
    assert "Next: " in done.stderr
    assert not out.exists()
    assert list(out.parent.glob(f".{out.name}*")) == []


@pytest.fixture
def web(tmp_path):
    """A folder of files served over HTTP on loopback; (folder, base URL)."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def archive_request(request, path, url):
    """The request with a SavedModel archive as its source."""
    return {
        **request,
        "source": {"kind": "savedmodel", "url": url, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
    }


def test_export_leaves_what_it_promises(digits_export):
    """OUT holds the SavedModel without its fingerprint, the cases, the descriptors and the facts."""
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


def test_reference_is_near_the_promise(digits_export):
    """A case holds the model file's promise and 🤗's own answer with its tolerance."""
    case = json.loads((digits_export / "golden" / "three" / "case.json").read_text())
    reference = case.pop("reference")
    assert case == {"name": "three", "label": "3", "min_confidence": 0.85}
    assert reference["label"] == "3"
    assert reference["tolerance"] == 0.01
    assert 0.85 <= reference["confidence"] <= 1


def test_grpc_request_reads_with_the_descriptors_alone(digits_export):
    """descriptors.bin is all that a client without TensorFlow needs to read and write the requests."""
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
    asked = message.FromString((digits_export / "golden" / "three" / "grpc.bin").read_bytes())
    body = json.loads((digits_export / "golden" / "three" / "rest.json").read_text())
    assert (asked.model_spec.name, asked.model_spec.signature_name) == ("digits-vit", "serving_default")
    assert not asked.model_spec.HasField("version")
    assert [value.decode() for value in asked.inputs["string_input"].string_val] == body["instances"]


def test_card_says_what_was_exported(digits_export):
    """The card names class, size, signatures, parity and golden answers; its page shows the pictures."""
    card = json.loads((digits_export / "card" / "card.json").read_text())
    assert (card["class"], card["labels"], card["settings"]["top_k"]) == ("TFViTForImageClassification", 10, 5)
    assert card["parameters"] == 181_194
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


def test_server_is_warmed_up_with_golden_images(digits_export):
    """Six records: each signature with one image and with four, for this model, in TF Serving's own message."""
    records = list(read_records(digits_export / "savedmodel" / "assets.extra" / "tf_serving_warmup_requests"))
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString((digits_export / "descriptors.bin").read_bytes()).file:
        pool.Add(file)
    request = message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.serving.PredictRequest"))
    found = []
    for record in records:
        asked = request.FromString(field(field(record, 6), 1))  # PredictionLog.predict_log.request
        [(name, tensor)] = asked.inputs.items()
        assert asked.model_spec.name == "digits-vit"
        found.append((asked.model_spec.signature_name, name, tensor.tensor_shape.dim[0].size))
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
    """The content of a message's one field, a message itself, whose type is not at hand."""
    at, tag, shift, length = 0, number << 3 | 2, 0, 0
    assert message[at] == tag
    while True:
        at += 1
        length |= (message[at] & 0x7F) << shift
        shift += 7
        if message[at] < 0x80:
            return message[at + 1 : at + 1 + length]


# As another CPU would have it: fewer instructions for oneDNN, NumPy and the C library, and TensorFlow's own kernels.
OTHER_CPU = {
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX512F,-ERMS,-FSRM",
}


def test_same_checkpoint_gives_same_layer(model_python, digits_request, digits_export, tmp_path):
    """On what looks like another machine every byte of the SavedModel, and with it the layer, is the same.

    Another user, host name, home, scratch folder, locale, time zone, umask and hash seed; another path of checkpoint, exporter
    and environment, with files of another date; one CPU of those here, with fewer instructions.
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
        write_layer(exported / "savedmodel", "/models/digits-vit/1", layer)
    assert len({hashlib.sha256(layer.read_bytes()).hexdigest() for layer in layers}) == 1


def test_hub_checkpoint_gives_same_bytes_as_its_folder(run_exporter, digits_request, digits_export, hub, tmp_path):
    """The Hub's own client fetches the needed files at the commit, and the export is that of the same folder."""
    folder = tmp_path / "repo"
    shutil.copytree(digits_request["source"]["path"], folder)
    for needless in ("pytorch_model.bin", "tf_model.h5", "README.md"):
        (folder / needless).write_bytes(b"never fetched")
    hub.add(folder)
    request = {**digits_request, "source": {"kind": "hub", "repo": REPO, "revision": REVISION}}
    done = run_exporter(request, tmp_path / "out", HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 0, done.stderr
    assert contents(digits_export / "savedmodel") == contents(tmp_path / "out" / "savedmodel")
    fetched = {line.rpartition("/")[2] for line in hub.asked if line.startswith("GET /someone/digits/resolve/")}
    assert {"config.json", "preprocessor_config.json", "model.safetensors"} == fetched


@pytest.mark.parametrize(
    ("repo", "revision", "says"),
    [
        ("someone/else", REVISION, "no such model, or a private one"),
        (REPO, "0" * 40, "no such revision"),
    ],
)
def test_unknown_hub_source_is_refused(  # noqa: PLR0917 (fixtures)
    run_exporter, digits_request, digits_checkpoint, hub, tmp_path, repo, revision, says
):
    """A model or commit that the Hub does not have is refused by name before TensorFlow is loaded."""
    hub.add(digits_checkpoint)
    request = {**digits_request, "source": {"kind": "hub", "repo": repo, "revision": revision}}
    done = run_exporter(request, tmp_path / "out", HF_HOME=str(tmp_path / "hf"))
    assert_refused(done, tmp_path / "out", f"source: {repo} at {revision[:12]}", says)
    assert "TensorFlow" not in done.stdout


def test_unreachable_hub_is_refused(run_exporter, digits_request, tmp_path):
    """A Hub that does not answer is named as the cause, with the status of what may go through later."""
    request = {**digits_request, "source": {"kind": "hub", "repo": "a/b", "revision": "0" * 40}}
    done = run_exporter(request, tmp_path / "out", HF_HOME=str(tmp_path / "hf"))
    assert_refused(done, tmp_path / "out", "source: a/b", "Next: check the network, or HF_ENDPOINT", status=75)


@pytest.mark.parametrize("status", [429, 503])
def test_hub_in_trouble_is_refused_for_now(  # noqa: PLR0917 (fixtures)
    run_exporter, digits_request, digits_checkpoint, hub, tmp_path, status
):
    """A Hub that has too much to do is no final answer."""
    hub.add(digits_checkpoint)
    hub.failing = status
    request = {**digits_request, "source": {"kind": "hub", "repo": REPO, "revision": REVISION}}
    done = run_exporter(request, tmp_path / "out", HF_HOME=str(tmp_path / "hf"))
    assert_refused(done, tmp_path / "out", f"source: {REPO} at ", f"{status} ", status=75)


@pytest.mark.parametrize(
    ("access", "token", "says"),
    [
        ("private", None, "no such model, or a private one"),
        ("private", "hf_other", "no such model, or a private one"),
        ("gated", None, "access is gated"),
        ("gated", "hf_other", "access is gated"),
        ("gated", "hf_unknown", "does not accept the token"),
    ],
)
def test_hub_model_without_access_is_refused(  # noqa: PLR0917 (fixtures)
    run_exporter, digits_request, digits_checkpoint, hub, tmp_path, access, token, says
):
    """A private or gated model is refused without a token that may read it, and the token is never said."""
    hub.tokens = {"hf_other"}
    hub.add(digits_checkpoint, readers={"hf_reader"}, **{access: True})
    request = {**digits_request, "source": {"kind": "hub", "repo": REPO, "revision": REVISION}}
    environment = {"HF_TOKEN": token} if token else {}
    done = run_exporter(request, tmp_path / "out", HF_HOME=str(tmp_path / "hf"), **environment)
    assert_refused(done, tmp_path / "out", f"source: {REPO} at ", says, "HF_TOKEN")
    assert "hf_" not in done.stdout + done.stderr


def test_kept_hub_checkpoint_is_left_and_taken_again(run_exporter, digits_request, digits_checkpoint, hub, tmp_path):
    """What was fetched of a gated model is left where it is to be kept, and the next export asks nobody."""
    hub.add(digits_checkpoint, gated=True, readers={"hf_reader"})
    source = {"kind": "hub", "repo": REPO, "revision": REVISION, "kept": str(tmp_path / "kept")}
    small = {"max_side": 16}  # so that there is little to compare with 🤗
    request = {**digits_request, "source": source, "golden": [], "settings": small}
    first = run_exporter(request, tmp_path / "first", HF_HOME=str(tmp_path / "hf"), HF_TOKEN="hf_reader")
    assert first.returncode == 0, first.stderr
    assert contents(digits_checkpoint) == contents(tmp_path / "kept")
    hub.close()
    second = run_exporter(request, tmp_path / "second", HF_HOME=str(tmp_path / "other"))
    assert second.returncode == 0, second.stderr
    assert contents(tmp_path / "first" / "savedmodel") == contents(tmp_path / "second" / "savedmodel")
    facts = json.loads((tmp_path / "second" / "export.json").read_text())["source"]
    assert facts == {"kind": "hub", "repo": REPO, "revision": REVISION}


def test_savedmodel_archive_is_taken_as_it_is(run_exporter, digits_request, digits_export, web, tmp_path):
    """An archive's SavedModel comes out without its fingerprint, answers the cases, and has no reference."""
    folder, url = web
    packed = tmp_path / "packed" / "model" / "1"
    shutil.copytree(digits_export / "savedmodel", packed)
    (packed / "fingerprint.pb").write_bytes(b"differs each time")
    with tarfile.open(folder / "model.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "packed", ".")
    request = archive_request(digits_request, folder / "model.tar.gz", f"{url}/model.tar.gz?token=secret")
    done = run_exporter(request, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert contents(digits_export / "savedmodel") == contents(tmp_path / "out" / "savedmodel")
    assert json.loads((tmp_path / "out" / "golden" / "three" / "case.json").read_text())["reference"] is None
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert facts["source"] == {**request["source"], "url": f"{url}/model.tar.gz"}


def test_savedmodel_with_another_signature_is_refused(run_exporter, digits_request, checkpoint_trial, web, tmp_path):
    """A SavedModel that clients could not ask is refused, saying what it has."""
    folder, url = web
    with tarfile.open(folder / "other.tar.gz", "w:gz") as tar:
        tar.add(checkpoint_trial["other-signature"], "1")
    request = archive_request(digits_request, folder / "other.tar.gz", f"{url}/other.tar.gz")
    done = run_exporter(request, tmp_path / "out")
    assert_refused(done, tmp_path / "out", "{'x': 'DT_FLOAT'}", "{'y': 'DT_FLOAT'}", "one string input")


def test_broken_promise_is_refused(run_exporter, digits_request, tmp_path):
    """A case that does not hold is named with what was promised and what is answered, and nothing is exported."""
    golden = [{**digits_request["golden"][0], "label": "8"}]
    done = run_exporter({**digits_request, "golden": golden}, tmp_path / "out")
    assert_refused(
        done, tmp_path / "out", "golden case three", "answers '3' (0.9", "promised is '8' (at least 0.85)", status=65
    )


def test_image_that_is_none_is_refused(run_exporter, digits_request, tmp_path):
    """A golden image that nobody can open is named."""
    (tmp_path / "three.png").write_text("no image")
    golden = [{**digits_request["golden"][0], "image": str(tmp_path / "three.png")}]
    done = run_exporter({**digits_request, "golden": golden}, tmp_path / "out")
    assert_refused(done, tmp_path / "out", "golden case three", "three.png", "cannot identify image file")


def test_damaged_weights_are_refused(run_exporter, digits_request, tmp_path):
    """A checkpoint whose weights file is cut short is refused by its folder."""
    shutil.copytree(digits_request["source"]["path"], tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    done = run_exporter(
        {**digits_request, "source": {"kind": "folder", "path": str(tmp_path / "cut")}}, tmp_path / "out"
    )
    assert_refused(done, tmp_path / "out", f"{tmp_path / 'cut'}: ", "Next: check its weights.")


def test_quick_mistakes_are_told_quickly(run_exporter, digits_request, tmp_path):
    """A missing folder, a missing image and an OUT that is taken are refused before TensorFlow is loaded."""
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


def test_ends_with_whoever_started_it(model_python, digits_request, tmp_path):
    """An exporter whose standard input ends, as it does when a worker is killed, is gone a moment later with all its group."""
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
