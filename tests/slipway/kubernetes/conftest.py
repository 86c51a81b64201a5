"""What the tests of manifests share."""

import shutil

import pytest
import yaml

from slipway.kubernetes import kustomize


@pytest.fixture
def overlay(monkeypatch, tmp_path):
    """Writes an overlay beside a copy of the real ones; kustomize renders it as it renders those."""
    folder = tmp_path / "manifests"
    shutil.copytree(kustomize.MANIFESTS, folder)
    monkeypatch.setattr(kustomize, "MANIFESTS", folder)

    def write(*patches, **fields):
        place = folder / "overlays" / "mine"
        place.mkdir()
        kustomization = {
            "resources": ["../../base"],
            "patches": [{"patch": yaml.safe_dump(patch)} for patch in patches],
            **fields,
        }
        (place / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return place

    return write
