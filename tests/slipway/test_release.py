import re
from dataclasses import replace

import pytest

from slipway.facts import from_dict, to_dict
from slipway.model.target_settings import TargetSettings
from slipway.names import asset_uri, dag_id, digest_of, file_name, repository_of, short
from slipway.release import FIRST_RUNTIME, Release, Source
from slipway.runtimes import TENSORFLOW
from slipway.target import Target

LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")  # Kubernetes
DOCKER_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")  # distribution's reference grammar
CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")  # Docker Engine
HOST_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LONGEST = "a" + "b-" * 19 + "c"  # 40 characters, as the model file allows
LARGEST_VERSION = 2**63 - 1  # TF Serving's versions are int64


def named(release, model):
    """The same release with another model name."""
    return replace(release, model=model)


@pytest.mark.parametrize("model", ["a", "digits-vit", LONGEST])
def test_names_are_valid_where_they_are_used(release, model):
    """Labels, tags and containers are valid for the shortest and the longest model name."""
    release = named(release, model)
    digest = f"sha256:{'d' * 64}"
    labels = {**release.object_labels(LARGEST_VERSION, release.release_id(digest)), **release.selector_labels}
    assert all(LABEL_VALUE.fullmatch(value) for value in labels.values())
    assert DOCKER_TAG.fullmatch(release.tag(LARGEST_VERSION, digest))
    for container in (release.build_container, release.smoke_container):
        assert CONTAINER.fullmatch(container)
    assert HOST_NAME.fullmatch(release.service)


def test_names_are_spelled_as_documented(release):
    """These names are visible to users and must not change."""
    assert release.version_folder(7) == "/models/digits-vit/7"
    assert release.version_path(7) == "/v1/models/digits-vit/versions/7"
    assert release.selector_labels == {"slipway/model": "digits-vit"}
    assert release.object_labels(7, "abc") == {"slipway/version": "7", "slipway/release": "abc"}
    assert release.base_reference == f"tensorflow/serving@sha256:{'2' * 64}"
    assert release.reference("sha256:d") == "127.0.0.1:5000/shop/digits-vit@sha256:d"
    assert release.service == release.deployment == "tfs-server"
    assert asset_uri("digits-vit") == "x-slipway://served/digits-vit"
    assert dag_id("digits-vit") == "refresh_digits_vit"


def test_containers_differ_if_another_store_is_used(release):
    """Two checkouts on one engine have different containers, and so do the two purposes."""
    other = replace(release, store="file:///elsewhere")
    names = {release.build_container, release.smoke_container, other.build_container, other.smoke_container}
    assert len(names) == 4


@pytest.mark.parametrize("model", ["digits-vit", "My Model", "ümlaut", "a/b", "-", "x.y", "a_b", ""])
def test_dag_id_is_valid_whatever_a_file_is_called(model):
    """A misnamed model file gets a DAG too, which says what is wrong."""
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,250}", dag_id(model))


def test_dag_id_of_a_misnamed_file_differs_from_a_valid_ones():
    """A refused a_b.yaml does not replace the DAG of a-b.yaml."""
    assert dag_id("a_b") != dag_id("a-b")


DECIDES = {
    "source's revision": {"source": Source(kind="folder", location="digits-vit/checkpoint", revision="sha256:other")},
    "exporter": {"exporter": "sha256:other"},
    "base image's digest": {"base_digest": f"sha256:{'3' * 64}"},
    "manifests": {"manifests_hash": "sha256:other"},
    "runtime": {"runtime": "onnxruntime"},
}


@pytest.mark.parametrize("change", DECIDES.values(), ids=DECIDES)
def test_fingerprint_changes_with_what_is_served(release, change):
    """A change in what is served makes another fingerprint and another release."""
    other = replace(release, **change)
    assert other.fingerprint != release.fingerprint
    assert other.release_id("sha256:d") != release.release_id("sha256:d")


def test_fingerprint_of_tensorflow_is_as_before_there_were_runtimes(release):
    """Releases that are live keep their ids. The value was computed before the second runtime."""
    assert release.fingerprint == "sha256:c3fe2f16c59d80d6ecb2db03ae803c468d8c89b332573697913c93fed0909a0e"


def test_fingerprint_changes_with_the_precision(release):
    """Weights that are stored in another way answer otherwise."""
    onnx = replace(release, runtime="onnxruntime")
    assert replace(onnx, precision="float16_weights").fingerprint != onnx.fingerprint


def test_an_older_release_is_of_tensorflow(release):
    """A record that was written before there were runtimes is read as what it was."""
    before = {name: value for name, value in to_dict(release).items() if name not in FIRST_RUNTIME}
    found = from_dict(Release, before)
    assert (found.served_by, found.precision, found.fingerprint) == (TENSORFLOW, "float32", release.fingerprint)


KEEPS = {
    "run": {"run_id": "scheduled__x"},
    "force": {"force": True},
    "store": {"store": "gs://bucket/slipway"},
    "connection": {"engine_conn_id": "other"},
    "timeouts": {
        "gate_timeout_s": 1,
        "rollout_timeout_s": 1,
        "address_timeout_s": 1,
        "unschedulable_grace_s": 1,
        "gate_passes": 1,
    },
    "base image's tag": {"base_image": "tensorflow/serving:latest"},
}


@pytest.mark.parametrize("change", KEEPS.values(), ids=KEEPS)
def test_fingerprint_ignores_what_belongs_to_the_run(release, change):
    """How a run was started or configured does not make another release."""
    assert replace(release, **change).fingerprint == release.fingerprint


def test_release_id_changes_with_the_image(release):
    """A release id depends on the fingerprint and the image digest."""
    assert release.release_id("sha256:one") != release.release_id("sha256:two")
    assert release.release_id("sha256:one") == replace(release).release_id("sha256:one")
    assert re.fullmatch(r"[0-9a-f]{12}", release.release_id("sha256:one"))


def test_tag_changes_with_version_and_image(release):
    """A tag names one image, so that it never moves to another one."""
    tag = release.tag(7, f"sha256:{'a' * 64}")
    assert tag == f"v7-{'a' * 12}"
    assert tag != release.tag(8, f"sha256:{'a' * 64}")
    assert tag != release.tag(7, f"sha256:{'b' * 64}")


REPOSITORIES = {
    "tensorflow/serving": "tensorflow/serving",
    "tensorflow/serving:2.20.0": "tensorflow/serving",
    "serving": "serving",
    "serving:2.20.0": "serving",
    "127.0.0.1:5000/serving": "127.0.0.1:5000/serving",
    "127.0.0.1:5000/shop/serving:2.20.0": "127.0.0.1:5000/shop/serving",
    "tensorflow/serving@sha256:" + "2" * 64: "tensorflow/serving",
    "localhost:5000/tensorflow/serving:2.20.0@sha256:" + "2" * 64: "localhost:5000/tensorflow/serving",
    "europe-west4-docker.pkg.dev/project/repo/serving:v1": "europe-west4-docker.pkg.dev/project/repo/serving",
    "gcr.io/project/serving:v1": "gcr.io/project/serving",
}


@pytest.mark.parametrize(("reference", "repository"), REPOSITORIES.items())
def test_repository_of_a_reference(reference, repository):
    """Tag and digest are removed, the registry's port is kept."""
    assert repository == repository_of(reference)


@pytest.mark.parametrize(
    ("source", "url"),
    [
        (Source(kind="hub", location="google/vit", revision="c"), "https://huggingface.co/google/vit"),
        (Source(kind="savedmodel", location="https://x/m.tar.gz", revision="c"), "https://x/m.tar.gz"),
        (Source(kind="savedmodel", location="https://me:pw@x/m.tar.gz?sig=s", revision="c"), "https://x/m.tar.gz"),
        (Source(kind="objects", location="gs://conn@bucket/vit", revision="c"), "gs://bucket/vit"),
        (Source(kind="folder", location="digits-vit/checkpoint", revision="c"), "digits-vit/checkpoint"),
    ],
)
def test_url_of_a_source(source, url):
    """A source's URL has no credentials: the image's label shows it."""
    assert url == source.url


@pytest.mark.parametrize(
    ("source", "key"),
    [
        (Source(kind="hub", location="google/vit", revision="1f3c" * 10), f"sources/vit/{'1f3c' * 10}.tar"),
        (Source(kind="objects", location="gs://b/vit", revision=f"sha256:{'a' * 64}"), f"sources/vit/{'a' * 64}.tar"),
        (
            Source(kind="savedmodel", location="https://x/m", revision=f"sha256:{'a' * 64}"),
            f"sources/vit/{'a' * 64}.tar.gz",
        ),
    ],
)
def test_kept_copy_is_named_by_its_revision(source, key):
    """A revision has one copy in the store, whichever branch led to it."""
    assert key == source.kept_key("vit")


@pytest.mark.parametrize(
    "run_id",
    ["manual__2026-11-22T21:00:00+00:00", "a b/c\\d", "../../etc/passwd", ".", "..", ".hidden", "ü" * 250, "r" * 250],
)
def test_file_name_of_a_run_is_one_safe_name(run_id):
    """A run id becomes one visible file name, short enough for a draft's suffix."""
    name = file_name(run_id)
    assert "/" not in name
    assert "\\" not in name
    assert not name.startswith(".")
    assert len(f".{name}.json.".encode()) + 32 <= 255


def test_file_names_of_two_runs_differ():
    """No run overwrites another's record."""
    ids = ["a:b", "a+b", "a b", "a_b", "r" * 249 + "1", "r" * 249 + "2"]
    assert len({file_name(run_id) for run_id in ids}) == len(ids)


def test_file_name_of_an_ordinary_run_can_be_read():
    """A person finds a run's record by its run id."""
    assert file_name("scheduled__2026-11-22").startswith("scheduled__2026-11-22")
    assert file_name("manual__2026-11-22T21:00:00+00:00").startswith("manual__2026-11-22T21_00_00_00_00")


def test_digest_ignores_the_order_of_keys():
    """Equal values have equal digests."""
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of([1, 2]) != digest_of([2, 1])
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest_of("ü"))
    assert short(digest_of("ü")) == digest_of("ü")[7:19]


def test_kubectl_names_the_namespace():
    """The command can be pasted."""
    assert Target(conn_id="k", namespace="shop").kubectl("get pods") == "kubectl -n shop get pods"


def test_an_older_release_gets_the_default_grace(release):
    """A record that was written before the grace existed is read with the model file's default."""
    before = {name: value for name, value in to_dict(release).items() if name != "unschedulable_grace_s"}
    assert from_dict(Release, before).unschedulable_grace_s == TargetSettings().unschedulable_grace_s
