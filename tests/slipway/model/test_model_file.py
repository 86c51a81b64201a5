import re
import traceback

import pytest

from slipway.errors import InputRefused
from slipway.model.field_types import NAME_PATTERN
from slipway.model.model_file import is_previewed, may_ask_person
from slipway.model.served import (
    parse_model_file,
)

GOLDEN = {"name": "three", "image": "golden/three.png", "label": "3"}
SMALLEST = {"source": {"folder": "checkpoint"}, "gate": {"golden": [GOLDEN]}}
HASH = "a" * 64


def without(field):
    """The smallest model file, without a field."""
    return {name: value for name, value in SMALLEST.items() if name != field}


def golden(**changes):
    """The smallest model file, with a changed golden case."""
    return {**SMALLEST, "gate": {"golden": [{**GOLDEN, **changes}]}}


def test_defaults_if_only_source_and_gate_are_given():
    """A model file needs only source and gate."""
    file = parse_model_file(SMALLEST, where="m.yaml")
    assert (file.serving.runtime, file.export.precision, file.image.base) == ("tensorflow", "float32", None)
    assert file.target.deployment == "tfs-server"
    assert file.target.overlay is None
    assert file.schedule is None
    assert (file.gate.passes, file.gate.golden[0].min_confidence) == (3, 0.5)


def gate(**rules):
    """The smallest model file, with these settings of its gate."""
    return {**SMALLEST, "gate": {"golden": [GOLDEN], **rules}}


def prometheus(queries, **rules):
    """A model file with a bake that asks a Prometheus."""
    return gate(bake={"prometheus": {"conn_id": "prom", **queries}, **rules})


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
    """A source is a folder, a Hub model or an archive."""
    assert (
        source.items() <= parse_model_file({**SMALLEST, "source": source}, where="m.yaml").source.model_dump().items()
    )


def test_bake_with_a_prometheus():
    """The queries may use every placeholder, and a `$` of a pattern."""
    query = 'a{n="$namespace",d="$deployment",m="$model",v="$version",r="$release",p=~"x$"}[$window] + $$'
    bake = parse_model_file(prometheus({"errors": query, "p95_ms": "b"}, p95_ms=5), where="m.yaml").gate.bake
    assert (bake.prometheus.errors, bake.prometheus.p95_ms, bake.p95_ms) == (query, "b", 5.0)


def onnx(**fields):
    """The smallest model file of ONNX Runtime, with these fields."""
    return {**SMALLEST, "serving": {"runtime": "onnxruntime"}, **fields}


def test_precision_of_onnx_runtime_is_a_choice():
    """Float16 weights need nothing else; int8 needs a labelled set."""
    quality = gate(quality={"set": "q", "min_top1": 0.9})["gate"]
    for precision, fields in (("float16_weights", {}), ("int8", {"gate": quality})):
        file = parse_model_file(onnx(export={"precision": precision}, **fields), where="m.yaml")
        assert (file.serving.runtime, file.export.precision) == ("onnxruntime", precision)


def test_int8_has_bounds_of_its_own():
    """How many labels may change, and how many correct ones may be lost, against float32."""
    quality = gate(quality={"set": "q", "min_top1": 0.9, "int8_max_changed": 0.1})["gate"]
    file = parse_model_file(onnx(export={"precision": "int8", "calibration": "labelled"}, gate=quality), where="m.yaml")
    bounds = file.gate.quality
    assert (file.export.calibration, bounds.int8_max_changed, bounds.int8_max_drop) == ("labelled", 0.1, 0.01)


def gate_only(**rules):
    """The gate of the smallest model file, with these settings."""
    return {"gate": gate(**rules)["gate"]}


REFUSALS = {
    "not fields": (["source"], "has no fields"),
    "empty": (None, "has no fields"),
    "no source": (without("source"), "source: "),
    "no gate": (without("gate"), "gate: "),
    "unknown field": ({**SMALLEST, "shedule": "@daily"}, "shedule: "),
    "unknown field below": ({**SMALLEST, "target": {"namspace": "x"}}, "target.namspace: "),
    "unknown field of the source": ({**SMALLEST, "source": {"folder": "a", "revision": "b"}}, "source.revision: "),
    "a field that is a number": ({**SMALLEST, 1: 2}, "1: "),
    "source is text": ({**SMALLEST, "source": "google/vit"}, "source: "),
    "source is a list": ({**SMALLEST, "source": ["google/vit"]}, "source: "),
    "source is empty": ({**SMALLEST, "source": None}, "source: "),
    "source is a number": ({**SMALLEST, "source": 3}, "source: "),
    "source names none": ({**SMALLEST, "source": {}}, "source: names no source, or several"),
    "source names two": ({**SMALLEST, "source": {"folder": "a", "hub": "b"}}, "source: names no source, or several"),
    "source's folder is a number": ({**SMALLEST, "source": {"folder": 3}}, "source.folder: "),
    "source's folder is half a URI": ({**SMALLEST, "source": {"folder": "gs://"}}, "source.folder: is not a URI"),
    "source's folder is a URI with a space": ({**SMALLEST, "source": {"folder": "gs://b/a b"}}, "source.folder: is not a URI"),
    "token of a folder": ({**SMALLEST, "source": {"folder": "a", "token_conn_id": "hub"}}, "source.token_conn_id: "),
    "revision that is empty": ({**SMALLEST, "source": {"hub": "a/b", "revision": ""}}, "source.revision: "),
    "token connection that is empty": ({**SMALLEST, "source": {"hub": "a/b", "token_conn_id": ""}}, "source.token_conn_id: "),
    "folder that is a path of the worker": ({**SMALLEST, "source": {"folder": "file:///etc"}}, "source.folder: is a path of the worker"),
    "old format that nobody knows": ({**SMALLEST, "source": {"hub": "a/b", "allow": ["pickle"]}}, "source.allow.0: "),
    "limit of zero": ({**SMALLEST, "export": {"limits": {"memory_mib": 0}}}, "export.limits.memory_mib: "),
    "limit that nobody knows": ({**SMALLEST, "export": {"limits": {"hours": 1}}}, "export.limits.hours: "),
    "Hub name with a space": ({**SMALLEST, "source": {"hub": "google vit"}}, "source.hub: "),
    "Hub name with two slashes": ({**SMALLEST, "source": {"hub": "a/b/c"}}, "source.hub: "),
    "archive without sha256": ({**SMALLEST, "source": {"savedmodel": "https://x/m"}}, "source.sha256: "),
    "archive by a path": ({**SMALLEST, "source": {"savedmodel": "/m", "sha256": HASH}}, "source.savedmodel: "),
    "archive with a short sha256": ({**SMALLEST, "source": {"savedmodel": "https://x/m", "sha256": "abc"}}, "source.sha256: "),
    "runtime that nobody knows": ({**SMALLEST, "serving": {"runtime": "torch"}}, "serving.runtime: "),
    "precision that nobody knows": ({**SMALLEST, "export": {"precision": "float16"}}, "export.precision: "),
    "precision of TensorFlow": ({**SMALLEST, "export": {"precision": "float16_weights"}}, "the file: export.precision: float16_weights needs serving.runtime: onnxruntime"),
    "int8 without a labelled set": (onnx(export={"precision": "int8"}), "the file: export.precision: int8 needs gate.quality"),
    "calibration without int8": (onnx(export={"calibration": "labelled"}), "the file: export.calibration has no effect without export.precision: int8"),
    "calibration that nobody knows": (onnx(export={"precision": "int8", "calibration": "all"}), "export.calibration: "),
    "int8's bound without int8": (onnx(**gate_only(quality={"set": "q", "min_top1": 0.9, "int8_max_drop": 0})), "the file: gate.quality.int8_max_drop has no effect without export.precision: int8"),
    "int8's bound above 1": (onnx(export={"precision": "int8"}, **gate_only(quality={"set": "q", "min_top1": 0.9, "int8_max_changed": 2})), "gate.quality.int8_max_changed: "),
    "archive on ONNX Runtime": (onnx(source={"savedmodel": "https://x/m", "sha256": HASH}), "the file: source.savedmodel is a model of TensorFlow, which serving.runtime: onnxruntime cannot serve"),
    "HDF5 on ONNX Runtime": (onnx(source={"hub": "a/b", "allow": ["h5"]}), "the file: source.allow: h5 has no effect with serving.runtime: onnxruntime"),
    "inter-op threads on ONNX Runtime": (onnx(sweep={"rate_per_s": 10, "grid": {"inter_op": [1, 2]}}), "the file: sweep.grid.inter_op has no effect with serving.runtime: onnxruntime"),
    "TensorFlow Serving for ONNX Runtime": (onnx(image={"base": "mirror:5000/tensorflow/serving:2.20.0"}), "the file: image.base: mirror:5000/tensorflow/serving:2.20.0 is TensorFlow Serving, and serving.runtime is onnxruntime"),
    "no golden case": ({**SMALLEST, "gate": {"golden": []}}, "gate.golden: "),
    "golden is text": ({**SMALLEST, "gate": {"golden": "three.png"}}, "gate.golden: "),
    "two golden cases of one name": ({**SMALLEST, "gate": {"golden": [GOLDEN, GOLDEN]}}, "gate: golden cases need different names"),
    "golden image by URL without sha256": (golden(image="https://x/three.png"), "gate.golden.0: an image by URL needs its sha256"),
    "golden name that is invalid": (golden(name="Three!"), "gate.golden.0.name: "),
    "golden label that is a number": (golden(label=3), "gate.golden.0.label: "),
    "golden label that is empty": (golden(label=""), "gate.golden.0.label: "),
    "golden labels that are none": (golden(label=[]), "gate.golden.0.label: "),
    "golden labels with a number": (golden(label=["3", 8]), "gate.golden.0.label: is neither a text nor a list of texts"),
    "golden label twice": (golden(label=["3", "3"]), "gate.golden.0.label: names a label twice"),
    "failures below zero": (gate(failures=-1), "gate.failures: "),
    "errors that are a text": (gate(errors="many"), "gate.errors: "),
    "latency of zero": (gate(latency_ms=0), "gate.latency_ms: "),
    "labelled set without a limit": (gate(quality={"set": "q"}), "gate.quality: has no limit"),
    "labelled set without a path": (gate(quality={"min_top1": 0.9}), "gate.quality.set: "),
    "labelled set with a share above one": (gate(quality={"set": "q", "min_top1": 90}), "gate.quality.min_top1: "),
    "bake of a moment": (gate(bake={"for_s": 1}), "gate.bake.for_s: "),
    "bake with one look": (gate(bake={"for_s": 60, "every_s": 61}), "gate.bake: every_s is more than for_s"),
    "bake with a share above one": (gate(bake={"max_errors": 5}), "gate.bake.max_errors: "),
    "bake that must be faster": (gate(bake={"max_slowdown": -0.5}), "gate.bake.max_slowdown: "),
    "bake of an unknown limit": (gate(bake={"p99_ms": 5}), "gate.bake.p99_ms: "),
    "bake on a temporary cluster": ({**gate(bake={}), "target": {"gke": {"temporary": True}}}, "the file: gate.bake has no effect on a temporary cluster"),
    "Prometheus without a query": (prometheus({}), "gate.bake.prometheus: has no query"),
    "Prometheus with an unknown placeholder": (prometheus({"errors": "a{ns='$ns'}"}), "gate.bake.prometheus.errors: has the placeholder $ns, but only $namespace, "),
    "Prometheus without a limit": (prometheus({"p95_ms": "a"}), "gate.bake: prometheus.p95_ms has no limit"),
    "Prometheus without the query of a limit": (prometheus({"errors": "a"}, p95_ms=5), "gate.bake: p95_ms needs prometheus.p95_ms"),
    "Prometheus without the query of a share": (prometheus({"p95_ms": "a"}, p95_ms=5, max_errors=0), "gate.bake: max_errors needs prometheus.errors"),
    "Prometheus and a comparison": (prometheus({"errors": "a"}, max_slowdown=2), "gate.bake: max_slowdown is judged by the pods' own pages"),
    "Prometheus and errors before": (prometheus({"errors": "a"}, max_more_errors=0.1), "gate.bake: max_more_errors is judged by the pods'"),
    "Prometheus and refused requests": (prometheus({"errors": "a"}, max_refused=0), "gate.bake: max_refused is judged by the pods'"),
    "inconclusive that is neither": (gate(on_inconclusive="pass"), "gate.on_inconclusive: "),
    "approval that is neither": (gate(approval="never"), "gate.approval: "),
    "approval of what fails": (gate(approval="when_inconclusive", on_inconclusive="fail"), "gate: approval: when_inconclusive has no effect with on_inconclusive: fail"),
    "approval after users have it": ({**gate(approval="always"), "target": {"strategy": "rolling"}}, "the file: gate.approval: always needs a preview"),
    "approval on a temporary cluster": ({**gate(approval="always"), "target": {"gke": {"temporary": True}}}, "the file: gate.approval: always needs a preview"),
    "load after users have it": ({**gate(load={"rate_per_s": 5}), "target": {"strategy": "rolling"}}, "the file: gate.load needs a preview"),
    "an image that nothing tests before users": ({**gate(), "image": {"builder": "registry"}, "target": {"strategy": "rolling"}}, "the file: image.builder: registry needs a preview"),
    "load on a temporary cluster": ({**gate(load={"rate_per_s": 5}), "target": {"gke": {"temporary": True}}}, "the file: gate.load needs a preview"),
    "load without a rate": (gate(load={}), "gate.load.rate_per_s: "),
    "load with too few requests": (gate(load={"rate_per_s": 1}), "gate.load: 8 requests in a step are too few for a percentile"),
    "load that never settles": (gate(load={"rate_per_s": 5, "settle_s": 10}), "gate.load: settle_s is not below step_s"),
    "load in one round": (gate(load={"rate_per_s": 5, "rounds": 1}), "gate.load.rounds: "),
    "no time for a person to answer": (gate(ask_timeout_s=0), "gate.ask_timeout_s: "),
    "gRPC address without an address": ({**SMALLEST, "target": {"grpc_address": "x:8500"}}, "target: grpc_address needs address"),
    "gRPC address that is a URL": ({**SMALLEST, "target": {"address": "http://x", "grpc_address": "http://x:1"}}, "target.grpc_address: "),
    "confidence above one": (golden(min_confidence=1.5), "gate.golden.0.min_confidence: "),
    "confidence below zero": (golden(min_confidence=-0.1), "gate.golden.0.min_confidence: "),
    "confidence NaN": (golden(min_confidence=float("nan")), "gate.golden.0.min_confidence: "),
    "confidence is text": (golden(min_confidence="high"), "gate.golden.0.min_confidence: "),
    "passes zero": ({**SMALLEST, "gate": {"golden": [GOLDEN], "passes": 0}}, "gate.passes: "),
    "timeout of zero": ({**SMALLEST, "rollout_timeout_s": 0}, "rollout_timeout_s: "),
    "timeout that is too long": ({**SMALLEST, "address_timeout_s": 10**9}, "address_timeout_s: "),
    "deployment that is not a DNS label": ({**SMALLEST, "target": {"deployment": "TFS"}}, "target.deployment: "),
    "deployment too long": ({**SMALLEST, "target": {"deployment": "a" * 41}}, "target.deployment: "),
    "deployment with a line end": ({**SMALLEST, "target": {"deployment": "tfs\n"}}, "target.deployment: "),
    "address without scheme": ({**SMALLEST, "target": {"address": "203.0.113.9:8501"}}, "target.address: "),
    "address without host": ({**SMALLEST, "target": {"address": "http://"}}, "target.address: "),
    "address with an invalid port": ({**SMALLEST, "target": {"address": "http://x:port"}}, "target.address: "),
    "address with half an IPv6": ({**SMALLEST, "target": {"address": "http://[::1"}}, "target.address: "),
    "watch of a folder": ({**SMALLEST, "watch": {}}, "the file: watch is only for a Hub source"),
    "watch of a commit": ({**SMALLEST, "source": {"hub": "a/b", "revision": "0" * 40}, "watch": {}}, "the file: watch is only for a branch"),
    "watch with a continuous schedule": ({**SMALLEST, "source": {"hub": "a/b"}, "watch": {}, "schedule": "@continuous"}, "the file: watch needs a cron"),
    "watch without a pause": ({**SMALLEST, "source": {"hub": "a/b"}, "watch": {"poll_s": 0}}, "watch.poll_s: "),
    "schedule is a number": ({**SMALLEST, "schedule": 3}, "schedule: "),
    "schedule with a bad cron": ({**SMALLEST, "schedule": "61 * * * *"}, "schedule: "),
    "schedule that is not a cron expression": ({**SMALLEST, "schedule": "every day"}, "schedule: "),
    "schedule that is empty": ({**SMALLEST, "schedule": ""}, "schedule: "),
    "schedule with an unknown preset": ({**SMALLEST, "schedule": "@fortnightly"}, "schedule: "),
}  # fmt: skip


@pytest.mark.parametrize(("data", "said"), REFUSALS.values(), ids=REFUSALS)
def test_refused_in_one_line(data, said):
    """An invalid model file is refused in one line with file, field and what to do next."""
    with pytest.raises(InputRefused) as refusal:
        parse_model_file(data, where="include/served/m.yaml")
    message = str(refusal.value)
    assert "\n" not in message
    assert message.startswith(f"include/served/m.yaml: {said}")
    assert "Next: " in message


LOGINS = {
    "archive": ({"source": {"savedmodel": "https://me:pass-word@x/m", "sha256": HASH}}, "source.savedmodel: has a login"),
    "archive, without a name": ({"source": {"savedmodel": "https://pass-word@x/m", "sha256": HASH}}, "source.savedmodel: has a login"),
    "archive and a short hash": ({"source": {"savedmodel": "https://x/m?pass-word", "sha256": "a"}}, "source.sha256: "),
    "not an archive": ({"source": {"savedmodel": "ftp://x/m?pass-word", "sha256": HASH}}, "source.savedmodel: "),
    "bucket": ({"source": {"folder": "s3://key:pass-word@b/f"}}, "source.folder: has a login or a query"),
    "bucket with a query": ({"source": {"folder": "s3://b/f?pass-word"}}, "source.folder: has a login or a query"),
    "bucket and a space": ({"source": {"folder": "s3://key:pass-word@b/f g"}}, "source.folder: is not a URI"),
    "golden image": (golden(image="https://me:pass-word@x/three.png", sha256=HASH), "gate.golden.0.image: has a login"),
    "golden image without a hash": (golden(image="https://x/three.png?pass-word"), "gate.golden.0: an image by URL needs its sha256"),
    "golden image in a bucket": (golden(image="s3://key:pass-word@b/three.png", sha256=HASH), "gate.golden.0.image: is neither a path nor"),
    "labelled set": (gate(quality={"set": "https://me:pass-word@x/q", "min_top1": 0.9}), "gate.quality.set: is a URL"),
    "address": ({"target": {"address": "https://me:pass-word@x/"}}, "target.address: has a login"),
    "address with a query": ({"target": {"address": "https://x/?pass-word"}}, "target.address: has a query"),
    "base image": ({"image": {"base": "me:pass-word@x/serving:1"}}, "image.base: is not an image"),
    "base image by URL": ({"image": {"base": "https://me:pass-word@x/serving:1"}}, "image.base: is not an image"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "said"), LOGINS.values(), ids=LOGINS)
def test_refused_without_the_login_in_a_url(fields, said):
    """The one line names the field. Neither it nor the traceback, which Airflow logs, has the login or the signature."""
    with pytest.raises(InputRefused, match=rf"^m\.yaml: {re.escape(said)}.*Next: ") as refusal:
        parse_model_file({**SMALLEST, **fields}, where="m.yaml")
    assert "\n" not in str(refusal.value)
    assert "pass-word" not in "".join(traceback.format_exception(refusal.value))


@pytest.mark.parametrize("base", ["tensorflow/serving:2.20.0", "r.example:5000/a/b", f"[::1]:5000/a_b:1@sha256:{HASH}"])
def test_base_is_an_image(base):
    """By tag or digest, at any registry."""
    assert parse_model_file({**SMALLEST, "image": {"base": base}}, where="m.yaml").image.base == base


@pytest.mark.parametrize(
    "schedule", [None, "@daily", "@weekly", "@quarterly", "@once", "@continuous", "0 3 * * *", "*/5 8-18 * * 1-5"]
)
def test_schedule_is_what_airflow_accepts(schedule):
    """Cron expressions and Airflow's presets are valid."""
    assert schedule == parse_model_file({**SMALLEST, "schedule": schedule}, where="m.yaml").schedule


@pytest.mark.parametrize(
    "address", ["http://203.0.113.9:8501", "https://models.example.com", "http://[2001:db8::9]:8501/"]
)
def test_address_is_a_url(address):
    """An address may be any URL with a host."""
    assert address == parse_model_file({**SMALLEST, "target": {"address": address}}, where="m.yaml").target.address


def test_every_mistake_is_named_at_once():
    """All mistakes are in one message, so that all can be fixed at once."""
    with pytest.raises(InputRefused, match=r"gate\.passes: .*; shedule: .*Next: fix gate\.passes") as refusal:
        parse_model_file({**SMALLEST, "gate": {"golden": [GOLDEN], "passes": 0}, "shedule": "x"}, where="m.yaml")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["a", "digits-vit", "a1", "a" * 40])
def test_model_names(name):
    """A model's name is a DNS label, short enough for a suffix."""
    assert re.fullmatch(NAME_PATTERN, name)


def test_previewed_unless_rolling_or_on_a_temporary_cluster():
    """A preview is the default. A temporary cluster has none, because it has no live release."""
    targets = ({}, {"strategy": "rolling"}, {"gke": {}}, {"gke": {"temporary": True}})
    files = [parse_model_file({**SMALLEST, "target": target}, where="m.yaml") for target in targets]
    assert [is_previewed(file) for file in files] == [True, False, True, False]


ASKS = {
    "the gate is always conclusive": ({}, False),
    "a latency limit": ({"latency_ms": 500}, True),
    "a latency limit, and inconclusive fails": ({"latency_ms": 500, "on_inconclusive": "fail"}, False),
    "load": ({"load": {"rate_per_s": 5}}, True),
    "every release": ({"approval": "always"}, True),
    "every release, and inconclusive fails": ({"approval": "always", "on_inconclusive": "fail"}, True),
    "the default, written out": ({"approval": "when_inconclusive"}, False),
}


@pytest.mark.parametrize(("rules", "asks"), ASKS.values(), ids=ASKS)
def test_person_may_be_asked_if_every_release_is_approved_or_the_gate_may_doubt(rules, asks):
    """The graph has an approval only where a run may ask."""
    assert asks is may_ask_person(parse_model_file(gate(**rules), where="m.yaml"))
