import shutil

import pytest

from slipway.errors import ExportError, ResolveError
from slipway.model.bucket import bucket_hash, fetch_from_bucket
from slipway.model.content import content_hash
from slipway.model.served import parse_model_file
from slipway.model.source_settings import FolderSource
from slipway.records.store import Store
from slipway.release import Source
from slipway.steps.resolve import resolve_source

GOLDEN = {"golden": [{"name": "three", "image": "digits-vit/golden/three.png", "label": "3"}]}


@pytest.fixture
def place(tmp_path, digits_checkpoint):
    """A folder with a checkpoint and a nested file, and its URI."""
    folder = shutil.copytree(digits_checkpoint, tmp_path / "objects" / "checkpoint")
    (folder / "nested").mkdir()
    (folder / "nested" / "labels.txt").write_text("three")
    (tmp_path / "objects" / "checkpoint-2").mkdir()
    (tmp_path / "objects" / "checkpoint-2" / "other.txt").touch()
    return folder, f"file://{folder}"


def test_hash_is_the_same_as_of_a_local_folder(place):
    """A checkpoint's revision does not depend on where the checkpoint is."""
    folder, uri = place
    assert content_hash(folder) == bucket_hash(uri) == bucket_hash(f"{uri}/")


def test_objects_are_fetched_unchanged(place, tmp_path):
    """Every object below the URI is fetched with its name and content, and no object of a similar name."""
    folder, uri = place
    fetch_from_bucket(uri, tmp_path / "fetched")
    assert content_hash(folder) == content_hash(tmp_path / "fetched")


def test_source_by_uri_is_pinned_to_its_content(place):
    """A folder by URI is pinned to the same hash as a local folder."""
    folder, uri = place
    file = parse_model_file({"source": {"folder": "gs://BUCKET/checkpoint"}, "gate": GOLDEN}, where="m.yaml")
    local = FolderSource.model_construct(folder=uri, allow=())  # a model file may not name a path of the worker
    file = file.model_copy(update={"source": local})
    assert Source(kind="objects", location=uri, revision=content_hash(folder)) == resolve_source(file, None)


@pytest.mark.stand
@pytest.mark.alongside
@pytest.mark.parametrize("kind", ["bucket", "s3_bucket", "azure_bucket"])
def test_objects_of_a_bucket_are_fetched_unchanged(place, kind, tmp_path, request):
    """A checkpoint in a bucket has the same hash and content as the same files in a folder."""
    folder, _ = place
    bucket = request.getfixturevalue(kind)
    store, uri = Store(f"{bucket}/models"), f"{bucket}/models/checkpoint"
    for path in (path for path in folder.rglob("*") if path.is_file()):
        store.put_file(path, f"checkpoint/{path.relative_to(folder).as_posix()}")
    store.put_json({}, "checkpoint-2/other.json")
    assert content_hash(folder) == bucket_hash(uri)
    fetch_from_bucket(uri, tmp_path / "fetched")
    assert content_hash(folder) == content_hash(tmp_path / "fetched")
    store.put_json({}, "checkpoint/config.json")
    assert content_hash(folder) != bucket_hash(uri)


@pytest.mark.stand
@pytest.mark.alongside
def test_object_outside_the_folder_is_refused(bucket, tmp_path):
    """An object may have any name. A name that leads outside the folder is refused."""
    Store(bucket).put_json({}, "models/checkpoint/../../evil")
    with pytest.raises(ExportError, match=r"its object '\.\./\.\./evil' would be written outside the folder\. Next: "):
        fetch_from_bucket(f"{bucket}/models/checkpoint", tmp_path / "fetched")
    assert list(tmp_path.rglob("evil")) == []


@pytest.mark.parametrize("uri", ["file:///nowhere/checkpoint", "nonsense://bucket/checkpoint", "gs://nowhere@bucket/x"])
def test_refused_in_one_line_if_there_is_nothing_to_read(uri, tmp_path):
    """An empty folder, an unknown scheme and a missing connection are refused; the message names field and URI."""
    with pytest.raises(ResolveError, match=rf"^source\.folder {uri}: cannot be read: .*Next: check the URI") as refusal:
        bucket_hash(uri)
    assert "\n" not in str(refusal.value)
    with pytest.raises(ExportError, match=rf"^source\.folder {uri}: cannot be read: "):
        fetch_from_bucket(uri, tmp_path / "fetched")
