"""The builder without an engine, against a registry in memory; `tests/e2e/test_registry_builder.py` has a real one."""

import gzip
import json
from dataclasses import replace

import pytest
from writable_registry import OCI, WritableRegistry, digest_of

from slipway.errors import (
    ImagePushRefused,
    InputRefused,
    RegistryLoginRefused,
    RegistryUnreachable,
    RegistryUnusable,
    ResolveError,
)
from slipway.image import append
from slipway.image.append import append_image, check_repository, pin_base
from slipway.image.build import IMAGE_LABEL_BUILD, plan_image_labels
from slipway.image.registry_login import Login
from slipway.image.uploads import Uploads
from slipway.runtimes import RUNTIMES

LAYER = b"a tar of the model " * 5000
TENSORFLOW = RUNTIMES["tensorflow"]


@pytest.fixture
def registry():
    """A registry with the base image `serving/base:1`."""
    registry = WritableRegistry()
    registry.base_digest = registry.hold_image(
        "serving/base", "1", layers=(b"one", b"two"), env=("A=1", "MODEL_NAME=model")
    )
    yield registry
    registry.stop()


@pytest.fixture
def appended(registry, release, export, tmp_path):
    """The release on that base, and its export, whose layer is in the store."""
    (tmp_path / "model.tar").write_bytes(LAYER)
    return (
        replace(
            release,
            builder="registry",
            base_image=f"{registry.host}/serving/base:1",
            base_digest=registry.base_digest,
            repository=f"{registry.host}/shop/digits-vit",
        ),
        replace(export, model_uri=f"file://{tmp_path}/model.tar"),
    )


def image_of(registry, digest):
    """The manifest and the configuration of an image in the shop's repository."""
    manifest = json.loads(registry.manifests["shop/digits-vit"][digest])
    return manifest, json.loads(registry.blobs["shop/digits-vit"][manifest["config"]["digest"]])


def test_the_image_is_the_base_with_one_more_layer(registry, appended):
    """Of the base's configuration only the model's name, labels and what names the layer change."""
    pushed = append_image(*appended)
    manifest, config = image_of(registry, pushed.digest)
    base = json.loads(registry.manifests["serving/base"]["1"])
    before = json.loads(registry.blobs["serving/base"][base["config"]["digest"]])
    assert manifest["layers"][:-1] == base["layers"]
    assert gzip.decompress(registry.blobs["shop/digits-vit"][manifest["layers"][-1]["digest"]]) == LAYER
    assert config["rootfs"]["diff_ids"] == [*before["rootfs"]["diff_ids"], digest_of(LAYER)]
    assert config["config"]["Env"] == ["A=1", "MODEL_NAME=digits-vit"]
    assert {name: config["config"][name] for name in ("Cmd", "User")} == {"Cmd": ["serve"], "User": "1000"}
    labels = config["config"]["Labels"]
    assert {name: value for name, value in labels.items() if name != IMAGE_LABEL_BUILD} == plan_image_labels(*appended)
    assert len(config["history"]) == len(config["rootfs"]["diff_ids"]) - 1 + len(before["history"]) - 1


def test_the_pushed_image_is_what_the_tag_names(registry, appended):
    """The fact has the digest of the bytes in the registry, under a tag of its own."""
    release, export = appended
    pushed = append_image(release, export)
    [tag] = [name for name in registry.manifests["shop/digits-vit"] if not name.startswith("sha256:")]
    assert pushed.reference == f"{release.repository}@{pushed.digest}"
    assert digest_of(registry.manifests["shop/digits-vit"][tag]) == pushed.digest
    assert tag.startswith("v7-")
    assert pushed.release_id == release.release_id(pushed.digest)


def test_only_the_model_is_sent(registry, appended):
    """The base's layers are mounted in the same registry; made again, the image is the same and nothing is sent."""
    first = append_image(*appended)
    manifest, _ = image_of(registry, first.digest)
    sent = manifest["layers"][-1]["size"] + manifest["config"]["size"]
    assert registry.mounted == [digest_of(b"one"), digest_of(b"two")]
    assert (first.sent, registry.sent) == (sent, sent)
    again = append_image(replace(appended[0], force=True, run_id="another"), appended[1])
    assert (again.digest, again.sent, registry.sent) == (first.digest, 0, sent)


def test_layers_are_copied_once_if_they_cannot_be_mounted(registry, appended):
    """A registry may not mount, and a base may be in another one."""
    registry.mounts = False
    other = WritableRegistry()
    try:
        other.hold_image("serving/base", "1", layers=(b"one", b"two"), env=("A=1", "MODEL_NAME=model"))
        elsewhere = replace(appended[0], base_image=f"{other.host}/serving/base:1")
        first = append_image(elsewhere, appended[1])
        assert registry.sent == first.sent + len(b"onetwo")
        assert registry.blobs["shop/digits-vit"][digest_of(b"two")] == b"two"
        assert append_image(elsewhere, appended[1]).sent == 0
    finally:
        other.stop()


def test_an_index_leads_to_the_image_for_the_cluster(registry):
    """The pinned digest is the index's, as an engine pins it."""
    platforms = [("linux", "arm64", "sha256:" + "0" * 64), ("linux", "amd64", registry.base_digest)]
    entries = [{"digest": digest, "platform": {"os": system, "architecture": cpu}} for system, cpu, digest in platforms]
    kind = "application/vnd.oci.image.index.v1+json"
    digest = registry.hold_manifest(
        "serving/base", "many", {"schemaVersion": 2, "mediaType": kind, "manifests": entries}
    )
    assert pin_base(f"{registry.host}/serving/base:many", None, TENSORFLOW) == digest
    del entries[1]
    registry.hold_manifest("serving/base", "arm", {"schemaVersion": 2, "mediaType": kind, "manifests": entries})
    with pytest.raises(ResolveError, match=r"^base image .*:arm: has no image for linux/amd64\. Next: "):
        pin_base(f"{registry.host}/serving/base:arm", None, TENSORFLOW)


def test_a_base_is_pinned_and_judged(registry):
    """A missing one is refused, and so is the server of another runtime."""
    assert pin_base(f"{registry.host}/serving/base:1", None, TENSORFLOW) == registry.base_digest
    with pytest.raises(ResolveError, match=r"its registry has no such image\. Next: check image\.base"):
        pin_base(f"{registry.host}/serving/base:2", None, TENSORFLOW)
    registry.hold_image("serving/onnx", "1", labels={"slipway.runtime": "onnxruntime"})
    with pytest.raises(InputRefused, match=r"slipway\.runtime says onnxruntime"):
        pin_base(f"{registry.host}/serving/onnx:1", None, TENSORFLOW)


def test_no_image_is_made_on_a_base_of_another_runtime(registry, appended):
    """The labels are judged when the image is made, too: a run may be cleared after its settings have changed."""
    digest = registry.hold_image("serving/base", "1", labels={"slipway.runtime": "onnxruntime"})
    with pytest.raises(InputRefused, match=r"slipway\.runtime says onnxruntime"):
        append_image(replace(appended[0], base_digest=digest), appended[1])
    assert "shop/digits-vit" not in registry.manifests


REFUSALS = {
    "no login": (401, RegistryLoginRefused),
    "no right": (403, RegistryLoginRefused),
    "an outage": (503, RegistryUnreachable),
    "too many requests": (429, RegistryUnreachable),
    "no such repository": (404, ImagePushRefused),
}


@pytest.mark.parametrize(("status", "error"), REFUSALS.values(), ids=REFUSALS)
def test_a_refused_upload_says_what_to_do(registry, appended, status, error):
    """One line; nothing has a tag, so that nothing can be deployed."""
    registry.mounts = False
    registry.refuses = lambda method, _path: status if method == "PUT" else None
    with pytest.raises(error, match=r"^push .*Next: "):
        append_image(*appended)
    assert "shop/digits-vit" not in registry.manifests


@pytest.mark.parametrize(("status", "error"), [(401, RegistryLoginRefused), (503, RegistryUnreachable)])
def test_a_registry_that_cannot_be_used_is_refused_before_the_export(registry, status, error):
    """A repository that does not exist yet, or that may only be written, is no reason."""
    repository = f"{registry.host}/shop/digits-vit"
    check_repository(repository, None)
    registry.refuses = lambda *_: 403
    check_repository(repository, None)
    registry.refuses = lambda *_: status
    with pytest.raises(error, match=r"^registry of .*Next: "):
        check_repository(repository, None)


def test_an_unreachable_registry_can_be_retried(registry, appended):
    """Nobody listens at the port."""
    registry.stop()
    registry.server.server_close()
    with pytest.raises(RegistryUnreachable, match=r"Next: curl the registry"):
        append_image(*appended)


@pytest.fixture
def logged_in(registry, monkeypatch):
    """The registry wants a login, and the connection has it."""
    registry.login = "Basic bWU6aGZfc2VjcmV0"  # me:hf_secret
    login = Login(conn_id="shop", hosts=(registry.host,), user="me", password="hf_secret")
    monkeypatch.setattr(append, "find_login", lambda *_: login)
    return login


def test_the_login_is_given_to_the_repositorys_registry(registry, appended, logged_in):
    """For the base too, if it is in the same registry."""
    assert append_image(*appended).sent > 0
    assert pin_base(f"{registry.host}/serving/base:1", logged_in, TENSORFLOW) == registry.base_digest


def test_the_login_does_not_follow_an_upload_to_another_host(registry, appended, logged_in):
    """A registry that names another host for uploads is refused, and that host is never asked."""
    other = WritableRegistry()
    try:
        registry.location = f"http://{other.host}/v2/shop/digits-vit/blobs/uploads/1"
        with pytest.raises(ImagePushRefused, match="wants an upload at another host"):
            append_image(*appended)
        assert other.logins == []
    finally:
        other.stop()


def test_a_base_elsewhere_gets_no_login(registry, appended, logged_in):
    """The login is for the repository's registry only."""
    other = WritableRegistry()
    try:
        other.hold_image("serving/base", "1", layers=(b"one", b"two"), env=("A=1", "MODEL_NAME=model"))
        append_image(replace(appended[0], base_image=f"{other.host}/serving/base:1"), appended[1])
        assert set(other.logins) == {None}
    finally:
        other.stop()


def test_a_registry_that_holds_something_else_is_noticed(registry, appended):
    """After the push the tag is read back."""
    real = registry.hold_manifest(
        "shop/digits-vit", "other", {"schemaVersion": 2, "mediaType": OCI, "config": {}, "layers": []}
    )
    registry.refuses = lambda method, path: 201 if method == "PUT" and "/manifests/" in path else None
    with pytest.raises(ImagePushRefused, match=r"but the registry has None\. Next: clear push"):
        append_image(*appended)
    assert real in registry.manifests["shop/digits-vit"]


def test_an_endless_answer_ends(appended, mean_server, monkeypatch):
    """Also from a registry that takes uploads: a request ends after a total time, or at a largest size."""
    monkeypatch.setattr("slipway.image.uploads.TOTAL_S", 1)
    with (
        pytest.raises(RegistryUnusable, match=r"Next: check that the worker reaches the registry"),
        Uploads(f"{mean_server.url.removeprefix('http://')}/shop/digits-vit", None) as target,
    ):
        target.send_manifest("v1", '{"mediaType": "x"}')
