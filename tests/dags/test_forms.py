"""The form of a DAG's manual runs, as Airflow stores it and as tasks read it."""

import pytest
from airflow.sdk.definitions.param import process_params
from airflow.serialization.serialized_objects import DagSerialization

MODEL = "source: {folder: a}\ngate: {golden: [{name: three, image: three.png, label: '3'}]}\n"


@pytest.fixture
def dag(dags_of):
    """The refresh DAG of a model."""
    return dags_of(digits=MODEL)["digits"]


def test_the_form_is_stored_once(dag):
    """Airflow copies a form's fields to each task and would check and store all copies; the DAG alone keeps them."""
    stored = DagSerialization.to_dict(dag)["dag"]
    assert {name for name, _ in stored["params"]} == set(dag.params) != set()
    assert [task for task in stored["tasks"] if task["__var"].get("params")] == []


def test_each_task_reads_the_whole_form(dag):
    """A task's context has the form's defaults, and what the run gives in their place."""
    form = {**dag.params.dump(), "force": True}
    assert form != dag.params.dump()
    for task in dag.tasks:
        assert process_params(dag, task, {"force": True}, suppress_exception=False) == form
