"""Where gates, loads, bakes and approvals are in a refresh DAG."""

import pytest
from airflow.models.dagrun import DagRun
from airflow.serialization.serialized_objects import DagSerialization
from dag_trials import BAKED, GOOD, LOADED, MAY_BE_INCONCLUSIVE, Ran

GATES = {
    "preview": ("", "preview_gate", "apply", "gate"),
    "rolling": ("target: {strategy: rolling}\n", "gate", "announce", "approve"),
    "a temporary cluster": ("target: {gke: {temporary: true}}\n", "gate", "announce", "approve"),
}


@pytest.mark.parametrize(("target", "first", "then", "proof"), GATES.values(), ids=GATES)
def test_person_is_asked_after_the_first_gate_if_it_may_be_inconclusive(dags_of, target, first, then, proof):
    """With a preview the approval comes before `apply`; without one it is what proves the release."""
    dag = dags_of(unsure=MAY_BE_INCONCLUSIVE + target)["unsure"]
    dag.validate()
    assert DagSerialization.to_dict(dag)
    assert [task.task_id for task in dag.tasks if getattr(task, "asks", False)] == [first]
    assert dag.get_task(first).downstream_task_ids == {"approve"}
    assert then in dag.get_task("approve").downstream_task_ids
    assert {task.proof_task_id for task in dag.tasks if hasattr(task, "proof_task_id")} == {proof}
    assert "approve" in dag.get_task("plan").deploys
    tis = [Ran(task.task_id, "success") for task in dag.tasks]
    leaves = {leaf.task_id for leaf in DagRun(dag_id=dag.dag_id)._tis_for_dagrun_state(dag=dag, tis=tis)}
    assert leaves == {"announce", "record", *(["delete_cluster"] if "gke" in target else [])}


BAKES = {
    "after the gate": (BAKED, "gate"),
    "after the approval of a rolling update": (
        BAKED.replace("bake:", "latency_ms: 500, bake:") + "target: {strategy: rolling}\n",
        "approve",
    ),
}


@pytest.mark.parametrize(("text", "before"), BAKES.values(), ids=BAKES)
def test_a_bake_is_what_proves_the_release(dags_of, text, before):
    """It is the last task before the Asset is updated; rollback, removal and record go by it."""
    dag = dags_of(baked=text)["baked"]
    dag.validate()
    assert DagSerialization.to_dict(dag)
    assert dag.get_task(before).downstream_task_ids == {"bake"}
    assert "announce" in dag.get_task("bake").downstream_task_ids
    assert {task.proof_task_id for task in dag.tasks if hasattr(task, "proof_task_id")} == {"bake"}
    assert "bake" in dag.get_task("plan").deploys
    tis = [Ran(task.task_id, "success") for task in dag.tasks]
    leaves = {leaf.task_id for leaf in DagRun(dag_id=dag.dag_id)._tis_for_dagrun_state(dag=dag, tis=tis)}
    assert leaves == {"announce", "record"}


def test_person_is_asked_for_every_release_before_it_is_applied(dags_of):
    """With `approval: always` the question is there although the gate is always conclusive."""
    dag = dags_of(asked=GOOD.replace('label: "3"}]', 'label: "3"}], approval: always'))["asked"]
    assert dag.get_task("preview_gate").downstream_task_ids == {"approve"}
    assert "apply" in dag.get_task("approve").downstream_task_ids
    assert dag.get_task("approve").preview


def test_a_preview_is_loaded_between_its_gate_and_the_approval(dags_of):
    """Only where the model file has `gate.load`; a person may be asked about its result."""
    dag = dags_of(loaded=LOADED)["loaded"]
    dag.validate()
    assert DagSerialization.to_dict(dag)
    assert dag.get_task("preview_gate").downstream_task_ids == {"preview_load"}
    assert dag.get_task("preview_load").downstream_task_ids == {"approve"}
    assert "apply" in dag.get_task("approve").downstream_task_ids
    assert dag.get_task("preview_load").trigger_rule.value == "all_success"  # without a preview there is none
    assert "preview_load" in dag.get_task("plan").deploys
    unasked = 'label: "3"}], load: {rate_per_s: 5}, on_inconclusive: fail'
    dag = dags_of(unasked=GOOD.replace('label: "3"}]', unasked))["unasked"]
    assert dag.get_task("preview_load").downstream_task_ids >= {"apply"}
    assert not dag.get_task("preview_load").asks


@pytest.mark.parametrize(
    "rules", ["", ", latency_ms: 500, on_inconclusive: fail"], ids=["always conclusive", "on_inconclusive is fail"]
)
def test_nobody_is_asked_if_no_approval_is_possible(dags_of, rules):
    """There is no approval if the gate is always conclusive, or fails on an inconclusive result."""
    dag = dags_of(sure=GOOD.replace('label: "3"}]', f'label: "3"}}]{rules}'))["sure"]
    assert "approve" not in dag.task_ids
    assert not any(getattr(task, "asks", False) for task in dag.tasks)
    assert dag.get_task("record").proof_task_id == "gate"
