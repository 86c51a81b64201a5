import json
import os
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256

import pytest

from slipway.errors import ExportError, PromiseBroken, SourceUnreachable
from slipway.model.export import (
    check_labels,
    claim_version,
    content_hash,
    inputs_hash,
    keep_export,
    run_export,
    write_layer,
)
from slipway.model.exporter import exporter_hash, golden_bytes
from slipway.names import short
from slipway.paths import SERVED
from slipway.records.store import fetch, read_bytes, read_json
from slipway.release import Gate, GoldenRequest, QualityBounds
from slipway.serving.golden import cases_from

CONTENT = {
    "saved_model.pb": b"graph",
    "variables/variables.index": b"i",
    "variables/variables.data-00000-of-00001": b"d",
}


@pytest.fixture
def saved_model(tmp_path):
    """Makes a SavedModel's folder: `saved_model(name, content, mtime)`."""

    def make(name, content=CONTENT, *, mtime=1_700_000_000, empty=("assets",)):
        folder = tmp_path / name
        for path, data in content.items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            os.utime(place, (mtime, mtime))
        for path in empty:
            (folder / path).mkdir(parents=True, exist_ok=True)
        return folder

    return make


def test_content_hash_ignores_times_modes_and_order(saved_model):
    """Equal content is an equal hash, whenever and however it was written."""
    one, two = saved_model("one"), saved_model("two", dict(reversed(CONTENT.items())), mtime=1)
    (two / "saved_model.pb").chmod(0o600)
    assert content_hash(one) == content_hash(two)


CHANGES = {
    "a byte": {**CONTENT, "saved_model.pb": b"grapg"},
    "a name": {"saved_model.pbtxt": b"graph", **{name: data for name, data in CONTENT.items() if name != "saved_model.pb"}},
    "a place": {**{name: data for name, data in CONTENT.items() if name != "saved_model.pb"}, "variables/saved_model.pb": b"graph"},
    "one file more": {**CONTENT, "assets/vocabulary.txt": b""},
    "one file less": {"saved_model.pb": b"graph"},
}  # fmt: skip


@pytest.mark.parametrize("content", CHANGES.values(), ids=CHANGES)
def test_content_hash_changes_with_the_content(saved_model, content):
    """Names, places and bytes are the content."""
    assert content_hash(saved_model("one")) != content_hash(saved_model("two", content))


def test_refused_if_the_folder_is_not_there(tmp_path):
    """A folder that is not there has no content, and is named."""
    with pytest.raises(ExportError, match=r"gone: no such folder\. Next: "):
        content_hash(tmp_path / "gone")


def layer_of(folder, tmp_path):
    """The bytes of a SavedModel's layer."""
    layer = tmp_path / f"{folder.name}.tar"
    write_layer(folder, "/models/digits-vit/7", layer)
    return layer.read_bytes()


def test_same_layer_if_the_content_is_the_same(saved_model, tmp_path):
    """Two folders whose content has one hash give one layer, byte for byte, whatever their times and empty folders."""
    one = saved_model("one")
    two = saved_model("two", dict(reversed(CONTENT.items())), mtime=1, empty=())
    assert content_hash(one) == content_hash(two)
    assert layer_of(one, tmp_path) == layer_of(two, tmp_path)


def test_layer_holds_the_model_with_fixed_times_and_owners(saved_model, tmp_path):
    """Each folder has an entry of its own, and nothing tells who wrote it and when."""
    layer_of(saved_model("one"), tmp_path)
    with tarfile.open(tmp_path / "one.tar") as tar:
        entries = tar.getmembers()
        assert tar.extractfile("models/digits-vit/7/saved_model.pb").read() == b"graph"
    assert [entry.name for entry in entries if entry.isdir()] == [
        "models",
        "models/digits-vit", "models/digits-vit/7", "models/digits-vit/7/variables",
    ]  # fmt: skip
    assert {(entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname) for entry in entries} == {(0, 0, 0, "", "")}
    assert {entry.mode for entry in entries if entry.isfile()} == {0o644}
    assert {entry.mode for entry in entries if entry.isdir()} == {0o755}


@pytest.fixture
def labels_known(store, export):
    """Makes an export whose model has these labels."""

    def make(labels):
        return replace(export, report_uri=store.put_json({"labels": labels} if labels else {}, "export.json"))

    return make


def test_refused_if_the_model_has_no_such_label(release, labels_known):
    """A misspelt label among several, or in the labelled set, would never come, and is named before anything is built."""
    case = replace(release.golden[0], label=("3", "thre"))
    with pytest.raises(
        ExportError, match=r"^gate\.golden three: 'thre' is none of the model's 2 labels \(3, 8\)\. Next: "
    ):
        check_labels(replace(release, golden=(case,)), labels_known(["3", "8"]))
    check_labels(replace(release, golden=(case,)), labels_known(None))
    check_labels(release, labels_known(["3", "8"]))


def test_refused_if_the_labelled_set_has_another_label(release, labels_known, store):
    """An image of the set is held to the model's labels too."""
    image = {"name": "eigth/a.png", "label": "eigth", "data": "aQ=="}
    uri = store.put_json({"images": [image]}, "quality.json")
    asked = Gate(quality=QualityBounds(uri=uri, digest="x", min_top1=0.9, max_drop=None))
    with pytest.raises(ExportError, match=r"^gate\.quality\.set: eigth/a\.png: 'eigth' is none of the model's "):
        check_labels(replace(release, gate=asked), labels_known([str(n) for n in range(11)]))


def test_same_number_if_the_content_is_the_same(store):
    """A version numbers content."""
    assert claim_version(store, "digits-vit", "sha256:a") == 1
    assert claim_version(store, "digits-vit", "sha256:a") == 1


def test_larger_number_if_the_content_is_new(store):
    """New content is a larger number, and older content keeps its own."""
    numbers = [claim_version(store, "digits-vit", f"sha256:{content}") for content in range(12)]
    assert numbers == list(range(1, 13))
    assert claim_version(store, "digits-vit", "sha256:3") == 4


def test_models_number_for_themselves(store):
    """Another model's versions do not count."""
    claim_version(store, "other", "sha256:a")
    claim_version(store, "other", "sha256:b")
    assert claim_version(store, "digits-vit", "sha256:b") == 1


def test_two_that_claim_at_once_agree(store):
    """Claims of one content at one moment are one number; claims of two contents are two."""
    for attempt in range(20):
        contents = [f"sha256:{attempt}-{name}" for name in "aabb"]
        with ThreadPoolExecutor(4) as pool:
            numbers = list(pool.map(lambda content: claim_version(store, "digits-vit", content), contents))
        assert numbers[0] == numbers[1]
        assert numbers[2] == numbers[3]
        assert {numbers[0], numbers[2]} == {2 * attempt + 1, 2 * attempt + 2}


@pytest.fixture
def left(tmp_path, saved_model):
    """What an exporter leaves."""
    saved_model("out/savedmodel")
    out = tmp_path / "out"
    case = out / "golden" / "three"
    case.mkdir(parents=True)
    (case / "case.json").write_text(
        '{"name": "three", "label": "3", "min_confidence": 0.8, '
        '"reference": {"label": "3", "confidence": 0.95, "tolerance": 0.01}}'
    )
    (case / "rest.json").write_text('{"signature_name":"serving_default","instances":["aW1hZ2U"]}')
    (case / "grpc.bin").write_bytes(b"\x0a\x03abc")
    (out / "descriptors.bin").write_bytes(b"descriptors")
    (out / "export.json").write_text("{}")
    (out / "card").mkdir()
    (out / "card" / "card.json").write_text(json.dumps(CARD))
    (out / "card" / "README.md").write_text("# digits-vit\n")
    (out / "card" / "three.png").write_bytes(b"picture")
    return out


PARITY = {"images": 32, "labels_equal": 32, "largest_difference": 0.00001, "largest_levels": 0.0}
CARD = {"parity": PARITY, "parameters": 181_194, "bytes": 2_000_000, "measured": {"seconds": 5}}


def test_kept_export_is_found_by_uri(release, store, left, tmp_path):
    """What the exporter left goes to the store whole, under its version, golden bytes unchanged."""
    kept = keep_export(release, left, store)
    assert kept.version == 1
    assert kept.content_hash == content_hash(left / "savedmodel")
    assert read_bytes(kept.descriptors_uri) == b"descriptors"
    (case,) = cases_from(read_json(kept.golden_uri))
    assert case.rest_body == (left / "golden/three/rest.json").read_text()
    assert case.grpc_request == "CgNhYmM="
    with tarfile.open(fetch(kept.model_uri, tmp_path / "model.tar")) as tar:
        assert "models/digits-vit/1/saved_model.pb" in tar.getnames()


def test_kept_export_is_the_same_if_kept_again(release, store, left):
    """The same content is the same export, number and URIs."""
    assert keep_export(release, left, store) == keep_export(release, left, store)


def test_card_is_kept_beside_the_layer(release, store, left):
    """Page, facts and pictures are together; the export says where, and the figures that matter."""
    kept = keep_export(release, left, store)
    assert kept.card.uri == store.uri_of(f"exports/digits-vit/1/card-{short(kept.card.digest)}/README.md")
    folder = kept.card.uri.removesuffix("README.md")
    assert read_json(f"{folder}card.json") == CARD
    assert read_bytes(f"{folder}three.png") == b"picture"
    said = "32 of 32 labels equal, probabilities at most 0.00001 apart, pixels at most 0 levels"
    assert (kept.card.parity, kept.card.parameters, kept.card.size) == (said, 181_194, 2_000_000)


def test_card_is_the_same_if_only_measurements_differ(release, store, left):
    """Time and memory are in the card and not in what identifies it: a slower export is no other image."""
    first = keep_export(release, left, store)
    (left / "card" / "card.json").write_text(json.dumps({**CARD, "measured": {"seconds": 50}}))
    assert keep_export(release, left, store) == first
    (left / "card" / "card.json").write_text(json.dumps({**CARD, "parity": None}))
    other = keep_export(release, left, store)
    assert other.card.parity == "not known: a SavedModel archive has no checkpoint"
    assert other.card.uri != first.card.uri


@pytest.fixture
def exporter(monkeypatch, tmp_path):
    """Puts a small real program in the exporter's place."""

    def write(source):
        program = tmp_path / "program.py"
        program.write_text(source)
        monkeypatch.setattr("slipway.model.exporter.EXPORTER", program)

    return write


COPY = """
import json, shutil, sys
request = json.load(open(sys.argv[2]))
assert request["model"] == "digits-vit" and request["source"]["kind"] == "savedmodel", request
open(request["source"]["kept"], "w").close()
print("copying", flush=True)
shutil.copytree({left!r}, sys.argv[4])
"""


@pytest.fixture
def archive_release(release):
    """A release whose source needs no folder of ours."""
    source = replace(release.source, kind="savedmodel", location="https://x/m.tar.gz", revision=f"sha256:{'1' * 64}")
    return replace(release, source=source)


def test_exported_once_if_nothing_changed(archive_release, exporter, left):
    """A second run finds the first's export in the store; force exports again, to the same content."""
    exporter(COPY.format(left=str(left)))
    first = run_export(archive_release, python=sys.executable)
    exporter("raise SystemExit('not to be run')")
    assert first == run_export(archive_release, python=sys.executable)
    with pytest.raises(ExportError, match="not to be run"):
        run_export(replace(archive_release, force=True), python=sys.executable)


def test_refused_in_the_exporters_last_words(archive_release, exporter):
    """A failed export is the exporter's last line, whatever else it said."""
    exporter(
        "import sys\nprint('step one')\nprint('folder x: no config.json. Next: add it', file=sys.stderr)\nsys.exit(1)"
    )
    with pytest.raises(ExportError) as refusal:
        run_export(archive_release, python=sys.executable)
    assert str(refusal.value) == "exporter ended with status 1: folder x: no config.json. Next: add it"


TELL = """
import os, sys
assert "hf_reader" not in open(sys.argv[2]).read() + " ".join(sys.argv), "the token is in the request"
print("with", os.environ["HF_TOKEN"], flush=True)
sys.exit("token " + os.environ["HF_TOKEN"] + " was refused. Next: mend it")
"""


def test_token_goes_to_the_exporter_alone(archive_release, exporter, monkeypatch, caplog):
    """The exporter has the connection's token in its environment; request, log and error have it not."""
    caplog.set_level("INFO")
    monkeypatch.setenv("AIRFLOW_CONN_HUB", '{"conn_type": "http", "password": "hf_reader"}')
    exporter(TELL)
    source = replace(archive_release.source, kind="hub", location="me/private", token_conn_id="hub")
    with pytest.raises(ExportError) as refusal:
        run_export(replace(archive_release, source=source), python=sys.executable)
    assert str(refusal.value) == "exporter ended with status 1: token *** was refused. Next: mend it"
    assert "with ***" in caplog.text
    assert "hf_reader" not in caplog.text


def test_worth_another_try_if_the_exporter_reached_nobody(archive_release, exporter):
    """The exporter's status for a source that does not answer is told apart from a refusal."""
    exporter("import sys\nprint('source: no answer. Next: look', file=sys.stderr)\nsys.exit(75)")
    with pytest.raises(SourceUnreachable, match=r"^exporter ended with status 75: source: no answer\. Next: look$"):
        run_export(archive_release, python=sys.executable)


def test_the_model_is_blamed_if_it_broke_a_promise(archive_release, exporter):
    """The exporter's status for a model that answers otherwise than promised is told apart: the schedule does not ask again."""
    exporter("import sys\nprint('golden case three: no', file=sys.stderr)\nsys.exit(65)")
    with pytest.raises(PromiseBroken, match=r"^exporter ended with status 65: golden case three: no$") as broken:
        run_export(archive_release, python=sys.executable)
    assert broken.value.blames_release


def test_refused_if_the_exporter_says_nothing(archive_release, exporter):
    """A silent end is told as one."""
    exporter("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(ExportError, match=r"^exporter ended with status -9: it said nothing$"):
        run_export(archive_release, python=sys.executable)


def test_refused_if_there_is_no_interpreter(archive_release):
    """A missing environment is named with the Variable that says where it is."""
    with pytest.raises(ExportError, match=r"/nowhere/python: .*Next: set the Variable slipway_exporter_python"):
        run_export(archive_release, python="/nowhere/python")


DECIDES = {
    "source": lambda release: replace(release, source=replace(release.source, revision="sha256:0")),
    "exporter": lambda release: replace(release, exporter="sha256:0"),
    "golden label": lambda release: replace(release, golden=(replace(release.golden[0], label="8"),)),
    "golden confidence": lambda release: replace(release, golden=(replace(release.golden[0], min_confidence=0.9),)),
    "settings": lambda release: replace(release, export=replace(release.export, max_side=100)),
    "no golden": lambda release: replace(release, golden=()),
}


@pytest.mark.parametrize("change", DECIDES.values(), ids=DECIDES)
def test_exported_anew_if_its_inputs_changed(release, change):
    """An export is found again only for the same source, exporter and golden cases."""
    assert inputs_hash(release) != inputs_hash(change(release))


def test_export_is_found_whichever_run_asks(release):
    """Run, target and base image do not decide what is exported."""
    other = replace(release, run_id="x", base_digest="sha256:0", deployment="tfs-two", force=True)
    assert inputs_hash(release) == inputs_hash(other)


def test_exporter_hash_changes_with_code_and_lock(tmp_path):
    """The exporter is its code and its lock; what a Python run leaves there does not count."""
    (tmp_path / "export.py").write_text("a")
    (tmp_path / "requirements.txt").write_text("b")
    known = exporter_hash(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "notes.md").write_text("c")
    assert known == exporter_hash(tmp_path)
    (tmp_path / "requirements.txt").write_text("c")
    assert known != exporter_hash(tmp_path)


IMAGE = "digits-vit/golden/three.png"


def golden(image, sha=None):
    """A golden request for an image."""
    return GoldenRequest(name="three", image=image, sha256=sha, label="3", min_confidence=0.8)


def test_golden_bytes_of_a_file():
    """A golden image beside the model file is read as it is, and held to its hash where it has one."""
    data = (SERVED / IMAGE).read_bytes()
    assert data == golden_bytes(golden(IMAGE)) == golden_bytes(golden(IMAGE, sha256(data).hexdigest()))


def test_golden_bytes_of_a_url(http_server):
    """A golden image by URL is fetched and held to its hash."""
    server = http_server((200, "pixels"))
    assert golden_bytes(golden(f"{server.url}/three.png", sha256(b"pixels").hexdigest())) == b"pixels"


def test_refused_if_a_golden_image_changed(http_server):
    """Other bytes than the model file says are refused, naming case and both hashes."""
    server = http_server((200, "other"))
    with pytest.raises(
        ExportError, match=rf"golden case three: .* sha256 {sha256(b'other').hexdigest()}, .*{'a' * 64}\. Next: "
    ):
        golden_bytes(golden(f"{server.url}/three.png", "a" * 64))


@pytest.mark.parametrize("status", [404, 500])
def test_refused_if_a_golden_url_gives_nothing(http_server, status):
    """A URL that gives no image is refused in one line."""
    server = http_server((status, "no"))
    with pytest.raises(ExportError, match=rf"golden case three: .*{status}.*Next: ") as refusal:
        golden_bytes(golden(f"{server.url}/three.png", "a" * 64))
    assert "\n" not in str(refusal.value)


def test_refused_if_a_golden_file_is_gone():
    """A golden image that this worker lacks is named."""
    with pytest.raises(ExportError, match=r"golden case three: include/served/gone\.png: .*Next: "):
        golden_bytes(golden("gone.png"))


def test_refused_if_the_worker_has_another_checkpoint(release, exporter):
    """A worker whose folder differs from what was resolved does not export something else."""
    exporter("")
    with pytest.raises(
        ExportError, match=r"include/served/digits-vit/checkpoint: its content is .* the run resolved 1{12}\. Next: "
    ):
        run_export(release, python=sys.executable)
