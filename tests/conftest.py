"""What all tests share: an Airflow home that nobody else has, set before anything imports Airflow."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

home = tempfile.mkdtemp(prefix="slipway-tests-")
atexit.register(shutil.rmtree, home, ignore_errors=True)

os.environ["AIRFLOW_HOME"] = home
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(PROJECT / "dags")
os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(PROJECT / "plugins")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # kubectl is a package of the environment


@pytest.fixture(scope="session")
def stand():
    """The running stand, as `python3 -m local status --json` names it."""
    done = subprocess.run(
        ["python3", "-m", "local", "status", "--json"], capture_output=True, text=True, check=False, cwd=PROJECT, timeout=60
    )
    assert done.returncode == 0, f"the stand is not up: {done.stderr.strip()}. Next: make up"
    return json.loads(done.stdout)
