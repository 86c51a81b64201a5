import pytest
from airflow.sdk.exceptions import AirflowSkipException

READERS = {  # they find nothing to read: no task before them has left its result
    "resolve", "preflight", "plan", "claim_cluster", "leftovers", "record", "announce",
    "wait_for_preview", "preview_gate", "wait_for_rollout", "wait_for_address", "gate",
}  # fmt: skip
FILE = """\
source: {folder: digits-vit/checkpoint}
gate: {golden: [{name: three, image: three.png, label: "3"}]}
"""


@pytest.mark.parametrize("gke", ["{}", "{temporary: true}"], ids=["previewed", "temporary"])
def test_run_that_only_plans_writes_nothing(dags_of, context_of, gke):
    """Every task that writes is skipped, even if `plan` failed or a person cleared the task."""
    dag = dags_of(planned=f"{FILE}target: {{gke: {gke}}}\n")["planned"]
    writers = [task for task in dag.tasks if task.task_id not in READERS]
    assert {"export", "push", "create_cluster", "apply", "prune"} <= {task.task_id for task in writers}
    for task in writers:
        context = {**context_of(task.task_id, resolve="a release"), "params": {"plan_only": True}}
        with pytest.raises(AirflowSkipException, match=r"^this run only plans; nothing is written$"):
            task.execute(context)
