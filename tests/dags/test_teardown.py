"""The teardown DAGs, one for each model file that names a GKE cluster."""

from pathlib import Path
from typing import NamedTuple

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.models.dagrun import DagRun
from airflow.serialization.serialized_objects import DagSerialization

from slipway.dag.forms import read_teardown_form
from slipway.model.served import read_model_file, served_files
from slipway.names import teardown_dag_id

PROJECT = Path(__file__).parents[2]
TASKS = ["look", "approve", "remove_objects", "delete_cluster", "leftovers", "record"]


class Ran(NamedTuple):
    """A task that has run, with what Airflow needs for the run's colour."""

    task_id: str
    state: str


@pytest.fixture(scope="module")
def bag():
    """The DAGs that Airflow's DAG processor finds."""
    return DagBag(dag_folder=PROJECT / "dags")


@pytest.fixture(scope="module")
def dag(bag):
    """The shipped GKE model's teardown DAG."""
    return bag.dags["teardown_digits_vit_gke"]


def test_each_model_file_with_a_gke_cluster_has_a_teardown(bag):
    """A model whose cluster is named by a connection has none: that cluster is not Slipway's to delete."""
    made = {name for name in bag.dags if name.startswith("teardown_")}
    assert made == {teardown_dag_id(path.stem) for path in served_files() if read_model_file(path).target.gke}


def test_teardown_asks_before_it_deletes(dag):
    """No task that deletes comes before the approval, and each task waits for the one before."""
    assert [task.task_id for task in dag.topological_sort()] == TASKS
    assert dag.get_task("remove_objects").upstream_task_ids == {"approve"}
    DagSerialization.to_dict(dag)


def test_teardown_fails_once_if_it_is_rejected(dag):
    """The approval fails without a retry if it is rejected or not answered in a day; the tasks after it do not run."""
    approve = dag.get_task("approve")
    assert (approve.fail_on_reject, approve.retry_policy.most, approve.defaults) == (True, 5, None)
    assert approve.response_timeout.days == 1
    assert {dag.get_task(task).trigger_rule for task in ("remove_objects", "delete_cluster", "leftovers")} == {
        "all_success"
    }


def test_teardown_is_triggered_by_hand_only(dag):
    """A teardown has no schedule, and two of one model cannot run at once."""
    assert dag.timetable.can_be_scheduled is False
    assert dag.max_active_runs == 1


def test_leftovers_decide_the_runs_colour(dag):
    """`record` is a teardown that cannot change it."""
    tis = [Ran(task.task_id, "success") for task in dag.tasks]
    leaves = DagRun(dag_id=dag.dag_id)._tis_for_dagrun_state(dag=dag, tis=tis)
    assert [leaf.task_id for leaf in leaves] == ["leftovers"]


def test_empty_form_deletes_no_shared_cluster(dag):
    """An empty form does not allow deleting a cluster in which something else runs."""
    dag.params.validate()
    assert read_teardown_form(dag.params.dump()) is False
