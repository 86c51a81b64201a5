"""Where model files and overlays are looked for."""

import sys
from pathlib import Path

import pytest

from slipway.errors import InputRefused
from slipway.model.served import read_model_file, served_files
from slipway.paths import INCLUDE, manifests_folders, model_file, shown, user_folder


def test_a_checkout_needs_no_setting():
    """Its own `include` has both; the manifests are then read from one folder."""
    assert user_folder() == INCLUDE
    assert manifests_folders() == (INCLUDE / "manifests",)
    assert shown(model_file("hf-vit")) == "include/served/hf-vit.yaml"


def test_an_absolute_folder_is_taken_as_it_is(users_folder):
    """Such as a folder that git-sync fills; messages name it by its last part. The shipped base stays in reach."""
    (users_folder / "served" / "mine.yaml").touch()
    (users_folder / "manifests").mkdir()
    assert served_files() == [users_folder / "served" / "mine.yaml"]
    assert manifests_folders() == (users_folder / "manifests", INCLUDE / "manifests")
    with pytest.raises(InputRefused, match=rf"^{users_folder.name}/served/mine\.yaml: has no fields"):
        read_model_file(model_file("mine"))


def test_a_relative_folder_is_looked_for_in_the_dag_bundle_first(monkeypatch, tmp_path):
    """Airflow appends the bundle to `sys.path`: a run of an older version of a bundle in git reads that version's model files."""
    home, bundle = tmp_path / "home", tmp_path / "bundle"
    monkeypatch.setenv("AIRFLOW_HOME", str(home))
    monkeypatch.setenv("AIRFLOW__SLIPWAY__FOLDER", "models")
    monkeypatch.setattr(sys, "path", [*sys.path, str(bundle)])
    assert user_folder() == home / "models"
    (home / "models" / "served").mkdir(parents=True)
    assert user_folder() == home / "models"
    (bundle / "models" / "served").mkdir(parents=True)
    assert user_folder() == bundle / "models"


def test_users_may_write_variables_and_a_tilde(monkeypatch, tmp_path):
    """As in Airflow's own settings of folders."""
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__SLIPWAY__FOLDER", "$HERE/models")
    assert user_folder() == tmp_path / "models"
    monkeypatch.setenv("AIRFLOW__SLIPWAY__FOLDER", "~/models")
    assert user_folder() == Path.home() / "models"
