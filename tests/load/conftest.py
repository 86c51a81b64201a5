"""Makes the load test's modules importable, and builds its environment."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
LOADER = PROJECT / "include" / "load"

sys.path.insert(0, str(LOADER))  # before packages that have a module of the same name


@pytest.fixture(scope="session")
def load_python():
    """The interpreter of the load test's environment."""
    words = [sys.executable, "-m", "local", "env", "load"]
    built = subprocess.run(words, capture_output=True, text=True, check=True, cwd=PROJECT)
    return Path(built.stdout.splitlines()[-1]) / "bin" / "python"
