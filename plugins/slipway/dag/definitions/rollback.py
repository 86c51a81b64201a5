"""The rollback DAG of a model: back to a recorded release, by the same tasks that brought it."""

from __future__ import annotations

from airflow.sdk import DAG, chain

from slipway.dag import task_ids
from slipway.dag.forms import rollback_form
from slipway.dag.graph import RETRIES, announce_task, chain_proof, closing_tasks, proof_tasks
from slipway.dag.tasks.plan import ChooseOperator
from slipway.names import rollback_dag_id

DOC = """
### {model}: back to a recorded release

Trigger with a release id, or leave it empty for the release before the live one. The first task's log lists every release that
was proven live. The release's recorded manifests and image are applied again, waited for, sent the golden requests, and recorded.
If the gate does not pass, the release that was live before serves again.
"""


def rollback_dag(model: str) -> DAG:
    """The DAG that rolls a model back."""
    with DAG(
        rollback_dag_id(model),
        description=f"Brings a recorded release of {model} back.",
        doc_md=DOC.format(model=model),
        schedule=None,
        params=rollback_form(),
        max_active_runs=1,
        default_args=RETRIES,
        tags=["slipway", "rollback"],
    ) as dag:
        choose = ChooseOperator(task_id=task_ids.CHOOSE, model=model)
        proof = proof_tasks(asks=False)
        chain(choose, *chain_proof(proof), announce_task(model), *closing_tasks(model, proof=proof[-1]))
    return dag
