import json
import re
from contextlib import nullcontext
from dataclasses import replace
from hashlib import sha256

import pytest
from writable_registry import WritableRegistry

from slipway.errors import InputRefused
from slipway.model.content import content_hash
from slipway.model.gate_settings import GateSettings, GoldenImage
from slipway.model.served import parse_model_file
from slipway.paths import INCLUDE
from slipway.release import Bake, ExportPod, Gate, GoldenRequest, PrometheusQueries, Source
from slipway.serving.labelled_set import read_images
from slipway.steps import resolve as resolve_module
from slipway.steps.resolve import (
    resolve_export_pod,
    resolve_gate,
    resolve_golden,
    resolve_registry_connection,
    resolve_repository,
    resolve_serving_image,
    resolve_source,
)
from slipway.steps.settings import RefreshParams, Settings, resolve_target

DIGITS = INCLUDE / "served" / "digits-vit.yaml"
CASE = f"gate: {{golden: [{{name: a, image: 'https://example.com/a.png', sha256: '{'2' * 64}', label: a}}]}}\n"
GOLDEN = {"golden": [{"name": "three", "image": "digits-vit/golden/three.png", "label": "3"}]}


def file_of(*, source=None, runtime="tensorflow", **image):
    """A model file with this source, runtime and image."""
    source = source or {"folder": "digits-vit/checkpoint"}
    fields = {"source": source, "gate": GOLDEN, "serving": {"runtime": runtime}, "image": image}
    return parse_model_file(fields, where="m.yaml")


def settings(*, registry="registry.example.com/shop", **serving_images):
    """Settings of an Airflow."""
    named = {name: image for name, image in serving_images.items() if image}
    return Settings(store="file:///store", registry=registry, serving_images=named)


def podded(runtime="tensorflow", **pod):
    """A model file whose export runs in a pod."""
    fields = {"source": {"folder": "f"}, "gate": GOLDEN, "serving": {"runtime": runtime}}
    return parse_model_file({**fields, "export": {"run_in": "pod", "pod": pod}}, where="m.yaml")


@pytest.mark.parametrize("runtime", ["tensorflow", "onnxruntime"])
def test_exporters_pod_has_the_image_of_the_runtimes_variable(monkeypatch, runtime):
    """What the model file leaves out comes from the Variable, and from the connection."""
    extra = {"kube_config": {"apiVersion": "v1"}, "namespace": "shop"}
    monkeypatch.setenv("AIRFLOW_CONN_EXPORTS", json.dumps({"conn_type": "kubernetes", "extra": extra}))
    monkeypatch.setattr("slipway.steps.resolve.namespace_of_connection", lambda conn_id: {"exports": "shop"}[conn_id])
    given = replace(settings(), exporter_images={runtime: "mirror/exporter:1"})
    found = resolve_export_pod(podded(runtime, conn_id="exports", cpu=2), given)
    assert found == ExportPod(conn_id="exports", namespace="shop", image="mirror/exporter:1", cpu=2)
    own = resolve_export_pod(podded(runtime, conn_id="exports", image="mine:1", namespace="build"), given)
    assert (own.image, own.namespace) == ("mine:1", "build")
    assert resolve_export_pod(file_of(), given) is None


def test_refused_if_nothing_names_the_exporters_image():
    """The error says where to name it, and how it is built."""
    said = r"^export\.pod\.image: not set, nor the Variable slipway_exporter_image\. Next: build an image with include/model/Dockerfile"
    with pytest.raises(InputRefused, match=said):
        resolve_export_pod(podded(), settings())


SERVING = [
    ({}, None, "tensorflow/serving:2.20.0"),
    ({}, "mirror/serving:2.20.0", "mirror/serving:2.20.0"),
    ({"base": "tensorflow/serving:2.20.0"}, "mirror/serving:2.20.0", "mirror/serving:2.20.0"),
    ({"base": "mine/serving:1"}, "mirror/serving:2.20.0", "mine/serving:1"),
    ({"base": "mine/serving:1"}, None, "mine/serving:1"),
]


@pytest.mark.parametrize(("image", "variable", "base"), SERVING)
def test_serving_image_is_the_variables_if_the_model_file_has_the_default(image, variable, base):
    """The Variable does not replace a base that the model file names."""
    given = settings(tensorflow=variable, onnxruntime="other/onnx:1")
    assert base == resolve_serving_image("m", file_of(**image), given)


@pytest.mark.parametrize(
    ("image", "base"), [({}, "mirror/onnx:1"), ({"base": "mine/onnx:1"}, "mine/onnx:1")], ids=["Variable", "model file"]
)
def test_serving_image_of_onnx_runtime_has_its_own_variable(image, base):
    """The Variable of TensorFlow Serving's image says nothing about the other runtime."""
    file = file_of(runtime="onnxruntime", **image)
    given = settings(tensorflow="mirror/serving:2.20.0", onnxruntime="mirror/onnx:1")
    assert base == resolve_serving_image("m", file, given)


def test_refused_if_nothing_names_a_serving_image_of_onnx_runtime():
    """Nobody publishes one. The error says where to name it, and what it is made from."""
    said = (
        r"^include/served/m\.yaml: image\.base: not given, and the Variable slipway_onnx_serving_image is not set\. "
        r"Next: set one to an image for serving\.runtime: onnxruntime: one built with include/onnx_server/Dockerfile$"
    )
    with pytest.raises(InputRefused, match=said):
        resolve_serving_image("m", file_of(runtime="onnxruntime"), settings(tensorflow="mirror/serving:2.20.0"))


@pytest.mark.parametrize(
    ("image", "registry", "repository"),
    [
        ({}, "registry.example.com/shop", "registry.example.com/shop/digits-vit"),
        ({}, "127.0.0.1:5000/shop/", "127.0.0.1:5000/shop/digits-vit"),
        ({"repository": "gcr.io/p/mine"}, "registry.example.com/shop", "gcr.io/p/mine"),
        ({"repository": "gcr.io/p/mine"}, None, "gcr.io/p/mine"),
    ],
)
def test_repository_is_the_model_files_or_below_the_registry(image, registry, repository):
    """Without a repository in the model file it is the registry's prefix and the model's name."""
    assert repository == resolve_repository("digits-vit", file_of(**image), settings(registry=registry))


def test_refused_if_there_is_no_repository():
    """The error names the model file's field and the Variable."""
    with pytest.raises(InputRefused, match=r"^include/served/m\.yaml: image\.repository: .*slipway_registry.*Next: "):
        resolve_repository("m", file_of(), settings(registry=None))


INVALID = ["https://registry.example.com/shop", "registry.example.com/Shop", "registry.example.com/shop:latest", "a b"]


@pytest.mark.parametrize("repository", INVALID)
def test_refused_if_the_repository_is_invalid(repository):
    """It is refused before anything is built; the error names the field or the Variable."""
    file = file_of(repository=repository)
    with pytest.raises(InputRefused, match=r"^include/served/m\.yaml: image\.repository: .*without https://"):
        resolve_repository("m", file, settings())
    with pytest.raises(InputRefused, match=r"^Variable slipway_registry: .*without https://"):
        resolve_repository("m", file_of(), settings(registry=repository))


@pytest.mark.parametrize("repository", ["vit", "me/vit", "localhost:5000/vit", "[::1]:5000/a/vit", "r.io/p.q/a_b__c-d"])
def test_repository_may_be_any_that_an_engine_accepts(repository):
    """Registry and port are optional; a path may have separators."""
    assert repository == resolve_repository("m", file_of(repository=repository), settings())


def test_folder_is_pinned_to_its_content():
    """A folder's revision is the hash of its content."""
    folder = INCLUDE / "served" / "digits-vit/checkpoint"
    assert Source(kind="folder", location="digits-vit/checkpoint", revision=content_hash(folder)) == resolve_source(
        file_of(), None
    )


def test_archive_is_pinned_to_its_hash():
    """An archive's revision is its sha256 from the model file."""
    file = file_of(source={"savedmodel": "https://x/m.tar.gz", "sha256": "a" * 64})
    expected = Source(kind="savedmodel", location="https://x/m.tar.gz", revision=f"sha256:{'a' * 64}")
    assert expected == resolve_source(file, None)


def test_the_query_of_a_url_is_not_in_the_release():
    """It may be a signature: the Release goes into XCom and records. A URL that is signed again is the same source."""
    source = {"savedmodel": "https://x/m.tar.gz?sig=secret", "sha256": "a" * 64}
    assert resolve_source(file_of(source=source), None).location == "https://x/m.tar.gz"
    case = golden("https://x/three.png?sig=secret", sha256="a" * 64)
    assert resolve_golden(DIGITS, case, None).image == "https://x/three.png"


def test_a_repository_with_a_login_is_refused_without_it():
    """The line has the rest of the name."""
    with pytest.raises(InputRefused, match=r"^Variable slipway_registry: r\.example/shop/m is not an image") as refusal:
        resolve_repository("m", file_of(), settings(registry="me:pass-word@r.example/shop"))
    assert "pass-word" not in str(refusal.value)


@pytest.mark.parametrize("folder", ["gone", "../../dags", "/tmp", "digits-vit.yaml"])  # noqa: S108 - refused, never used
def test_refused_if_the_folder_is_not_below_include_served(folder):
    """Every worker has include/served, but no other folder."""
    named = folder if folder.startswith("/") else f"include/served/{folder}"
    with pytest.raises(InputRefused, match=rf"^source\.folder: {re.escape(named)} is not a folder.*Next: "):
        resolve_source(file_of(source={"folder": folder}), None)


@pytest.mark.parametrize(
    "source", [{"folder": "digits-vit/checkpoint"}, {"savedmodel": "https://x/m", "sha256": "a" * 64}]
)
def test_refused_if_a_revision_is_given_for_another_kind_of_source(source):
    """Only a Hub model has revisions."""
    with pytest.raises(InputRefused, match=r"^Param revision: 'main' was given, .*Next: leave it empty"):
        resolve_source(file_of(source=source), "main")


def golden(image, **fields):
    """A golden case of a model file."""
    return GoldenImage(name="three", image=image, label="3", min_confidence=0.8, **fields)


THREE = sha256((INCLUDE / "served" / "digits-vit" / "golden" / "three.png").read_bytes()).hexdigest()


def test_golden_image_is_pinned_by_its_bytes(tmp_path):
    """An image that is replaced under the same name makes another golden case."""
    picture = tmp_path / "three.png"
    for data in (b"three", b"another three"):
        picture.write_bytes(data)
        assert resolve_golden(tmp_path / "m.yaml", golden("three.png"), None).sha256 == sha256(data).hexdigest()


def test_refused_if_a_golden_image_has_another_hash_than_the_model_files():
    """It is refused before anything is built; the error names both hashes."""
    with pytest.raises(InputRefused, match=rf"^gate\.golden three: image .* has sha256 {THREE}, .*{'a' * 64}\. Next: "):
        resolve_golden(DIGITS, golden("digits-vit/golden/three.png", sha256="a" * 64), None)


@pytest.mark.parametrize(("given", "confidence"), [(None, 0.8), (0.0, 0.0), (0.95, 0.95)])
def test_min_confidence_is_the_forms_if_it_gives_one(given, confidence):
    """The form's value replaces the model file's, even if it is zero."""
    expected = GoldenRequest(
        name="three", image="digits-vit/golden/three.png", sha256=THREE, label="3", min_confidence=confidence
    )
    assert expected == resolve_golden(DIGITS, golden("digits-vit/golden/three.png"), given)


def test_gate_is_the_model_files_and_its_set_is_stored(tmp_path, store):
    """All rules of the gate are pinned; the labelled set goes to the store, where every worker can read it."""
    (tmp_path / "q" / "3").mkdir(parents=True)
    (tmp_path / "q" / "3" / "a.png").write_bytes(b"three")
    rules = {
        "failures": 1,
        "errors": 2,
        "latency_ms": 3,
        "garbage": False,
        "approval": "always",
        "on_inconclusive": "fail",
        "ask_timeout_s": 4,
    }
    case = {"name": "three", "image": "x", "label": "3"}
    asked = GateSettings(golden=[case], quality={"set": "q", "min_top1": 0.9}, **rules)
    gate = resolve_gate(tmp_path / "m.yaml", asked, store)
    assert gate == Gate(quality=gate.quality, **rules)
    assert [image.name for image in read_images(gate.quality)] == ["3/a.png"]
    assert resolve_gate(tmp_path / "m.yaml", GateSettings(golden=[case]), store) == Gate()


def test_bake_is_the_model_files_and_its_prometheus_exists(tmp_path, store, monkeypatch):
    """A connection that is missing, or of another type, is refused before anything is built."""
    case = {"name": "three", "image": "x", "label": "3"}
    asked = {"for_s": 60, "p95_ms": 5, "prometheus": {"conn_id": "prom", "errors": "a", "p95_ms": "b"}}
    settings = GateSettings(golden=[case], bake=asked)
    with pytest.raises(InputRefused, match=r"^connection prom: no such connection\. Next: "):
        resolve_gate(tmp_path / "m.yaml", settings, store)
    monkeypatch.setenv("AIRFLOW_CONN_PROM", '{"conn_type": "http", "host": "prom.example.com"}')
    queries = PrometheusQueries(conn_id="prom", errors="a", p95_ms="b")
    assert resolve_gate(tmp_path / "m.yaml", settings, store).bake == Bake(for_s=60, p95_ms=5.0, prometheus=queries)
    assert resolve_gate(tmp_path / "m.yaml", GateSettings(golden=[case], bake={}), store).bake == Bake()


def test_golden_image_by_url_is_not_fetched():
    """It is fetched later and checked against its hash."""
    pinned = resolve_golden(DIGITS, golden("https://x/three.png", sha256="a" * 64), None)
    assert (pinned.image, pinned.sha256) == ("https://x/three.png", "a" * 64)


@pytest.mark.parametrize("image", ["gone.png", "../../README.md", "digits-vit", "/etc/hostname"])
def test_refused_if_a_golden_image_is_not_next_to_the_model_file(image):
    """It is refused before anything is built; the error names file and case."""
    with pytest.raises(
        InputRefused, match=r"^include/served/digits-vit\.yaml: gate\.golden three: image .* is not a file.*Next: "
    ):
        resolve_golden(DIGITS, golden(image), None)


@pytest.mark.parametrize("target", ["{gke: {}}", "{namespace: shop}"], ids=["a GKE cluster", "a connection"])
@pytest.mark.usefixtures("installation")
def test_release_names_its_airflow(monkeypatch, tmp_path, google, store, target):
    """The name distinguishes it from a run with the same id in another Airflow, and its record from that Airflow's."""
    path = tmp_path / "m.yaml"
    path.write_text(
        f"source: {{savedmodel: 'https://example.com/m.tar.gz', sha256: '{'1' * 64}'}}\ntarget: {target}\n" + CASE
    )
    monkeypatch.setattr(resolve_module, "engine_at", lambda _conn_id: nullcontext())
    for function, result in {
        "log_in": None,
        "resolve_base": f"sha256:{'2' * 64}",
        "check_base": None,
        "check_registry": None,
    }.items():
        monkeypatch.setattr(resolve_module, function, lambda *_arguments, result=result: result)
    given = replace(settings(), store=store.uri, namespace="shop")
    assert resolve_module.resolve(path, RefreshParams(), given, run_id="r").installation == "here"


def test_broken_model_file_is_left_out_of_the_check(tmp_path):
    """A broken model file is refused in its own DAG and does not stop the others."""
    good = tmp_path / "a.yaml"
    good.write_text("source: {folder: x}\ngate: {golden: [{name: a, image: a.png, label: a}]}\n")
    (tmp_path / "b.yaml").write_text("nonsense")
    file = file_of()
    assert {"a": file} == resolve_module.readable_files(good, file)


ARTIFACT_REGISTRY = "europe-docker.pkg.dev/p/models/vit"
GKE = {"gke": {"project": "p", "conn_id": "mine"}}
CHOICES = {
    "named": ({"repository": ARTIFACT_REGISTRY, "registry_conn_id": "named"}, GKE, "variable", "named"),
    "the Variable's": ({}, {}, "variable", "variable"),
    "not the Variable's if the model file names the repository": (
        {"repository": "r.example/vit"},
        {},
        "variable",
        None,
    ),
    "the target's, for Artifact Registry": ({"repository": ARTIFACT_REGISTRY}, GKE, "variable", "mine"),
    "the target's, for the Variable's repository": ({}, GKE, None, "mine"),
    "none for another registry": ({"repository": "r.example/vit"}, GKE, None, None),
    "none without a GKE target": ({"repository": ARTIFACT_REGISTRY}, {}, None, None),
}


@pytest.mark.parametrize(("image", "target", "variable", "chosen"), CHOICES.values(), ids=CHOICES)
def test_registry_connection_comes_from_the_model_file_the_variable_or_the_target(
    monkeypatch, image, target, variable, chosen
):
    """In this order. The target's connection is only for Artifact Registry."""
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps({"conn_type": "kubernetes", "extra": {"namespace": "n"}}))  # fmt: skip
    fields = {"source": {"folder": "x"}, "gate": GOLDEN, "image": image, "target": {"namespace": "shop", **target}}
    file = parse_model_file(fields, where="x.yaml")
    given = Settings(store="file:///s", registry="europe-docker.pkg.dev/p/models", registry_conn_id=variable)  # fmt: skip
    repository = image.get("repository") or ARTIFACT_REGISTRY
    assert resolve_registry_connection(file, repository, resolve_target(file.target, given), given) == chosen


@pytest.mark.usefixtures("installation")
def test_a_registry_that_builds_is_asked_itself(monkeypatch, tmp_path, store):
    """The base image's digest comes from its registry; no connection to an engine is read."""
    registry = WritableRegistry()
    try:
        digest = registry.hold_image("serving/base", "1")
        path = tmp_path / "m.yaml"
        image = f"{{builder: registry, base: '{registry.host}/serving/base:1', repository: '{registry.host}/shop/m'}}"
        source = f"{{savedmodel: 'https://example.com/m.tar.gz', sha256: '{'1' * 64}'}}"
        path.write_text(f"source: {source}\nimage: {image}\ntarget: {{namespace: shop}}\n{CASE}")
        given = replace(settings(), store=store.uri)
        release = resolve_module.resolve(path, RefreshParams(), given, run_id="r")
    finally:
        registry.stop()
    assert (release.base_digest, release.builder) == (digest, "registry")
