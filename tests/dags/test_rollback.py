"""The rollback DAGs, one for each model file."""

from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dag():
    """The shipped model's rollback DAG."""
    return DagBag(dag_folder=PROJECT / "dags").dags["rollback_digits_vit"]


def test_a_rollback_is_the_same_road(dag):
    """After the choice come the very stages of a refresh, none left out; it needs no preview, and removes what one left."""
    proof = ("apply", "wait_for_rollout", "wait_for_address", "gate", "announce")
    story = ("choose", *proof, "rollback", "remove_preview", "record")
    assert [task.task_id for task in dag.topological_sort()] == list(story)


def test_a_rollback_is_by_hand_only(dag):
    """Nothing schedules a rollback, and two of one model cannot run at once."""
    assert dag.timetable.can_be_scheduled is False
    assert dag.max_active_runs == 1


def test_the_form_is_valid_as_it_is(dag):
    """An empty form goes back to the release before the live one."""
    dag.params.validate()
    assert dag.params["release"] is None
