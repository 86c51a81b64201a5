"""The import check of `make check` refuses what runs against the direction of imports."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def check(tmp_path):
    """A copy of the package, and the import check as `make check` runs it there."""
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    for folder in ("plugins", "local"):
        shutil.copytree(PROJECT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))

    def run():
        return subprocess.run(
            [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{tmp_path / 'plugins'}{os.pathsep}{tmp_path}"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    return tmp_path, run


def test_package_passes(check):
    """The package as it is has no import that runs the wrong way."""
    _, run = check
    done = run()
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line", "words"),
    [
        (
            "plugins/slipway/records/store.py",
            "from slipway.dag.run import Run",
            "slipway.records.store -> slipway.dag.run",
        ),
        (
            "plugins/slipway/image/push.py",
            "def f():\n    from slipway.kubernetes import apply",
            "slipway.image.push -> slipway.kubernetes.apply",
        ),
        ("plugins/slipway/errors.py", "import slipway.names", "slipway.errors -> slipway.names"),
        ("local/programs/shell.py", "import local.commands.up", "local.programs.shell -> local.commands.up"),
    ],
)
def test_a_wrong_import_is_refused(check, module, line, words):
    """An import that runs upwards, also inside a function, fails the check, which names it."""
    project, run = check
    path = project / module
    path.write_text(f"{path.read_text()}\n{line}\n")
    done = run()
    assert done.returncode == 1
    assert words in done.stdout


@pytest.mark.parametrize("module", ["slipway.facts", "slipway.release", "slipway.records.history"])
def test_reading_a_record_loads_no_client(module):
    """The nouns and the records load neither Docker nor Kubernetes code, nor Airflow."""
    program = f"import sys, {module}; print(sorted({{'airflow', 'docker', 'grpc', 'kubernetes'}} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "plugins")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
