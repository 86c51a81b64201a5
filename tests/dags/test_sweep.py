"""The sweep DAGs, one for each model file with `sweep`."""

import pytest
from scheduling import Scheduled

from slipway.dag.definitions.sweep import sweep_dag
from slipway.dags import make_dags
from slipway.model.sweep_settings import SweepSettings, sweep_plan


@pytest.fixture
def dag():
    """The DAG of a sweep over two overlays."""
    return sweep_dag("my-vit", sweep_plan(SweepSettings(overlays=["seed"], rate_per_s=4), "local"))


def test_each_turn_is_a_mapped_task_and_they_run_one_at_a_time(dag):
    """In the plan's order, each shown by its variant's name, and none tried again: it would be measured at another time."""
    assert [task.task_id for task in dag.topological_sort()] == ["choose", "measure", "recommend", "end_sweep"]
    measure = dag.get_task("measure")
    assert measure.expand_input.value == {"variant": ["local", "seed", "seed", "local"]}
    assert (measure.max_active_tis_per_dagrun, measure.map_index_template, measure.retries) == (
        1,
        "{{ task.variant }}",
        0,
    )
    assert (dag.dag_id, dag.max_active_runs, dag.schedule) == ("sweep_my_vit", 1, None)


def test_airflows_scheduler_queues_the_turns_one_at_a_time_and_in_their_order(dag):
    """By map index, whatever the order of the rows in its database; a turn that failed stops none."""
    scheduled = Scheduled(dag)
    scheduled.turn_around("measure")
    queued = []
    while now := scheduled.queue():
        queued.append(now)
        assert scheduled.queue() == []  # none beside it
        for task, number in now:
            scheduled.end(task, number, "failed" if number == 1 else "success")
    turns = [[("measure", number)] for number in range(4)]
    assert queued == [[("choose", -1)], *turns, [("recommend", -1)], [("end_sweep", -1)]]


def test_a_turn_that_failed_does_not_cost_the_others(dag):
    """They are compared once all have ended, and what is left is deleted whatever happened."""
    assert dag.get_task("recommend").trigger_rule == "all_done_min_one_success"
    end = dag.get_task("end_sweep")
    assert end.is_teardown
    assert not end.on_failure_fail_dagrun


def test_an_empty_form_is_valid(dag):
    """A sweep holds the target's Lease, so that it can be broken."""
    dag.params.validate()
    assert {name: dag.params[name] for name in dag.params} == {"break_lease": False}


def test_only_a_model_file_with_a_sweep_has_the_dag(users_folder):
    """A file that is refused has none."""
    file = users_folder / "served" / "x.yaml"
    golden = "gate: {golden: [{name: three, image: three.png, label: '3'}]}\n"
    plain = f"source: {{folder: checkpoint}}\n{golden}"
    for text, has in ((plain, False), (f"{plain}sweep: {{rate_per_s: 4, overlays: [seed]}}\n", True), ("x: [", False)):
        file.write_text(text)
        assert [dag.dag_id for dag in make_dags(wanted="sweep_x")] == ["sweep_x"] * has
