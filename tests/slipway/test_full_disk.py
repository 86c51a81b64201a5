"""Full disks, real ones: small file systems of memory for the store, the worker and an engine of this test's own."""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from slipway import export as export_module
from slipway.engine import engine
from slipway.errors import ImageBuildFailed, ScratchFull, StoreError
from slipway.export import Export, keep_export, run_export
from slipway.folders import content_hash
from slipway.image import build_image
from slipway.model_file import SERVED
from slipway.release import Source
from slipway.store import Store

pytestmark = [pytest.mark.stand, pytest.mark.alongside]  # mounts, as the stand does

MIB = 1024 * 1024
READY_S = 300


@pytest.fixture
def disk(tmp_path):
    """Makes a disk of so many KiB: `disk(1024)` is its folder."""
    mounted = []

    def mount(size_kib):
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "slipway-test", folder], check=True)
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def temporary(disk, monkeypatch):
    """Makes the worker's temporary folder a disk of so many KiB."""

    def use(size_kib):
        folder = disk(size_kib)
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        monkeypatch.setenv("TMPDIR", str(folder))
        return folder

    return use


@pytest.fixture
def left(tmp_path):
    """What an exporter leaves of a model of 3 MiB."""
    out = tmp_path / "out"
    for name in ("savedmodel", "golden/three"):
        (out / name).mkdir(parents=True)
    (out / "savedmodel/saved_model.pb").write_bytes(os.urandom(3 * MIB))
    case = {"name": "three", "label": "3", "min_confidence": 0.8, "reference": None}
    (out / "golden/three/case.json").write_text(json.dumps(case))
    for name in ("golden/three/rest.json", "golden/three/grpc.bin", "descriptors.bin", "export.json"):
        (out / name).write_text("{}")
    (out / "card").mkdir()
    (out / "card/README.md").write_text("# digits-vit")
    (out / "card/card.json").write_text(json.dumps({"parity": None, "parameters": 181_194, "bytes": 2_000_000}))
    return out


def refused(kind, folder, act, *words, **options):
    """The act is refused in one line that names the folder, what is free there and what next."""
    with pytest.raises(kind, match=rf"{folder}.*: its disk is full: \d+ of \d+ MiB are free\. Next: ") as refusal:
        act(*words, **options)
    assert "\n" not in str(refusal.value)


def files_of(folder):
    """Every file below a folder, by its path there."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_nothing_half_written_if_the_store_is_full(disk, release, left):
    """An export that the store has no room for leaves its claimed number alone, and goes through once there is room."""
    folder = disk(2048)
    store = Store(f"file://{folder}/store")
    refused(StoreError, f"{folder}/store", keep_export, release, left, store)
    assert files_of(folder) == ["store/versions/digits-vit/1.json"]
    subprocess.run(["mount", "-o", "remount,size=8m", folder], check=True)
    kept = keep_export(release, left, store)
    assert kept.version == 1
    assert content_hash(left / "savedmodel") == kept.content_hash


@pytest.mark.parametrize("act", ["put_json", "claim"])
def test_older_value_stays_if_the_store_is_full(disk, act):
    """A record that cannot be written leaves the one before it as it was, and no draft."""
    folder = disk(256)
    store = Store(f"file://{folder}/store")
    store.put_json({"n": 1}, "records/1.json")
    key = "records/1.json" if act == "put_json" else "records/2.json"
    put = {"put_json": lambda: store.put_json("x" * MIB, key), "claim": lambda: store.claim(key, "x" * MIB)}[act]
    refused(StoreError, f"{folder}/store", put)
    assert files_of(folder) == ["store/records/1.json"]
    assert store.read_json("records/1.json") == {"n": 1}


WRITE = """
import sys, pathlib
place = pathlib.Path(sys.argv[4])
place.mkdir()
try:
    (place / "saved_model.pb").write_bytes(bytes(4 * 1024 * 1024))
except OSError as error:
    sys.exit(f"source: {error}. Next: check the network")
"""


def test_worker_named_if_the_exporter_has_no_room(temporary, store, release, monkeypatch, tmp_path):
    """Whatever the exporter blames, a full temporary folder is what the line names; it is empty again, and the store too."""
    folder = temporary(1024)
    (tmp_path / "program.py").write_text(WRITE)
    monkeypatch.setattr(export_module, "EXPORTER", tmp_path / "program.py")
    source = Source(kind="hub", location="me/vit", revision="a" * 40)
    refused(ScratchFull, folder, run_export, replace(release, source=source), python=sys.executable)
    assert files_of(folder) == []
    assert files_of(Path(store.uri.removeprefix("file://"))) == []


def test_worker_named_if_the_layer_has_no_room(temporary, store, release, left):
    """The archive of the SavedModel needs as much room again, on the worker."""
    folder = temporary(1024)
    refused(ScratchFull, folder, keep_export, release, left, store)
    assert files_of(folder) == []


@pytest.mark.model
def test_worker_named_if_the_real_exporter_has_no_room(temporary, store, release, model_python):
    """TensorFlow's own words for a full disk, which name neither folder nor cure, become the line that does."""
    folder = temporary(512)
    source = replace(release.source, revision=content_hash(SERVED / release.source.location))
    refused(ScratchFull, folder, run_export, replace(release, source=source), python=str(model_python))
    assert files_of(folder) == []
    assert files_of(Path(store.uri.removeprefix("file://"))) == []


@pytest.fixture
def small_engine(disk, tmp_path, monkeypatch):
    """A Docker Engine of this test's own on a disk of 32 MiB, with a base image of a few bytes."""
    data, url = disk(32 * 1024), f"unix://{tmp_path}/docker.sock"
    command = [
        "dockerd", "--host", url, "--data-root", f"{data}/docker", "--exec-root", f"{tmp_path}/exec", "--pidfile",
        f"{tmp_path}/docker.pid", "--storage-driver", "vfs", "--bridge", "none", "--iptables=false", "--ip6tables=false",
        "--ip-forward=false", "--ip-masq=false", "--config-file", f"{tmp_path}/docker.json",
    ]  # fmt: skip
    (tmp_path / "docker.json").write_text("{}")
    with (tmp_path / "docker.log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        client = docker.APIClient(base_url=url, version="1.41")
        try:
            end_s = time.monotonic() + READY_S
            while not (Path(f"{tmp_path}/docker.sock").exists() and _pings(client)):
                assert time.monotonic() < end_s, (tmp_path / "docker.log").read_text()[-2000:]
                time.sleep(0.1)
            monkeypatch.setenv("AIRFLOW_CONN_DOCKER_DEFAULT", json.dumps({"conn_type": "docker", "host": url}))
            yield client
        finally:
            client.close()
            process.terminate()


def _pings(client):
    try:
        return client.ping()
    except docker.errors.DockerException:
        return False


def _tar(name, size):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = size
        tar.addfile(entry, io.BytesIO(bytes(size)))
    return packed.getvalue()


def _export_of(tmp_path, size):
    place = tmp_path / f"{size}.tar"
    place.write_bytes(_tar("models/digits-vit/1/saved_model.pb", size))
    uris = dict.fromkeys(("golden_uri", "descriptors_uri", "report_uri"), "file:///none")
    return Export(version=1, content_hash=f"sha256:{'c' * 64}", model_uri=f"file://{place}", **uris)


@pytest.fixture
def based(small_engine, release, monkeypatch):
    """The release on the small engine's own base image."""
    serve = ['ENTRYPOINT ["/base"]']
    small_engine.import_image_from_data(_tar("base", 4), repository="base", tag="1", changes=serve)
    image_id = small_engine.inspect_image("base:1")["Id"]
    monkeypatch.setattr(type(release), "base_reference", image_id)  # it was never pushed, so it has no digest
    return release


def test_no_container_stays_if_the_engine_is_full(small_engine, based, tmp_path):
    """A model that the engine has no room for leaves no container and no image, and the line says how to make room."""
    with engine(based) as client:
        with pytest.raises(ImageBuildFailed, match=r"no space left on device.*Next: .*docker image prune") as refusal:
            build_image(client, based, _export_of(tmp_path, 64 * MIB))
        assert "\n" not in str(refusal.value)
        assert client.containers(all=True) == []
        assert [image["RepoTags"] for image in client.images(all=True)] == [["base:1"]]
        assert build_image(client, based, _export_of(tmp_path, 64)).version == 1


def test_no_container_stays_if_the_worker_is_full(small_engine, based, temporary, tmp_path):
    """A layer that the worker has no room for on its way to the engine leaves no container there either."""
    folder = temporary(1024)
    with engine(based) as client:
        refused(ScratchFull, folder, build_image, client, based, _export_of(tmp_path, 4 * MIB))
        assert client.containers(all=True) == []
    assert files_of(folder) == []
