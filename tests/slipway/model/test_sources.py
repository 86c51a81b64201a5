import hashlib
import io
import shutil
import sys
import tarfile
from dataclasses import replace

import pytest
from hub_stub import REPO, REVISION

from slipway.errors import ExportError, SourceUnreachable
from slipway.model.bucket import bucket_hash
from slipway.model.content import content_hash
from slipway.model.export import run_export
from slipway.model.exporter import WorkerHost, exporter_hash
from slipway.model.sources import fetch_source
from slipway.records.store import Store, read_json
from slipway.release import GoldenRequest, Source
from slipway.runtimes import TENSORFLOW

LABELS = {"three": "3", "seven": "7", "eight": "8"}
GOLDEN = tuple(
    GoldenRequest(name=name, image=f"digits-vit/golden/{name}.png", sha256=None, label=label, min_confidence=0.8)
    for name, label in LABELS.items()
)  # the same as in the shared export: the SavedModel contains their bytes, for the warmup


@pytest.fixture
def release_of(release):
    """Makes a release of digits-vit from this source."""

    def make(**source):
        return replace(release, source=Source(**source), exporter=exporter_hash(TENSORFLOW), golden=GOLDEN)

    return make


def test_refused_if_the_objects_changed_since(release_of, store, digits_checkpoint, tmp_path):
    """The export fails if the source is not the one that the run resolved."""
    folder = shutil.copytree(digits_checkpoint, tmp_path / "objects")
    release = release_of(kind="objects", location=f"file://{folder}", revision=bucket_hash(f"file://{folder}"))
    (folder / "config.json").write_text("{}")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(ExportError, match=rf"^file://{folder}: its content is .* clear the run from resolve$"):
        fetch_source(release, store, scratch)


def test_copy_is_used_if_the_store_has_one(release_of, store, digits_checkpoint, tmp_path):
    """Upstream is not asked for a revision of which the store has a copy."""
    from slipway.model.content import pack_folder

    release = release_of(kind="objects", location="gs://gone", revision=content_hash(digits_checkpoint))
    store.put_file(pack_folder(digits_checkpoint, tmp_path / "copy.tar"), release.source.kept_key("digits-vit"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert {"kind": "folder", "path": str(scratch / "source"), "allow": []} == fetch_source(release, store, scratch)


@pytest.mark.slow
@pytest.mark.model
def test_hub_model_is_exported_again_when_the_hub_is_gone(  # noqa: PLR0917 (fixtures)
    release_of, store, hub, digits_checkpoint, model_python, monkeypatch, caplog
):
    """A gated model is fetched with a connection's token. Its revision is kept in the store, so that a forced export needs no Hub."""
    hub.add(digits_checkpoint, gated=True, readers={"hf_reader"})
    monkeypatch.setenv("AIRFLOW_CONN_HUB", '{"conn_type": "http", "password": "hf_reader"}')
    release = release_of(kind="hub", location=REPO, revision=REVISION, token_conn_id="hub")
    first = run_export(release, WorkerHost(str(model_python)))
    assert store.names("sources/digits-vit") == [f"{REVISION}.tar"]
    assert read_json(first.report_uri)["source"] == {"kind": "hub", "repo": REPO, "revision": REVISION}
    assert "hf_reader" not in caplog.text
    hub.close()
    asked = len(hub.asked)
    again = run_export(replace(release, force=True), WorkerHost(str(model_python)))
    assert (first.version, first.content_hash) == (again.version, again.content_hash)
    assert len(hub.asked) == asked


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.stand
@pytest.mark.alongside
def test_checkpoint_in_a_bucket_is_exported_into_a_bucket(
    release_of, bucket, digits_checkpoint, digits_export, model_python
):
    """Source and store may both be in Cloud Storage. A forced export gives the same content after the source has changed."""
    upstream, store = Store(f"{bucket}/upstream"), Store(f"{bucket}/slipway")
    for path in digits_checkpoint.iterdir():
        upstream.put_file(path, f"digits/{path.name}")
    location = upstream.uri_of("digits")
    release = replace(release_of(kind="objects", location=location, revision=bucket_hash(location)), store=store.uri)
    first = run_export(release, WorkerHost(str(model_python)))
    assert content_hash(digits_export / "savedmodel") == first.content_hash
    assert first == run_export(release, WorkerHost("/not/needed"))
    upstream.put_json({}, "digits/config.json")
    assert first == run_export(replace(release, force=True), WorkerHost(str(model_python)))


@pytest.mark.model
def test_unreachable_hub_can_be_retried(release_of, model_python):
    """An export whose Hub did not respond raises an error that Airflow retries."""
    release = release_of(kind="hub", location=REPO, revision=REVISION)
    with pytest.raises(SourceUnreachable, match=rf"^exporter ended with status 75: source: {REPO} at .*Next: "):
        run_export(release, WorkerHost(str(model_python)))


@pytest.fixture
def archive(tmp_path, digits_export):
    """A SavedModel of digits-vit as tar.gz."""
    file = tmp_path / "model.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        tar.add(digits_export / "savedmodel", "digits/1")
    return file


def archive_of(release_of, file, **changes):
    """A release whose source is this archive."""
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return release_of(**{"kind": "savedmodel", "location": file.as_uri(), "revision": f"sha256:{sha256}", **changes})


@pytest.mark.slow
@pytest.mark.model
def test_archive_is_exported_again_when_it_is_gone(release_of, store, archive, digits_export, model_python):
    """An archive's SavedModel is exported unchanged, and a copy of the archive is kept for a forced export."""
    release = archive_of(release_of, archive)
    first = run_export(release, WorkerHost(str(model_python)))
    assert content_hash(digits_export / "savedmodel") == first.content_hash
    kept = f"sources/digits-vit/{release.source.revision.removeprefix('sha256:')}.tar.gz"
    assert store.exists(kept)
    archive.unlink()
    assert first == run_export(replace(release, force=True), WorkerHost(str(model_python)))


@pytest.mark.model
def test_archive_with_a_member_outside_is_refused(release_of, store, archive, model_python, tmp_path):
    """A member outside the archive's folder ends the export. Nothing is written outside, and no copy is kept."""
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("../../evil")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(ExportError, match=r"its member '\.\./\.\./evil' would escape\. Next: "):
        run_export(archive_of(release_of, archive), WorkerHost(str(model_python)))
    assert list(tmp_path.rglob("evil")) == []
    assert store.names("sources/digits-vit") == store.names("exports/digits-vit") == []


@pytest.mark.model
def test_archive_with_another_sha256_is_refused(release_of, store, archive, model_python):
    """An archive with another hash than the model file's is not opened, and no copy is kept."""
    release = archive_of(release_of, archive, revision=f"sha256:{'0' * 64}")
    with pytest.raises(ExportError, match=rf"its sha256 is not {'0' * 64}\. Next: "):
        run_export(release, WorkerHost(str(model_python)))
    assert store.names("sources/digits-vit") == []


def test_refused_if_the_worker_has_another_checkpoint(release, exporter):
    """A worker whose folder differs from the resolved one exports nothing."""
    exporter("")
    with pytest.raises(
        ExportError,
        match=r"include/served/digits-vit/checkpoint: its content is .* but 1{12} when the run was resolved\. Next: ",
    ):
        run_export(release, WorkerHost(sys.executable))
