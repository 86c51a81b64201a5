import re

import pytest
import yaml

from slipway.errors import InputRefused
from slipway.model.field_types import NAME_PATTERN
from slipway.model.gate_settings import GoldenImage
from slipway.model.model_file import is_previewed
from slipway.model.served import (
    check_unshared,
    golden_location,
    overlay_names,
    parse_model_file,
    read_model_file,
    served_files,
)
from slipway.paths import SERVED

GOLDEN = {"name": "three", "image": "golden/three.png", "label": "3"}
LEAST = {"source": {"folder": "checkpoint"}, "gate": {"golden": [GOLDEN]}}
HASH = "a" * 64


def without(field):
    """The least model file without a field."""
    return {name: value for name, value in LEAST.items() if name != field}


def golden(**changes):
    """The least model file with a changed golden case."""
    return {**LEAST, "gate": {"golden": [{**GOLDEN, **changes}]}}


def test_defaults_if_only_source_and_gate_are_given():
    """Source and gate are all that a model file needs."""
    file = parse_model_file(LEAST, where="m.yaml")
    assert file.image.base == "tensorflow/serving:2.20.0"
    assert file.target.deployment == "tfs-server"
    assert file.target.overlay is None
    assert file.schedule is None
    assert (file.gate.passes, file.gate.golden[0].min_confidence) == (3, 0.5)


def gate(**rules):
    """The least model file with rules of its gate."""
    return {**LEAST, "gate": {"golden": [GOLDEN], **rules}}


SOURCES = [
    {"folder": "checkpoint"},
    {"hub": "google/vit-base-patch16-224"},
    {"folder": "gs://google_cloud_default@bucket/checkpoint"},
    {"hub": "gpt2", "revision": "v1.0"},
    {"hub": "me/private", "token_conn_id": "huggingface_default"},
    {"savedmodel": "https://x/m.tar.gz", "sha256": HASH},
    {"savedmodel": "file:///m.tar.gz", "sha256": HASH},
]


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_source_is_one_of_three_kinds(source):
    """A folder, a Hub model or an archive: read as given."""
    assert source.items() <= parse_model_file({**LEAST, "source": source}, where="m.yaml").source.model_dump().items()


REFUSALS = {
    "not fields": (["source"], "holds no fields"),
    "empty": (None, "holds no fields"),
    "no source": (without("source"), "source: "),
    "no gate": (without("gate"), "gate: "),
    "unknown field": ({**LEAST, "shedule": "@daily"}, "shedule: "),
    "unknown field below": ({**LEAST, "target": {"namspace": "x"}}, "target.namspace: "),
    "unknown field of the source": ({**LEAST, "source": {"folder": "a", "revision": "b"}}, "source.revision: "),
    "a field that is no word": ({**LEAST, 1: 2}, "1: "),
    "source is text": ({**LEAST, "source": "google/vit"}, "source: "),
    "source is a list": ({**LEAST, "source": ["google/vit"]}, "source: "),
    "source is empty": ({**LEAST, "source": None}, "source: "),
    "source is a number": ({**LEAST, "source": 3}, "source: "),
    "source names none": ({**LEAST, "source": {}}, "source: names no source, or several"),
    "source names two": ({**LEAST, "source": {"folder": "a", "hub": "b"}}, "source: names no source, or several"),
    "source's folder is a number": ({**LEAST, "source": {"folder": 3}}, "source.folder: "),
    "source's folder is half a URI": ({**LEAST, "source": {"folder": "gs://"}}, "source.folder: is no URI"),
    "source's folder is a URI with a space": ({**LEAST, "source": {"folder": "gs://b/a b"}}, "source.folder: is no URI"),
    "token of a folder": ({**LEAST, "source": {"folder": "a", "token_conn_id": "hub"}}, "source.token_conn_id: "),
    "revision that is empty": ({**LEAST, "source": {"hub": "a/b", "revision": ""}}, "source.revision: "),
    "token connection that is empty": ({**LEAST, "source": {"hub": "a/b", "token_conn_id": ""}}, "source.token_conn_id: "),
    "Hub name with a space": ({**LEAST, "source": {"hub": "google vit"}}, "source.hub: "),
    "Hub name with two slashes": ({**LEAST, "source": {"hub": "a/b/c"}}, "source.hub: "),
    "archive without sha256": ({**LEAST, "source": {"savedmodel": "https://x/m"}}, "source.sha256: "),
    "archive by a path": ({**LEAST, "source": {"savedmodel": "/m", "sha256": HASH}}, "source.savedmodel: "),
    "archive with a short sha256": ({**LEAST, "source": {"savedmodel": "https://x/m", "sha256": "abc"}}, "source.sha256: "),
    "no golden case": ({**LEAST, "gate": {"golden": []}}, "gate.golden: "),
    "golden is text": ({**LEAST, "gate": {"golden": "three.png"}}, "gate.golden: "),
    "two golden cases of one name": ({**LEAST, "gate": {"golden": [GOLDEN, GOLDEN]}}, "gate: golden cases need names of their own"),
    "golden image by URL without sha256": (golden(image="https://x/three.png"), "gate.golden.0: an image by URL needs its sha256"),
    "golden name that is no name": (golden(name="Three!"), "gate.golden.0.name: "),
    "golden label that is a number": (golden(label=3), "gate.golden.0.label: "),
    "golden label that is empty": (golden(label=""), "gate.golden.0.label: "),
    "no golden label of several": (golden(label=[]), "gate.golden.0.label: "),
    "a golden label of several that is a number": (golden(label=["3", 8]), "gate.golden.0.label: is neither a text nor a list of texts"),
    "one golden label twice": (golden(label=["3", "3"]), "gate.golden.0.label: names a label twice"),
    "failures below none": (gate(failures=-1), "gate.failures: "),
    "errors that are a text": (gate(errors="many"), "gate.errors: "),
    "no time to answer in": (gate(latency_ms=0), "gate.latency_ms: "),
    "labelled set that asks for nothing": (gate(quality={"set": "q"}), "gate.quality: asks for nothing"),
    "labelled set without a place": (gate(quality={"min_top1": 0.9}), "gate.quality.set: "),
    "labelled set that asks for too much": (gate(quality={"set": "q", "min_top1": 90}), "gate.quality.min_top1: "),
    "doubt that is neither": (gate(on_inconclusive="pass"), "gate.on_inconclusive: "),
    "no time for a person": (gate(ask_timeout_s=0), "gate.ask_timeout_s: "),
    "gRPC beside the Service": ({**LEAST, "target": {"grpc_address": "x:8500"}}, "target: grpc_address goes with address"),
    "gRPC by a URL": ({**LEAST, "target": {"address": "http://x", "grpc_address": "http://x:1"}}, "target.grpc_address: "),
    "confidence above one": (golden(min_confidence=1.5), "gate.golden.0.min_confidence: "),
    "confidence below zero": (golden(min_confidence=-0.1), "gate.golden.0.min_confidence: "),
    "confidence NaN": (golden(min_confidence=float("nan")), "gate.golden.0.min_confidence: "),
    "confidence is text": (golden(min_confidence="high"), "gate.golden.0.min_confidence: "),
    "passes zero": ({**LEAST, "gate": {"golden": [GOLDEN], "passes": 0}}, "gate.passes: "),
    "no time": ({**LEAST, "rollout_timeout_s": 0}, "rollout_timeout_s: "),
    "too much time": ({**LEAST, "address_timeout_s": 10**9}, "address_timeout_s: "),
    "deployment that is no DNS label": ({**LEAST, "target": {"deployment": "TFS"}}, "target.deployment: "),
    "deployment too long": ({**LEAST, "target": {"deployment": "a" * 41}}, "target.deployment: "),
    "deployment with a line end": ({**LEAST, "target": {"deployment": "tfs\n"}}, "target.deployment: "),
    "address without scheme": ({**LEAST, "target": {"address": "203.0.113.9:8501"}}, "target.address: "),
    "address without host": ({**LEAST, "target": {"address": "http://"}}, "target.address: "),
    "address with a port that is none": ({**LEAST, "target": {"address": "http://x:port"}}, "target.address: "),
    "address with half an IPv6": ({**LEAST, "target": {"address": "http://[::1"}}, "target.address: "),
    "watch of a folder": ({**LEAST, "watch": {}}, "the file: watch is for a Hub source"),
    "watch of a commit": ({**LEAST, "source": {"hub": "a/b", "revision": "0" * 40}, "watch": {}}, "the file: watch is for a branch"),
    "watch without end": ({**LEAST, "source": {"hub": "a/b"}, "watch": {}, "schedule": "@continuous"}, "the file: watch goes with a cron"),
    "watch that never rests": ({**LEAST, "source": {"hub": "a/b"}, "watch": {"poll_s": 0}}, "watch.poll_s: "),
    "schedule is a number": ({**LEAST, "schedule": 3}, "schedule: "),
    "schedule with a bad cron": ({**LEAST, "schedule": "61 * * * *"}, "schedule: "),
    "schedule that is no cron": ({**LEAST, "schedule": "every day"}, "schedule: "),
    "schedule that is empty": ({**LEAST, "schedule": ""}, "schedule: "),
    "schedule with an unknown preset": ({**LEAST, "schedule": "@fortnightly"}, "schedule: "),
}  # fmt: skip


@pytest.mark.parametrize(("data", "said"), REFUSALS.values(), ids=REFUSALS)
def test_refused_in_one_line(data, said):
    """What cannot be meant is refused in one line that names file and field and says what next."""
    with pytest.raises(InputRefused) as refusal:
        parse_model_file(data, where="include/served/m.yaml")
    message = str(refusal.value)
    assert "\n" not in message
    assert message.startswith(f"include/served/m.yaml: {said}")
    assert "Next: " in message


@pytest.mark.parametrize(
    "schedule", [None, "@daily", "@weekly", "@quarterly", "@once", "@continuous", "0 3 * * *", "*/5 8-18 * * 1-5"]
)
def test_schedule_is_what_airflow_takes(schedule):
    """Cron expressions and Airflow's presets are schedules."""
    assert schedule == parse_model_file({**LEAST, "schedule": schedule}, where="m.yaml").schedule


@pytest.mark.parametrize(
    "address", ["http://203.0.113.9:8501", "https://models.example.com", "http://[2001:db8::9]:8501/"]
)
def test_address_is_a_url(address):
    """A fixed address is any URL with a host."""
    assert address == parse_model_file({**LEAST, "target": {"address": address}}, where="m.yaml").target.address


def test_every_mistake_is_named_at_once():
    """Two mistakes are one round of mending."""
    with pytest.raises(InputRefused, match=r"gate\.passes: .*; shedule: .*Next: mend gate\.passes") as refusal:
        parse_model_file({**LEAST, "gate": {"golden": [GOLDEN], "passes": 0}, "shedule": "x"}, where="m.yaml")
    assert "\n" not in str(refusal.value)


BROKEN = {
    "tab": b"source:\n\tfolder: a\n",
    "open bracket": b"source: [\n",
    "two documents": b"source: {folder: a}\n---\nsource: {folder: b}\n",
    "a python object": b"source: !!python/object:os.system {}\n",
    "a month too many": b"description: 2026-13-45\n",
    "control characters": b"source: \x00\n",
    "not UTF-8": b"description: \xff\xfe\n",
    "one field twice": b"source: {folder: a}\nsource: {folder: b}\ngate: {golden: [{name: a, image: a, label: a}]}\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_refused_in_one_line_if_not_yaml(tmp_path, text):
    """A file that is not YAML is refused in one line that names it."""
    path = tmp_path / "m.yaml"
    path.write_bytes(text)
    with pytest.raises(InputRefused) as refusal:
        read_model_file(path)
    message = str(refusal.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert "Next: " in message


@pytest.mark.parametrize(
    "name", ["Digits.yaml", "a_b.yaml", "3d.yaml", "my model.yaml", "a-.yaml", "a\n.yaml", f"{'a' * 41}.yaml"]
)
def test_refused_if_the_file_name_is_no_model_name(tmp_path, name):
    """The file's name is the model's, so it has to be one."""
    path = tmp_path / name
    path.write_text(yaml.safe_dump(LEAST))
    with pytest.raises(InputRefused, match=r"the file's name names the model, .*Next: use lower-case") as refusal:
        read_model_file(path)
    assert "\n" not in str(refusal.value)


def test_refused_if_there_is_no_file(tmp_path):
    """A missing file is named."""
    with pytest.raises(InputRefused, match=r"gone\.yaml: no such model file\. Next: create it"):
        read_model_file(tmp_path / "gone.yaml")


def test_refused_if_it_is_a_folder(tmp_path):
    """A folder is no model file."""
    (tmp_path / "m.yaml").mkdir()
    with pytest.raises(InputRefused, match=r"m\.yaml: cannot be read: .*Next: "):
        read_model_file(tmp_path / "m.yaml")


@pytest.mark.parametrize("name", ["a", "digits-vit", "a1", "a" * 40])
def test_model_names(name):
    """A model's name is a DNS label short enough for a suffix of ours."""
    assert re.fullmatch(NAME_PATTERN, name)


def test_shipped_model_files_are_read():
    """Every model file that ships with Slipway can be meant, and its golden images are there."""
    files = {path.stem: read_model_file(path) for path in served_files()}
    assert "digits-vit" in files
    check_unshared(files)
    for name, file in files.items():
        assert file.target.overlay in {None, *overlay_names()}
        for case in file.gate.golden:
            assert case.sha256 or (SERVED / golden_location(SERVED / f"{name}.yaml", case)).is_file()


def target(**changes):
    """A model file with a target."""
    return parse_model_file({**LEAST, "target": changes}, where="m.yaml")


def test_refused_if_two_files_write_one_deployment():
    """Two model files that would write one object are refused, naming both and the field."""
    with pytest.raises(
        InputRefused,
        match=r"include/served/b\.yaml: target\.deployment: 'tfs-server' .* include/served/a\.yaml too\. Next: ",
    ):
        check_unshared({"b": target(), "a": target()})


def test_refused_if_one_file_writes_the_others_preview():
    """A preview's Deployment is written too, by a file that has one."""
    with pytest.raises(InputRefused, match=r"'tfs-server-preview' is written by include/served/a\.yaml too"):
        check_unshared({"a": target(), "b": target(deployment="tfs-server-preview")})
    check_unshared({"a": target(strategy="rolling"), "b": target(deployment="tfs-server-preview")})


def test_previewed_unless_the_file_says_rolling_or_the_cluster_is_temporary():
    """A preview is the default; beside nobody's live release there is none."""
    files = (target(), target(strategy="rolling"), target(gke={}), target(gke={"temporary": True}))
    assert [is_previewed(file) for file in files] == [True, False, True, False]


@pytest.mark.parametrize(
    "other", [{"deployment": "tfs-two"}, {"namespace": "other"}, {"conn_id": "elsewhere"}], ids=str
)
def test_accepted_if_deployments_differ(other):
    """Name, namespace or cluster of its own is enough."""
    check_unshared({"a": target(), "b": target(**other)})


@pytest.mark.parametrize(
    ("image", "place"),
    [
        ("https://x/three.png", "https://x/three.png"),
        ("golden/three.png", "/srv/golden/three.png"),
        ("../three.png", "/three.png"),
    ],
)
def test_place_of_a_golden_image(tmp_path, image, place):
    """A URL stays, a path is beside the model file."""
    case = GoldenImage(name="three", image=image, sha256=HASH, label="3")
    folder = tmp_path / "srv"
    expected = place if "://" in place else f"{tmp_path}{place}"
    assert expected == golden_location(folder / "m.yaml", case)


def test_overlays_are_the_folders_with_a_kustomization(tmp_path):
    """A folder without a kustomization is no overlay."""
    for name in ("two", "one"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kustomization.yaml").touch()
    (tmp_path / "draft").mkdir()
    assert overlay_names(tmp_path) == ["one", "two"]
    assert "local" in overlay_names()
