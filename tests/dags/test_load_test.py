"""The load-test DAGs, one for each model file with `load_test`."""

from datetime import timedelta

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import ParamValidationError

from slipway.dag.definitions.load_test import load_test_dag
from slipway.model.load_settings import LoadSettings


@pytest.fixture
def dag_of():
    """Makes the DAG of these settings."""
    return lambda **settings: load_test_dag("my-vit", LoadSettings(**settings))


def test_it_chooses_and_tests(dag_of):
    """Two tasks, never two tests of one model at once, and no second try: it would find a warm server."""
    dag = dag_of()
    assert [task.task_id for task in dag.topological_sort()] == ["choose", "load_test"]
    assert (dag.dag_id, dag.max_active_runs, dag.get_task("load_test").retries) == ("load_test_my_vit", 1, 0)


def test_it_waits_for_the_release_before(dag_of):
    """For two minutes: the run that updates the Asset records its end some seconds later."""
    choose = dag_of().get_task("choose")
    assert choose.retries * choose.retry_delay == timedelta(minutes=2)


def test_by_hand_by_schedule_or_after_a_release(dag_of):
    """Each alone, or schedule and release together."""
    released = Asset(name="my-vit", uri="x-slipway://served/my-vit")
    assert dag_of().schedule is None
    assert dag_of(schedule="@daily").schedule == "@daily"
    assert [asset.uri for asset in dag_of(after_release=True).schedule] == [released.uri]
    both = dag_of(after_release=True, schedule="0 4 * * *").schedule
    assert both.timetable.__class__.__name__ == "CronTriggerTimetable"


def test_an_empty_form_is_valid(dag_of):
    """It means what the model file says."""
    dag = dag_of()
    dag.params.validate()
    assert {name: dag.params[name] for name in dag.params} == dict.fromkeys(("rates_per_s", "step_s", "rest", "grpc"))


@pytest.mark.parametrize(("settings", "most"), [({"rates_per_s": [4, 8]}, 8), ({"most_per_s": 50}, 50)])
def test_the_form_refuses_a_rate_above_the_model_files(dag_of, settings, most):
    """Before a run starts."""
    params = dag_of(**settings).params
    params["rates_per_s"] = [most]
    with pytest.raises(ParamValidationError, match="is greater than the maximum"):
        params["rates_per_s"] = [most + 1]
