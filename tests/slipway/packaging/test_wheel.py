"""The wheel, in this environment: what an Airflow finds whose users have only the package, one line, and a folder of their own."""

import json
import shutil
import subprocess
import sys
from zipfile import ZipFile

import pytest
from wheel import DAG_FILE, PROBE, PROJECT, RENDER, ask, build_wheel

from slipway.facts import to_dict
from slipway.paths import INCLUDE


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout."""
    return build_wheel(sys.executable, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder for `PYTHONPATH` with the wheel as pip installs it, and a user's folder beside it."""
    place = tmp_path_factory.mktemp("installed")
    with ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    (place / "dags").mkdir()
    (place / "dags" / "slipway_models.py").write_text(DAG_FILE)
    shutil.copytree(INCLUDE / "served", place / "mine" / "served", ignore=shutil.ignore_patterns("faults-*"))
    overlay = place / "mine" / "manifests" / "overlays" / "mine"
    overlay.mkdir(parents=True)
    (overlay / "kustomization.yaml").write_text("resources: [../../base]\ncomponents: [../../components/internal]\n")
    return place


@pytest.fixture(scope="module")
def found(installed):
    """What Airflow finds."""
    settings = {"PYTHONPATH": str(installed / "site"), "AIRFLOW__SLIPWAY__FOLDER": str(installed / "mine")}
    return ask(sys.executable, PROBE, installed, str(installed / "dags"), **settings)


def test_all_that_runs_beside_airflow_is_inside(wheel):
    """Exporters, server, load test and manifests; no example, no test, no compiled file."""
    with ZipFile(wheel) as archive:
        names = {name.removeprefix("slipway/") for name in archive.namelist() if name.startswith("slipway/")}
    shipped = subprocess.run(["git", "ls-files", "include"], cwd=PROJECT, check=True, capture_output=True, text=True).stdout.split()  # fmt: skip
    apart = ("include/served/", "include/base-image/")
    assert {name for name in names if name.startswith("include/")} == {
        name for name in shipped if not name.startswith(apart)
    }
    assert not [name for name in names if name.endswith(".pyc") or name.startswith("tests")]


def test_one_line_gives_the_dags_of_the_checkout(installed, found):
    """The same tasks, from the user's own DAG file and model files."""
    here = ask(sys.executable, PROBE, installed, str(PROJECT / "dags"), PYTHONPATH=str(PROJECT / "plugins"))
    assert found["errors"] == here["errors"] == {}
    assert found["package"] == str(installed / "site" / "slipway" / "__init__.py")
    assert found["files"] == [str(installed / "dags" / "slipway_models.py")]
    assert found["tasks"] == here["tasks"]
    assert {"refresh_hf_vit", "rollback_hf_vit", "teardown_digits_vit_gke", "load_test_digits_vit"} <= set(
        found["tasks"]
    )
    assert all(found["programs"])


def test_airflow_knows_it_as_a_provider(found):
    """Its connection has a form, its links and its plugin are registered."""
    assert (found["connections"], found["links"], found["plugins"]) == (
        ["Hugging Face Hub"],
        ["slipway.dag.links.ServedModelLink"],
        ["slipway.plugin.SlipwayPlugin"],
    )


def test_the_users_overlays_build_on_the_shipped_base(installed, found, release):
    """Both are offered, and the user's is rendered with the component that it names."""
    assert {"mine", "batching", "local"} <= set(found["overlays"])
    settings = {"PYTHONPATH": str(installed / "site"), "AIRFLOW__SLIPWAY__FOLDER": str(installed / "mine")}
    given = json.dumps({**to_dict(release), "overlay": "mine"})
    objects = ask(sys.executable, RENDER, installed, given=given, **settings)
    [service] = [one for one in objects if one["kind"] == "Service"]
    assert "internal" in json.dumps(service["metadata"]["annotations"]).lower()
