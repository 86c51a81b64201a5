"""The DAGs of a test's model files."""

import pytest

from slipway.dags import make_dags
from slipway.names import dag_id


@pytest.fixture
def dags_of(users_folder):
    """The refresh DAGs of these model files, by name."""

    def parse(**texts):
        for name, text in texts.items():
            (users_folder / "served" / f"{name}.yaml").write_text(text)
        return {name: dag for name in texts for dag in make_dags(wanted=dag_id(name))}

    return parse
