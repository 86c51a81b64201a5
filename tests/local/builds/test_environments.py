"""How environments are built: from locks with hashes, their installer too."""

import hashlib
import os
import re
import zipfile
from pathlib import Path

import pytest

from local.builds.environments import ENVIRONMENTS, UV_LOCK, build_uv
from local.errors import StandError
from local.settings import Settings

PROJECT = Path(__file__).parents[3]
LOCKS = [UV_LOCK, "requirements.txt", *(environment.lock for environment in ENVIRONMENTS.values())]


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder with one wheel, a small `uv`, which pip takes all packages from."""
    wheel = tmp_path / "index" / "uv-0.0.1-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("uv/__init__.py", "")
        archive.writestr("uv-0.0.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: uv\nVersion: 0.0.1\n")
        archive.writestr("uv-0.0.1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("uv-0.0.1.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", os.fspath(wheel.parent))
    return wheel


def settings_with_lock(folder, digest):
    """The settings of a checkout whose lock has this hash for uv."""
    lock = folder / "checkout" / UV_LOCK
    lock.parent.mkdir(parents=True)
    lock.write_text(f"uv==0.0.1 --hash=sha256:{digest}\n")
    return Settings(checkout=folder / "checkout", cache=folder / "cache")


def test_uv_with_another_hash_is_refused(index, tmp_path):
    """An index that offers another file under the pinned version installs nothing."""
    settings = settings_with_lock(tmp_path, "0" * 64)
    with pytest.raises(StandError, match="DO NOT MATCH THE HASHES"):
        build_uv(settings)
    assert not list((settings.cache).glob("uv-*/complete"))


def test_uv_with_the_hash_of_its_lock_is_installed(index, tmp_path):
    """The file of the lock is installed, in a folder of this lock."""
    settings = settings_with_lock(tmp_path, hashlib.sha256(index.read_bytes()).hexdigest())
    assert build_uv(settings).parent.parent.joinpath("uv/__init__.py").exists()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_has_a_hash(lock):
    """Each pinned package is followed by at least one hash."""
    entries = re.split(r"^(?=[a-z0-9])", (PROJECT / lock).read_text(), flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_no_installer_is_named_without_a_hash():
    """Neither the stand nor a Dockerfile has pip install a package by version alone."""
    texts = [
        (PROJECT / name).read_text()
        for name in (
            "Dockerfile",
            "include/load/Dockerfile",
            "include/onnx_server/Dockerfile",
            "local/builds/environments.py",
        )
    ]
    assert not [found for text in texts for found in re.findall(r"\w+==\S+", text)]
