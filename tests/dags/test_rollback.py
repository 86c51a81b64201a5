"""The rollback DAGs, one for each model file."""

from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dag():
    """The shipped model's rollback DAG."""
    return DagBag(dag_folder=PROJECT / "dags").dags["rollback_digits_vit"]


def test_rollback_has_the_stages_of_a_refresh(dag):
    """After `choose` come the stages of a refresh from `apply` on; there is no preview, but one that was left is deleted."""
    stages = ("apply", "wait_for_rollout", "wait_for_address", "gate", "announce")
    tasks = ("choose", *stages, "rollback", "remove_preview", "record")
    assert [task.task_id for task in dag.topological_sort()] == list(tasks)


def test_rollback_is_triggered_by_hand_only(dag):
    """A rollback has no schedule, and two of one model cannot run at once."""
    assert dag.timetable.can_be_scheduled is False
    assert dag.max_active_runs == 1


def test_empty_form_is_valid(dag):
    """An empty form means the release before the live one."""
    dag.params.validate()
    assert dag.params["release"] is None
