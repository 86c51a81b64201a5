"""Fixtures for the tests of the export: a SavedModel's folder, and a small program instead of the exporter."""

import os
from dataclasses import replace

import pytest


@pytest.fixture
def saved_model(tmp_path):
    """Makes a SavedModel's folder: `saved_model(name, content, mtime)`."""

    def make(name, content, *, mtime=1_700_000_000, empty=("assets",)):
        folder = tmp_path / name
        for path, data in content.items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            os.utime(place, (mtime, mtime))
        for path in empty:
            (folder / path).mkdir(parents=True, exist_ok=True)
        return folder

    return make


@pytest.fixture
def exporter(monkeypatch, tmp_path):
    """Replaces the exporter by a small program: `exporter(source)`."""

    def write(source):
        program = tmp_path / "program.py"
        program.write_text(source)
        monkeypatch.setattr("slipway.model.exporter.EXPORTER", program)

    return write


@pytest.fixture
def archive_release(release):
    """A release whose source is an archive, so that it needs no local folder."""
    source = replace(release.source, kind="savedmodel", location="https://x/m.tar.gz", revision=f"sha256:{'1' * 64}")
    return replace(release, source=source)
