"""The sweep DAG of a model file with `sweep`: which overlay serves the live release best."""

from __future__ import annotations

from airflow.sdk import DAG, chain

from slipway.dag import task_ids
from slipway.dag.forms import sweep_form
from slipway.dag.graph import LOAD_PYTHON, UNTIL_SETTLED
from slipway.dag.tasks.sweep import (
    ChooseSweepOperator,
    EndSweepOperator,
    MeasureVariantOperator,
    RecommendOperator,
)
from slipway.names import sweep_dag_id
from slipway.variants import SweepPlan

DOC = """
### Variants of {model}

**choose** finds the live release and takes the target's Lease, so that no release comes in between. **measure** runs one variant at a
time next to it, where no user reaches it, sends it {rate:g} requests a second, then lets {users} users ask again as soon as they have an
answer, and deletes it. **recommend** compares latency and requests per CPU second, and keeps the table, a picture and the overlay in the
artifact store below `sweeps/{model}/`. **end sweep** deletes what a killed turn left.

A sweep changes nothing that serves. Its pods use the cluster beside the live ones, about {minutes} minutes in all.
"""


def sweep_dag(model: str, plan: SweepPlan) -> DAG:
    """The DAG that compares variants of a model's live release."""
    minutes = max(1, round(len(plan.turns) * plan.turn_s / 60))
    with DAG(
        sweep_dag_id(model),
        description=f"Which overlay serves the live release of {model} best.",
        doc_md=DOC.format(model=model, rate=plan.rate_per_s, users=plan.closed_users, minutes=minutes),
        schedule=None,
        params=sweep_form(),
        max_active_runs=1,
        default_args={"retries": 0},  # a turn that failed is missing in the table; the others count
        tags=["slipway", "sweep"],
    ) as dag:
        choose = ChooseSweepOperator(task_id=task_ids.CHOOSE, model=model, **UNTIL_SETTLED)
        measure = MeasureVariantOperator.partial(
            task_id=task_ids.MEASURE,
            load_python=LOAD_PYTHON,
            # Two at once would share the processors. Airflow queues the instances of a mapped task by map index: in the order of the turns.
            max_active_tis_per_dagrun=1,
            map_index_template="{{ task.variant }}",
        ).expand(variant=[variant.name for variant in plan.turns])
        recommend = RecommendOperator(
            task_id=task_ids.RECOMMEND, load_python=LOAD_PYTHON, trigger_rule="all_done_min_one_success"
        )
        end = EndSweepOperator(task_id=task_ids.END_SWEEP, task_display_name="end sweep").as_teardown()
        chain(choose, measure, recommend, end)
    return dag
