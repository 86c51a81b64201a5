import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.models.dagrun import DagRun
from airflow.serialization.serialized_objects import DagSerialization
from dag_trials import BAKED, GOOD, LOADED, MAY_BE_INCONCLUSIVE, Ran

from slipway.dag.forms import read_refresh_form, read_rollback_form
from slipway.dag.run_lease import HOLDERS
from slipway.dag.tasks.cluster import CreateClusterOperator
from slipway.dag.tasks.deploy import RemovePreviewOperator
from slipway.dag.tasks.gate import ApproveOperator
from slipway.dag.tasks.load import LoadGateOperator
from slipway.dag.tasks.plan import ChooseOperator, PlanOperator
from slipway.dag.tasks.rollback import RollbackOperator
from slipway.dag.tasks.teardown import DeleteClusterOperator, RemoveObjectsOperator
from slipway.dag.tasks.waits import WaitSensor
from slipway.model.served import read_model_file, served_files
from slipway.names import dag_id
from slipway.steps.settings import RefreshParams

PROJECT = Path(__file__).parents[2]
FILE = PROJECT / "dags" / "models.py"
TASKS = (
    "resolve", "plan", "export", "build_image", "smoke_test", "push", "preview", "wait_for_preview", "preview_gate",
    "apply", "wait_for_rollout", "wait_for_address", "gate", "announce", "rollback", "remove_preview", "record", "prune",
)  # fmt: skip
PREVIEW = ("preview", "wait_for_preview", "preview_gate")

# Prints, in its own process, which modules a parse loads, the hash of the DAG, and what the plugin loader then loads.
PARSE = f"""
import json, runpy, sys
dags = runpy.run_path({str(FILE)!r})
loaded = sorted(sys.modules)
from airflow.models.serialized_dag import SerializedDagModel
from airflow.plugins_manager import get_import_errors
from airflow.serialization.serialized_objects import DagSerialization
hash_ = SerializedDagModel.hash(DagSerialization.to_dict(dags["refresh_digits_vit"]))
before = set(sys.modules)
plugin_errors = get_import_errors() if sys.argv[1] == "1" else {{}}
stray = [name for name in set(sys.modules) - before if "/plugins/slipway/" in str(getattr(sys.modules[name], "__file__", "")) and not name.startswith("slipway.")]
print(json.dumps({{"loaded": loaded, "hash": hash_, "stray": stray, "plugin_errors": plugin_errors}}))
"""


@pytest.fixture(scope="module")
def bag():
    """The DAGs that Airflow's DAG processor finds."""
    return DagBag(dag_folder=str(PROJECT / "dags"))


@pytest.fixture(scope="module")
def dag(bag):
    """The embedded default's DAG."""
    return bag.dags["refresh_digits_vit"]


@pytest.fixture(scope="module")
def parses():
    """Two parses in their own processes, with different hash seeds, so that sets have different orders."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PARSE, seed],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(PROJECT / "plugins")},
        )
        for seed in ("1", "2")
    ]
    outputs = [process.communicate(timeout=1800)[0] for process in running]
    return [json.loads(text.splitlines()[-1]) for text in outputs]


def test_no_import_errors_and_one_dag_per_model_file(bag):
    """Every shipped model file has a DAG, and every DAG file can be imported."""
    assert bag.import_errors == {}
    assert {dag_id(path.stem) for path in served_files()} <= set(bag.dags)
    assert "refresh_digits_vit" in bag.dags


def chained(tasks, **others):
    """The tasks below each, if each is followed by the next one, except `others`. Both waits follow `apply`, and the gate both."""
    waits = {"apply": {"wait_for_rollout", "wait_for_address"}, "wait_for_rollout": {"gate"}}
    return {**{task: {following} for task, following in pairwise(tasks)}, "prune": set(), **waits, **others}


def test_tasks_are_one_chain_with_two_forks(dag):
    """The smoke test runs beside push and preview, whose gate waits for both; the address is waited for beside the rollout."""
    downstream = {task.task_id: task.downstream_task_ids for task in dag.tasks}
    assert chained(TASKS, build_image={"smoke_test", "push"}, smoke_test={"preview_gate"}) == downstream


def test_cluster_is_created_while_the_image_is_built(bag):
    """On a GKE target the preview waits for the cluster and the image, which do not wait for each other."""
    dag = bag.dags["refresh_digits_vit_gke"]
    assert {task.task_id for task in dag.tasks} == {*TASKS, "preflight", "create_cluster"}
    assert dag.get_task("plan").downstream_task_ids == {"export", "create_cluster"}
    assert dag.get_task("create_cluster").downstream_task_ids == {"preview"}
    assert dag.get_task("preview").upstream_task_ids == {"push", "create_cluster"}


def test_preflight_runs_before_the_plan(bag):
    """On a GKE target everything waits for the preflight, even in a run that only plans."""
    dag = bag.dags["refresh_digits_vit_gke"]
    assert dag.get_task("resolve").downstream_task_ids == {"preflight"}
    assert dag.get_task("preflight").downstream_task_ids == {"plan"}
    assert "preflight" not in dag.get_task("plan").deploys


def test_cluster_is_checked_if_nothing_is_built(bag):
    """A plan that skips the build does not skip the cluster's task: manifests are applied to a checked cluster."""
    plan = bag.dags["refresh_digits_vit_gke"].get_task("plan")
    assert "create_cluster" in plan.deploys
    assert "create_cluster" not in plan.builds


def test_no_preview_if_the_strategy_is_rolling(dags_of):
    """The graph lacks the preview's tasks, but still deletes a preview that was left."""
    dag = dags_of(plain=GOOD + "target: {strategy: rolling}\n")["plain"]
    tasks = [task for task in TASKS if task not in PREVIEW]
    downstream = {task.task_id: task.downstream_task_ids for task in dag.tasks}
    assert chained(tasks) == downstream  # only an image that passed the smoke test is pushed


def test_preview_is_skipped_if_nothing_is_deployed(dag):
    """A run with nothing to do still deletes the preview that a killed run left."""
    deploys = set(dag.get_task("plan").deploys)
    assert {*PREVIEW, "remove_preview"} - deploys == {"remove_preview"}


def test_apply_runs_if_build_or_preview_was_skipped(dag):
    """The tasks that test a preview are skipped with it; if one of them fails, `apply` does not run."""
    rules = {
        task: dag.get_task(task).trigger_rule.value for task in ("preview", "wait_for_preview", "preview_gate", "apply")
    }
    assert rules == {
        "preview": "none_failed",
        "wait_for_preview": "all_success",
        "preview_gate": "none_failed_min_one_success",
        "apply": "none_failed",
    }


TEMPORARY = GOOD + "target: {gke: {temporary: true}}\n"


@pytest.fixture
def temporary(dags_of):
    """The DAG of a model whose runs have a temporary cluster."""
    dag = dags_of(temporary=TEMPORARY)["temporary"]
    dag.validate()
    assert DagSerialization.to_dict(dag)
    return dag


def test_temporary_cluster_is_claimed_created_and_deleted(temporary):
    """Claim and creation are setups; the tasks that delete are their teardowns, which run even if a task between failed."""
    deleting = ("remove_objects", "delete_cluster", "leftovers")
    creating = {"preflight", "claim_cluster", "create_cluster"}
    assert {task.task_id for task in temporary.tasks} == {*TASKS, *deleting, *creating} - {
        "rollback",
        "remove_preview",
        *PREVIEW,
    }
    assert {task.task_id for task in temporary.tasks if task.is_setup} == {"claim_cluster", "create_cluster"}
    for task in map(temporary.get_task, deleting):
        assert task.is_teardown
        assert {"claim_cluster", "create_cluster"} <= task.upstream_task_ids
        assert task.trigger_rule == "all_done_setup_success"
    assert "announce" in temporary.get_task("remove_objects").upstream_task_ids
    assert temporary.get_task("claim_cluster").downstream_task_ids == {"create_cluster", *deleting}


def test_temporary_run_is_red_if_gate_or_deletion_failed(temporary):
    """The deletion is a leaf that counts too: a cluster that is not deleted is billed on."""
    tis = [Ran(task.task_id, "success") for task in temporary.tasks]
    leaves = DagRun(dag_id=temporary.dag_id)._tis_for_dagrun_state(dag=temporary, tis=tis)
    assert {leaf.task_id for leaf in leaves} == {"announce", "delete_cluster", "record"}


def test_temporary_release_is_not_announced(temporary):
    """A release whose cluster is deleted updates no Asset."""
    assert [task.task_id for task in temporary.tasks if task.outlets] == []


def test_clearing_a_task_creates_the_temporary_cluster_again(temporary):
    """Airflow clears a task's setups and teardowns with it: a cleared gate has a cluster again."""
    cleared = temporary.partial_subset(["gate"], include_downstream=True, include_upstream=False).task_ids
    assert {"claim_cluster", "create_cluster", "gate", "remove_objects", "delete_cluster"} <= set(cleared)


@pytest.mark.parametrize("task_id", ["rollback", "remove_preview", "prune"])
def test_teardowns_do_not_change_the_runs_colour(dag, task_id):
    """Rollback, removal and prune are teardowns without a setup: they always run, and do not fail the run."""
    task = dag.get_task(task_id)
    assert task.is_teardown
    assert task.on_failure_fail_dagrun is False
    assert not any(task.is_setup for task in dag.tasks)


def test_announce_and_record_decide_the_runs_colour(dag):
    """Airflow takes the colour from `announce`, below the gate, and `record`, which fails if a person ended the run."""
    tis = [Ran(task.task_id, "success") for task in dag.tasks]
    leaves = DagRun(dag_id=dag.dag_id)._tis_for_dagrun_state(dag=dag, tis=tis)
    assert {leaf.task_id for leaf in leaves} == {"announce", "record"}


def test_only_announce_updates_the_asset(dag):
    """The event comes from a task after the gate: a teardown would emit it in a red run too."""
    announcing = {task.task_id: [asset.uri for asset in task.outlets] for task in dag.tasks if task.outlets}
    assert announcing == {"announce": ["x-slipway://served/digits-vit"]}


def test_one_run_at_a_time_and_no_dagrun_timeout(dag):
    """Two runs would write the same objects; a run's timeout would skip everything, even the record."""
    assert dag.max_active_runs == 1
    assert dag.dagrun_timeout is None
    assert dag.catchup is False


def test_all_params_have_valid_defaults(bag):
    """A run without a form uses the model file's values."""
    for name, each in bag.dags.items():
        each.params.validate()
        if name.startswith("refresh_"):
            assert RefreshParams() == read_refresh_form(each.params.dump())
        elif name.startswith("rollback_"):
            assert read_rollback_form(each.params.dump()) is None


def test_dag_has_the_schedule_of_its_model_file(dags_of):
    """The DAG can be serialised with it."""
    dag = dags_of(nightly=GOOD)["nightly"]
    assert dag.timetable.can_be_scheduled
    dag.validate()
    assert "0 3 * * *" in json.dumps(DagSerialization.to_dict(dag))


WATCHED = """\
source: {hub: someone/digits}
watch: {poll_s: 60}
gate: {golden: [{name: three, image: three.png, label: "3"}]}
"""


@pytest.mark.parametrize("schedule", [None, "0 3 * * *"])
def test_watched_model_runs_if_there_is_a_new_commit(dags_of, schedule):
    """The DAG is scheduled by its upstream Asset, which has a watcher, and by the file's schedule if there is one."""
    dag = dags_of(watched=WATCHED + (f'schedule: "{schedule}"\n' if schedule else ""))["watched"]
    dag.validate()
    stored = json.dumps(DagSerialization.to_dict(dag))
    assert "x-slipway://upstream/watched" in stored
    assert "slipway.dag.triggers.hub.HubTrigger" in stored
    assert ("0 3 * * *" in stored) is (schedule is not None)


MALFORMED = {
    "unknown field": ("odd", GOOD + "shedule: daily\n", "shedule: "),
    "bad schedule": ("odd", GOOD.replace("0 3", "61 3"), "schedule: "),
    "not YAML": ("odd", "source: [\n", "not YAML: "),
    "source is text": ("odd", "source: google/vit\n", "source: "),
    "misnamed": ("My Model", GOOD, "the file's name is the model's name"),
}


@pytest.mark.parametrize(("name", "text", "words"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_model_file_has_a_dag_without_a_schedule(dags_of, name, text, words):
    """The DAG says what is wrong with the file; other DAGs are not affected."""
    dags = dags_of(**{name: text, "good": GOOD})
    refused = dags[name]
    refused.validate()
    assert not refused.timetable.can_be_scheduled
    assert refused.description.startswith("refused: ")
    assert words in refused.description
    assert words in refused.doc_md
    assert DagSerialization.to_dict(refused)
    assert dags["good"].timetable.can_be_scheduled


def test_holders_are_all_tasks_that_acquire_the_lease(bag, dags_of):
    """A run reads from these tasks' XCom whether it has held the Lease: no task that acquires it is missing."""
    acquiring = (
        PlanOperator, ChooseOperator, CreateClusterOperator, WaitSensor, RollbackOperator, RemovePreviewOperator, RemoveObjectsOperator,
        DeleteClusterOperator, ApproveOperator, LoadGateOperator,
    )  # fmt: skip
    dags = [*bag.dags.values(), *dags_of(unsure=MAY_BE_INCONCLUSIVE, loaded=LOADED, baked=BAKED).values()]
    tasks = [task for dag in dags for task in dag.tasks]
    holders = {task.task_id for task in tasks if isinstance(task, acquiring) or getattr(task, "writes_s", None)}
    assert holders == set(HOLDERS)


def test_description_is_from_the_model_file(dag):
    """The list of DAGs shows the model file's description."""
    assert dag.description == read_model_file(PROJECT / "include/served/digits-vit.yaml").description


HEAVY = {
    "tensorflow",
    "docker",
    "kubernetes",
    "kubernetes_asyncio",
    "grpc",
    "huggingface_hub",
    "googleapiclient",
    "ray",
}


def test_parsing_loads_nothing_heavy(parses):
    """The tasks that need TensorFlow, docker, Kubernetes, gRPC or the Hub load them; a parse does not."""
    loaded = parses[0]["loaded"]
    assert {name for name in loaded if name.split(".")[0] in HEAVY} == set()


def test_parsing_loads_no_google_code(parses):
    """The only Google modules are those that `airflow.sdk` itself loads: a provider's info and an empty namespace."""
    loaded = parses[0]["loaded"]
    assert {name for name in loaded if name.startswith("airflow.providers.google.")} <= {
        "airflow.providers.google.get_provider_info"
    }
    assert {name for name in loaded if name.split(".")[0] == "google"} <= {"google", "google.cloud"}


def test_hash_is_the_same_if_parsed_again(parses):
    """Two parses give one version of the DAG."""
    assert parses[0]["hash"] == parses[1]["hash"]


def test_plugin_loader_does_not_load_the_package(parses):
    """Airflow's plugin loader does not execute the package's modules a second time under other names."""
    assert parses[0]["plugin_errors"] == {}
    assert parses[0]["stray"] == []


def test_the_registry_builds_in_one_task(dags_of):
    """In place of build, smoke test and push; the plan skips it like these."""
    text = GOOD + "image: {builder: registry}\n"
    dag = dags_of(appended=text)["appended"]
    assert dag.get_task("export").downstream_task_ids == {"push"}
    assert dag.get_task("push").downstream_task_ids == {"preview"}
    assert not {"build_image", "smoke_test"} & set(dag.task_ids)
    assert list(dag.get_task("plan").builds) == ["export", "push"]
