"""The DAGs that the DAG file makes of a test's model files."""

import runpy
from pathlib import Path

import pytest

from slipway.model import served
from slipway.names import dag_id

FILE = Path(__file__).parents[2] / "dags" / "refresh.py"


@pytest.fixture
def dags_of(monkeypatch, tmp_path):
    """The DAGs that the DAG file makes of these model files, by name."""

    def parse(**texts):
        paths = [tmp_path / f"{name}.yaml" for name in sorted(texts)]
        for path in paths:
            path.write_text(texts[path.stem])
        monkeypatch.setattr(served, "served_files", lambda: paths)
        made = runpy.run_path(str(FILE))
        return {path.stem: made[dag_id(path.stem)] for path in paths}

    return parse
