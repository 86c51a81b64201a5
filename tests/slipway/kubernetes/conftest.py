"""What the tests of manifests share."""

import shutil

import pytest
import yaml

from slipway.kubernetes import kustomize


@pytest.fixture
def overlay(monkeypatch, tmp_path):
    """Writes an overlay `mine` next to copies of the real ones."""
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
