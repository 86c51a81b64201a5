"""Fixtures for the tests of the export: a SavedModel's folder, and a small program instead of the exporter."""

import os
from dataclasses import replace

import pytest
from exporter_programs import replace_program


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


FETCHER = """
import json, sys
from pathlib import Path
source = json.loads(Path(sys.argv[2]).read_text())["source"]
Path(source["kept"]).mkdir() if source["kind"] == "hub" else Path(source["kept"]).touch()
"""


@pytest.fixture
def exporter(monkeypatch, tmp_path):
    """Replaces the exporter's two programs by small ones: `exporter(source)`, `exporter(source, fetcher=source)`."""

    def write(source, *, fetcher=FETCHER):
        for name, text in {"exporter": source, "fetcher": fetcher}.items():
            program = tmp_path / f"{name}.py"
            program.write_text(text)
            replace_program(monkeypatch, name, program)

    return write


@pytest.fixture
def archive_release(release):
    """A release whose source is an archive, so that it needs no local folder."""
    source = replace(release.source, kind="savedmodel", location="https://x/m.tar.gz", revision=f"sha256:{'1' * 64}")
    return replace(release, source=source)
