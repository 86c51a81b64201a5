import json
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from slipway.errors import ExportError, PromiseBroken
from slipway.model.content import content_hash
from slipway.model.export import (
    check_golden_labels,
    claim_version,
    export_inputs_hash,
    keep_export,
    renew_golden_cases,
    run_export,
)
from slipway.model.exporter import WorkerHost
from slipway.names import short
from slipway.records.store import fetch_from_store, read_bytes, read_json
from slipway.release import Gate, QualityBounds
from slipway.serving.golden import cases_from


@pytest.fixture
def labels_known(store, export):
    """Makes an export whose model has these labels."""

    def make(labels):
        return replace(export, report_uri=store.put_json({"labels": labels} if labels else {}, "export.json"))

    return make


def test_refused_if_the_model_has_no_such_label(release, labels_known):
    """A golden label that the model does not have is refused before the image is built, and named."""
    case = replace(release.golden[0], label=("3", "thre"))
    with pytest.raises(
        ExportError, match=r"^gate\.golden three: 'thre' is none of the model's 2 labels \(3, 8\)\. Next: "
    ):
        check_golden_labels(replace(release, golden=(case,)), labels_known(["3", "8"]))
    check_golden_labels(replace(release, golden=(case,)), labels_known(None))
    check_golden_labels(release, labels_known(["3", "8"]))


def test_refused_if_the_labelled_set_has_another_label(release, labels_known, store):
    """A label of the labelled set that the model does not have is refused too."""
    image = {"name": "eigth/a.png", "label": "eigth", "data": "aQ=="}
    uri = store.put_json({"images": [image]}, "quality.json")
    asked = Gate(quality=QualityBounds(uri=uri, digest="x", min_top1=0.9, max_drop=None))
    with pytest.raises(ExportError, match=r"^gate\.quality\.set: eigth/a\.png: 'eigth' is none of the model's "):
        check_golden_labels(replace(release, gate=asked), labels_known([str(n) for n in range(11)]))


def test_same_number_if_the_content_is_the_same(store):
    """A version is the number of its content."""
    assert claim_version(store, "digits-vit", "sha256:a") == 1
    assert claim_version(store, "digits-vit", "sha256:a") == 1


def test_larger_number_if_the_content_is_new(store):
    """New content gets a larger number, and older content keeps its number."""
    numbers = [claim_version(store, "digits-vit", f"sha256:{content}") for content in range(12)]
    assert numbers == list(range(1, 13))
    assert claim_version(store, "digits-vit", "sha256:3") == 4


def test_each_model_has_its_own_numbers(store):
    """The versions of another model do not count."""
    claim_version(store, "other", "sha256:a")
    claim_version(store, "other", "sha256:b")
    assert claim_version(store, "digits-vit", "sha256:b") == 1


def test_simultaneous_claims_agree(store):
    """Simultaneous claims get one number for one content, and two numbers for two contents."""
    for attempt in range(20):
        contents = [f"sha256:{attempt}-{name}" for name in "aabb"]
        with ThreadPoolExecutor(4) as pool:
            numbers = list(pool.map(lambda content: claim_version(store, "digits-vit", content), contents))
        assert numbers[0] == numbers[1]
        assert numbers[2] == numbers[3]
        assert {numbers[0], numbers[2]} == {2 * attempt + 1, 2 * attempt + 2}


@pytest.fixture
def results(tmp_path, saved_model):
    """The results of an exporter."""
    saved_model("out/savedmodel", {"saved_model.pb": b"graph", "variables/variables.index": b"i"})
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
    (out / "export.json").write_text('{"sandbox": "none"}')
    (out / "card").mkdir()
    (out / "card" / "card.json").write_text(json.dumps(CARD))
    (out / "card" / "README.md").write_text("# digits-vit\n")
    (out / "card" / "three.png").write_bytes(b"picture")
    return out


PARITY = {"images": 32, "labels_equal": 32, "largest_difference": 0.00001, "largest_levels": 0.0}

CARD = {"parity": PARITY, "parameters": 181_194, "bytes": 2_000_000, "measured": {"seconds": 5}}


def test_model_is_taken_from_the_folder_of_its_runtime(release, store, results):
    """Each exporter names its model's folder; what is in it is opaque, and has the same number for the same content."""
    before = keep_export(release, results, store)
    (results / "savedmodel").rename(results / "model")
    kept = keep_export(replace(release, runtime="onnxruntime"), results, store)
    assert (kept.version, kept.content_hash) == (before.version, before.content_hash)


def test_kept_export_can_be_read_by_its_uris(release, store, results, tmp_path):
    """All results of the exporter are in the store under their version, the golden requests unchanged."""
    kept = keep_export(release, results, store)
    assert kept.version == 1
    assert kept.content_hash == content_hash(results / "savedmodel")
    assert read_bytes(kept.descriptors_uri) == b"descriptors"
    (case,) = cases_from(read_json(kept.golden_uri))
    assert case.rest_body == (results / "golden/three/rest.json").read_text()
    assert case.grpc_request == "CgNhYmM="
    with tarfile.open(fetch_from_store(kept.model_uri, tmp_path / "model.tar")) as tar:
        assert "models/digits-vit/1/saved_model.pb" in tar.getnames()


def test_kept_export_is_the_same_if_kept_again(release, store, results):
    """The same content gives the same export: number and URIs."""
    assert keep_export(release, results, store) == keep_export(release, results, store)


def test_card_is_kept_next_to_the_layer(release, store, results):
    """The card's page, facts and pictures are in one folder. The export has its URI and main figures."""
    kept = keep_export(release, results, store)
    assert kept.card.uri == store.uri_of(f"exports/digits-vit/1/card-{short(kept.card.digest)}/README.md")
    folder = kept.card.uri.removesuffix("README.md")
    assert read_json(f"{folder}card.json") == CARD
    assert read_bytes(f"{folder}three.png") == b"picture"
    said = "32 of 32 labels equal, probabilities at most 0.00001 apart, pixels at most 0 levels"
    assert (kept.card.parity, kept.card.parameters, kept.card.size) == (said, 181_194, 2_000_000)


def test_card_is_the_same_if_only_measurements_differ(release, store, results):
    """Time and memory are in the card but not in its digest: a slower export does not give another image."""
    first = keep_export(release, results, store)
    (results / "card" / "card.json").write_text(json.dumps({**CARD, "measured": {"seconds": 50}}))
    assert keep_export(release, results, store) == first
    (results / "card" / "card.json").write_text(json.dumps({**CARD, "parity": None}))
    other = keep_export(release, results, store)
    assert other.card.parity == "not known: a SavedModel archive has no checkpoint"
    assert other.card.uri != first.card.uri


def test_card_says_how_many_images_were_not_compared(release, store, results):
    """Only if there are some: the image's labels have this line, and each change of it changes the image."""
    (results / "card" / "card.json").write_text(json.dumps({**CARD, "parity": {**PARITY, "skipped": 2}}))
    assert keep_export(release, results, store).card.parity.endswith(" levels, 2 images not compared")
    (results / "card" / "card.json").write_text(json.dumps({**CARD, "parity": {**PARITY, "skipped": 0}}))
    assert keep_export(release, results, store).card.parity.endswith(" levels")


def quality_of(store, images):
    """The bounds of a labelled set with so many threes in the store."""
    found = [{"name": f"3/{n:03}.png", "label": "3", "data": "aQ=="} for n in range(images)]
    uri = store.put_json({"images": found}, "quality.json")
    return Gate(quality=QualityBounds(uri=uri, digest="sha256:5", min_top1=0.9, max_drop=None))


def with_int8(results, images, changed):
    """The exporter's results of an int8 model that gives so many images another label."""
    names = [f"3/{n:03}.png" for n in range(images)]
    labels = {
        "float32": dict.fromkeys(names, "3"),
        "int8": dict.fromkeys(names, "3") | dict.fromkeys(names[:changed], "8"),
    }
    (results / "export.json").write_text(json.dumps({"sandbox": "none", "int8": labels}))
    figures = {"images": images, "calibration_images": 0, "labels_changed": changed, "correct_float32": images,
               "correct_int8": images - changed, "largest_difference": 0.05}  # fmt: skip
    (results / "card" / "card.json").write_text(json.dumps({**CARD, "int8": figures}))
    return labels


def test_labels_of_int8_are_kept_by_their_content(release, store, results):
    """The gate needs the labels in float32. Another labelled set gives others, beside those of an earlier release."""
    assert keep_export(release, results, store).int8_uri is None
    labels = with_int8(results, 80, 1)
    kept = keep_export(release, results, store)
    assert read_json(kept.int8_uri) == labels
    with_int8(results, 40, 1)
    assert keep_export(release, results, store).int8_uri != kept.int8_uri
    assert read_json(kept.int8_uri) == labels


def test_card_says_what_int8_changed(release, store, results):
    """The line of the card, which the image's labels have, has the figures with their interval."""
    with_int8(results, 80, 1)
    assert keep_export(release, results, store).card.parity.endswith(
        "; all that in float32: int8 changes 1 of 80 labels (95 % interval 0.0022 to 0.0675), 79 correct instead of 80"
    )


def test_int8_beyond_its_bounds_is_refused_where_it_is_exported(archive_release, store, exporter, results):
    """It is refused if chance cannot explain it, each time; otherwise the gate decides, on the CPUs that serve."""
    asked = replace(archive_release, gate=quality_of(store, 80))
    exporter(COPY.format(left=str(results)))
    with_int8(results, 80, 3)
    assert run_export(asked, WorkerHost(sys.executable)).int8_uri is not None
    with_int8(results, 80, 30)
    asked = replace(asked, golden=())
    for _ in range(2):
        with pytest.raises(
            PromiseBroken, match=r"^int8: 30 of 80 labels changed against float32, 30 fewer correct.*Next: use float16"
        ) as refused:
            run_export(asked, WorkerHost(sys.executable))
        assert refused.value.blames_release
        exporter("raise SystemExit('not to be run')")


COPY = """
import json, shutil, sys
request = json.load(open(sys.argv[2]))
assert request["model"] == "digits-vit" and request["source"]["kind"] == "savedmodel", request
open(request["source"]["kept"], "w").close()
print("copying", flush=True)
shutil.copytree({left!r}, sys.argv[4])
"""


def test_exported_once_if_nothing_changed(archive_release, exporter, results):
    """A second run finds the export of the first in the store; with force, the exporter runs again."""
    exporter(COPY.format(left=str(results)))
    first = run_export(archive_release, WorkerHost(sys.executable))
    exporter("raise SystemExit('not to be run')")
    assert first == run_export(archive_release, WorkerHost(sys.executable))
    with pytest.raises(ExportError, match="not to be run"):
        run_export(replace(archive_release, force=True), WorkerHost(sys.executable))


def test_live_export_gets_new_golden_cases(archive_release, store, exporter, results, labels_known):
    """The exporter's cases are kept with the live version, and found there the next time; no version number is used up."""
    exporter(COPY.format(left=str(results)))
    live = labels_known(["3"])
    renewed = renew_golden_cases(archive_release, live, WorkerHost(sys.executable))
    assert renewed == replace(live, golden_uri=renewed.golden_uri)
    assert renewed.golden_uri.startswith(store.uri_of(f"exports/digits-vit/{live.version}/golden-"))
    assert [case.name for case in cases_from(read_json(renewed.golden_uri))] == ["three"]
    assert store.names("versions/digits-vit") == []
    exporter("raise SystemExit('not to be run')")
    assert renewed == renew_golden_cases(archive_release, live, WorkerHost(sys.executable))
    assert renewed == run_export(archive_release, WorkerHost(sys.executable))
    unknown = replace(archive_release, golden=(replace(archive_release.golden[0], label="8"),))
    exporter(COPY.format(left=str(results)))
    with pytest.raises(ExportError, match=r"^gate\.golden three: '8' is none of the model's 1 labels"):
        renew_golden_cases(unknown, live, WorkerHost(sys.executable))


INPUTS = {
    "source": lambda release: replace(release, source=replace(release.source, revision="sha256:0")),
    "exporter": lambda release: replace(release, exporter="sha256:0"),
    "golden label": lambda release: replace(release, golden=(replace(release.golden[0], label="8"),)),
    "golden confidence": lambda release: replace(release, golden=(replace(release.golden[0], min_confidence=0.9),)),
    "golden picture": lambda release: replace(release, golden=(replace(release.golden[0], sha256="b" * 64),)),
    "settings": lambda release: replace(release, export=replace(release.export, max_side=100)),
    "no golden": lambda release: replace(release, golden=()),
    "runtime": lambda release: replace(release, runtime="onnxruntime"),
}


@pytest.mark.parametrize("change", INPUTS.values(), ids=INPUTS)
def test_exported_again_if_its_inputs_changed(release, change):
    """An export is reused only for the same source, exporter, settings and golden cases."""
    assert export_inputs_hash(release) != export_inputs_hash(change(release))


def test_exported_again_if_the_precision_changed(release):
    """The same checkpoint in another precision is another model."""
    onnx = replace(release, runtime="onnxruntime")
    assert export_inputs_hash(onnx) != export_inputs_hash(replace(onnx, precision="float16_weights"))


def test_int8_is_exported_again_if_its_set_or_calibration_changed(release, store):
    """It is measured on the labelled set, and may be calibrated with it. The bounds change nothing in it."""
    int8 = replace(release, runtime="onnxruntime", precision="int8", gate=quality_of(store, 8))
    quality = int8.gate.quality

    def with_quality(**changed):
        return replace(int8, gate=replace(int8.gate, quality=replace(quality, **changed)))

    known = export_inputs_hash(int8)
    assert known != export_inputs_hash(with_quality(digest="sha256:6"))
    assert known != export_inputs_hash(replace(int8, calibration="labelled"))
    assert known == export_inputs_hash(with_quality(int8_max_changed=0.5, min_top1=0.5))
    float32 = replace(int8, precision="float32")
    assert export_inputs_hash(float32) == export_inputs_hash(replace(float32, gate=Gate()))


def test_exports_of_tensorflow_are_found_as_before_there_were_runtimes(release):
    """Nothing is exported again after an upgrade. The value was computed before the second runtime."""
    known = "sha256:6b3dc6ebdba25aee9c473f0141a552cbdac0cffbbed1c52b68e56fc7921685c0"
    assert export_inputs_hash(release) == known


def test_export_is_reused_by_other_runs(release):
    """Run, target and base image do not change the export."""
    other = replace(release, run_id="x", base_digest="sha256:0", deployment="tfs-two", force=True)
    assert export_inputs_hash(release) == export_inputs_hash(other)
