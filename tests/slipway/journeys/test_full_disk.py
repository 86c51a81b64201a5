"""Full disks: real, small file systems in memory for the store, the worker and a Docker Engine of this test."""

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
from exporter_programs import replace_program

from slipway.errors import ImageBuildFailed, ScratchFull, StoreError
from slipway.facts import Export
from slipway.image.build import build_image
from slipway.image.engine import engine
from slipway.model.content import content_hash
from slipway.model.export import keep_export, run_export
from slipway.model.exporter import WorkerHost
from slipway.paths import INCLUDE
from slipway.records.store import Store
from slipway.release import Source

pytestmark = [pytest.mark.stand, pytest.mark.alongside]  # mounts, as the stand does

MIB = 1024 * 1024
READY_S = 300  # far more than it takes, also on a busy machine


@pytest.fixture
def disk(tmp_path):
    """Makes a disk of this size in KiB: `disk(1024)` returns its folder."""
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
    """Makes the worker's temporary folder a disk of this size in KiB."""

    def use(size_kib):
        folder = disk(size_kib)
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        monkeypatch.setenv("TMPDIR", str(folder))
        return folder

    return use


@pytest.fixture
def results(tmp_path):
    """An exporter's results for a model of 3 MiB."""
    out = tmp_path / "out"
    for name in ("savedmodel", "golden/three"):
        (out / name).mkdir(parents=True)
    (out / "savedmodel/saved_model.pb").write_bytes(os.urandom(3 * MIB))
    case = {"name": "three", "label": "3", "min_confidence": 0.8, "reference": None}
    (out / "golden/three/case.json").write_text(json.dumps(case))
    for name in ("golden/three/rest.json", "golden/three/grpc.bin", "descriptors.bin"):
        (out / name).write_text("{}")
    (out / "export.json").write_text('{"sandbox": "none"}')
    (out / "card").mkdir()
    (out / "card/README.md").write_text("# digits-vit")
    (out / "card/card.json").write_text(json.dumps({"parity": None, "parameters": 181_194, "bytes": 2_000_000}))
    return out


def refused(kind, folder, act, *args, **options):
    """Check that the act is refused in one line with the folder, its free space and what to do next."""
    with pytest.raises(kind, match=rf"{folder}.*: its disk is full: \d+ of \d+ MiB are free\. Next: ") as refusal:
        act(*args, **options)
    assert "\n" not in str(refusal.value)


def files_of(folder):
    """The relative paths of all files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_nothing_half_written_if_the_store_is_full(disk, release, results):
    """An export that does not fit into the store leaves only its claimed number there, and succeeds once there is space."""
    folder = disk(2048)
    store = Store(f"file://{folder}/store")
    refused(StoreError, f"{folder}/store", keep_export, release, results, store)
    assert files_of(folder) == ["store/versions/digits-vit/1.json"]
    subprocess.run(["mount", "-o", "remount,size=8m", folder], check=True)
    kept = keep_export(release, results, store)
    assert kept.version == 1
    assert content_hash(results / "savedmodel") == kept.content_hash


@pytest.mark.parametrize("act", ["put_json", "claim"])
def test_older_value_is_kept_if_the_store_is_full(disk, act):
    """A record that cannot be written leaves the older one unchanged, and no draft."""
    folder = disk(256)
    store = Store(f"file://{folder}/store")
    store.put_json({"n": 1}, "records/1.json")
    key = "records/1.json" if act == "put_json" else "records/2.json"
    put = {"put_json": lambda: store.put_json("x" * MIB, key), "claim": lambda: store.claim(key, "x" * MIB)}[act]
    refused(StoreError, f"{folder}/store", put)
    assert files_of(folder) == ["store/records/1.json"]
    assert store.read_json("records/1.json") == {"n": 1}


WRITE = """
import os, sys, pathlib
place = pathlib.Path(os.environ["TMPDIR"])
try:
    (place / "saved_model.pb").write_bytes(bytes(4 * 1024 * 1024))
except OSError as error:
    sys.exit(f"source: {error}. Next: check the network")
"""


@pytest.mark.parametrize("program", ["fetcher", "exporter"])
def test_worker_named_if_the_exporter_has_no_space(temporary, store, release, monkeypatch, tmp_path, program):  # noqa: PLR0917 - fixtures
    """The message names the full temporary folder, whatever the program blames. The folder and the store are empty afterwards."""
    folder = temporary(1024)
    (tmp_path / "program.py").write_text(WRITE)
    replace_program(monkeypatch, program, tmp_path / "program.py")
    source = Source(kind="hub", location="me/vit", revision="a" * 40)
    if program == "exporter":
        source = replace(release.source, revision=content_hash(INCLUDE / "served" / release.source.location))
    refused(ScratchFull, folder, run_export, replace(release, source=source), WorkerHost(sys.executable))
    assert files_of(folder) == []
    assert files_of(Path(store.uri.removeprefix("file://"))) == []


def test_worker_named_if_the_layer_has_no_space(temporary, store, release, results):
    """The archive of the SavedModel needs the same space again, on the worker."""
    folder = temporary(1024)
    refused(ScratchFull, folder, keep_export, release, results, store)
    assert files_of(folder) == []


@pytest.mark.slow
@pytest.mark.model
def test_worker_named_if_the_real_exporter_has_no_space(temporary, store, release, model_python):
    """TensorFlow's error for a full disk names neither folder nor remedy. Slipway's message names both."""
    folder = temporary(512)
    source = replace(release.source, revision=content_hash(INCLUDE / "served" / release.source.location))
    refused(ScratchFull, folder, run_export, replace(release, source=source), WorkerHost(str(model_python)))
    assert files_of(folder) == []
    assert files_of(Path(store.uri.removeprefix("file://"))) == []


@pytest.fixture
def small_engine(disk, tmp_path, monkeypatch):
    """A Docker Engine of this test, on a disk of 32 MiB."""
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
    """The release, on a base image of a few bytes in the small engine."""
    serve = ['ENTRYPOINT ["/base"]']
    small_engine.import_image_from_data(_tar("base", 4), repository="base", tag="1", changes=serve)
    image_id = small_engine.inspect_image("base:1")["Id"]
    monkeypatch.setattr(type(release), "base_reference", image_id)  # it was never pushed, so it has no digest
    return release


def test_no_container_is_left_if_the_engine_is_full(small_engine, based, tmp_path):
    """A model that does not fit into the engine leaves no container and no image. The message says how to make space."""
    with engine(based) as client:
        with pytest.raises(ImageBuildFailed, match=r"no space left on device.*Next: .*docker image prune") as refusal:
            build_image(client, based, _export_of(tmp_path, 64 * MIB))
        assert "\n" not in str(refusal.value)
        assert client.containers(all=True) == []
        assert [image["RepoTags"] for image in client.images(all=True)] == [["base:1"]]
        assert build_image(client, based, _export_of(tmp_path, 64)).version == 1


def test_no_container_is_left_if_the_worker_is_full(small_engine, based, temporary, tmp_path):
    """A layer that does not fit on the worker leaves no container on the engine."""
    folder = temporary(1024)
    with engine(based) as client:
        refused(ScratchFull, folder, build_image, client, based, _export_of(tmp_path, 4 * MIB))
        assert client.containers(all=True) == []
    assert files_of(folder) == []
