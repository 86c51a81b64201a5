"""The teardown DAG of a model file whose target is a GKE cluster: asks, then takes objects and cluster away."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, chain

from slipway.dag import task_ids
from slipway.dag.forms import teardown_form
from slipway.dag.graph import RETRIES, WAIT
from slipway.dag.tasks.teardown import (
    ApproveTeardownOperator,
    DeleteClusterOperator,
    LeftoversOperator,
    PlanTeardownOperator,
    RecordTeardownOperator,
    RemoveObjectsOperator,
)
from slipway.names import teardown_dag_id

ANSWER_WITHIN = timedelta(days=1)  # a list that is older may no longer be true

DOC = """
### {model}: its GKE cluster is deleted

**look** lists what would be deleted, and **approve** waits for a person to approve that list. **remove objects** deletes the
model's objects and waits until their load balancers are gone, **delete cluster** deletes the cluster, and **leftovers** lists
what Google still has of it, with the commands that remove it. If it is rejected, or not answered within a day, nothing is deleted.

Images, exports and records are kept: the next run of the refresh creates all of it again.
"""


def teardown_dag(path: Path) -> DAG:
    """The DAG that tears the cluster of a model down."""
    model = path.stem
    with DAG(
        teardown_dag_id(model),
        description=f"Takes {model} and its GKE cluster away, after asking.",
        doc_md=DOC.format(model=model),
        schedule=None,
        params=teardown_form(),
        max_active_runs=1,
        default_args=RETRIES,
        tags=["slipway", "teardown"],
    ) as dag:
        look = PlanTeardownOperator(task_id=task_ids.LOOK, model_file=str(path))
        approve = ApproveTeardownOperator(
            task_id=task_ids.APPROVE,
            subject=f"Delete the cluster of {model}?",
            body=look.output["body"],  # type: ignore[index]  # only its annotation lacks it
            fail_on_reject=True,
            response_timeout=ANSWER_WITHIN,
            **WAIT,
        )
        remove = RemoveObjectsOperator(task_id=task_ids.REMOVE_OBJECTS, task_display_name="remove objects", **WAIT)
        delete = DeleteClusterOperator(task_id=task_ids.DELETE_CLUSTER, task_display_name="delete cluster", **WAIT)
        leftovers = LeftoversOperator(task_id=task_ids.LEFTOVERS)
        record = RecordTeardownOperator(task_id=task_ids.RECORD).as_teardown()

        chain(look, approve, remove, delete, leftovers, record)
    return dag
