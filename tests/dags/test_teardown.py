"""The teardown DAGs, one for each model file that names a GKE cluster."""

from pathlib import Path
from typing import NamedTuple

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.models.dagrun import DagRun
from airflow.serialization.serialized_objects import DagSerialization

from slipway.dag.forms import read_teardown
from slipway.model.served import read_model_file, served_files
from slipway.names import teardown_dag_id

PROJECT = Path(__file__).parents[2]
STORY = ["look", "approve", "remove_objects", "delete_cluster", "leftovers", "record"]


class Ran(NamedTuple):
    """A task that has run, as far as Airflow looks at it for the run's colour."""

    task_id: str
    state: str


@pytest.fixture(scope="module")
def bag():
    """The DAGs as Airflow's DAG processor finds them."""
    return DagBag(dag_folder=PROJECT / "dags")


@pytest.fixture(scope="module")
def dag(bag):
    """The shipped GKE model's teardown DAG."""
    return bag.dags["teardown_digits_vit_gke"]


def test_one_teardown_for_each_model_file_with_a_cluster(bag):
    """A cluster that a connection names is not ours to delete: its model has no such DAG."""
    made = {name for name in bag.dags if name.startswith("teardown_")}
    assert made == {teardown_dag_id(path.stem) for path in served_files() if read_model_file(path).target.gke}


def test_a_teardown_asks_before_it_takes(dag):
    """Nothing that deletes comes before the approval, and each step waits for the one before."""
    assert [task.task_id for task in dag.topological_sort()] == STORY
    assert dag.get_task("remove_objects").upstream_task_ids == {"approve"}
    DagSerialization.to_dict(dag)


def test_a_rejection_is_red_and_is_not_asked_again(dag):
    """Rejected, or not answered in a day: the approval fails, once, and what follows does not run."""
    approve = dag.get_task("approve")
    assert (approve.fail_on_reject, approve.retries, approve.defaults) == (True, 0, None)
    assert approve.response_timeout.days == 1
    assert {dag.get_task(task).trigger_rule for task in ("remove_objects", "delete_cluster", "leftovers")} == {
        "all_success"
    }


def test_a_teardown_is_by_hand_only(dag):
    """Nothing schedules a teardown, and two of one model cannot run at once."""
    assert dag.timetable.can_be_scheduled is False
    assert dag.max_active_runs == 1


def test_leftovers_give_the_run_its_colour(dag):
    """The record is a teardown that cannot change it."""
    tis = [Ran(task.task_id, "success") for task in dag.tasks]
    leaves = DagRun(dag_id=dag.dag_id)._tis_for_dagrun_state(dag=dag, tis=tis)
    assert [leaf.task_id for leaf in leaves] == ["leftovers"]


def test_the_form_takes_nobody_elses_by_default(dag):
    """An empty form deletes no cluster that others live in."""
    dag.params.validate()
    assert read_teardown(dag.params.dump()) is False
