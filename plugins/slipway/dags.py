"""The DAGs of all model files. Airflow finds them through one line in a file of a dags folder.

    from slipway.dags import *  # Airflow's DAGs of all model files

`slipway.dag.definitions` says what each DAG does. Airflow's setting `[slipway] folder` names the folder of the model files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from airflow.sdk import DAG, get_parsing_context
from airflow.sdk.definitions.param import ParamsDict  # airflow.sdk's own stub lacks it

from slipway.dag.definitions.load_test import load_test_dag
from slipway.dag.definitions.refresh import refresh_dag
from slipway.dag.definitions.rollback import rollback_dag
from slipway.dag.definitions.sweep import sweep_dag
from slipway.dag.definitions.teardown import teardown_dag
from slipway.errors import InputRefused
from slipway.model.model_file import ModelFile
from slipway.model.served import read_model_file, served_files
from slipway.model.sweep_settings import sweep_plan
from slipway.names import dag_id, load_test_dag_id, printable, rollback_dag_id, sweep_dag_id, teardown_dag_id

Asked = ModelFile | InputRefused  # a model file as it was read


def _teardown(path: Path, asked: Asked) -> DAG | None:
    if isinstance(asked, InputRefused) or asked.target.gke is None:
        return None
    return teardown_dag(path)


def _load_test(path: Path, asked: Asked) -> DAG | None:
    if isinstance(asked, InputRefused) or asked.load_test is None:
        return None
    return load_test_dag(path.stem, asked.load_test)


def _sweep(path: Path, asked: Asked) -> DAG | None:
    if isinstance(asked, InputRefused) or asked.sweep is None:
        return None
    return sweep_dag(path.stem, sweep_plan(asked.sweep, asked.target.overlay))


# The name of each DAG of a model file, and the function that makes the DAG; None if the file asks for no such DAG.
KINDS: dict[Callable[[str], str], Callable[[Path, Asked], DAG | None]] = {
    dag_id: refresh_dag,
    rollback_dag_id: lambda path, _: rollback_dag(printable(path.stem)),
    teardown_dag_id: _teardown,
    load_test_dag_id: _load_test,
    sweep_dag_id: _sweep,
}


def make_dags(*, wanted: str | None = None) -> Iterator[DAG]:
    """The DAGs of all model files; only the DAG `wanted` if an id is given. A file that is refused has DAGs that say so."""
    for path in served_files():
        named = {name(path.stem): make for name, make in KINDS.items()}
        if wanted is not None:
            named = {one: make for one, make in named.items() if one == wanted}
        asked = _read(path) if named else None
        for make in named.values():
            if asked is not None and (dag := make(path, asked)):
                yield _without_copied_params(dag)


def _without_copied_params(dag: DAG) -> DAG:
    """The DAG, with its form's fields on the DAG alone; a task's context has them all the same.

    Airflow copies them to each task, and checks all copies against JSON Schema's own schema each time it stores the DAG: nine tenths of
    the DAG processor's work.
    """
    for task in dag.tasks:
        if isinstance(task.params, ParamsDict):
            task.params = ParamsDict.filter_params_by_source(task.params, source="task")
    return dag


def _read(path: Path) -> Asked:
    try:
        return read_model_file(path)
    except InputRefused as error:
        return error


# A task's process makes only its own DAG: its start takes as long with a hundred model files as with one.
globals().update({dag.dag_id: dag for dag in make_dags(wanted=get_parsing_context().dag_id)})
