import json
import os
import runpy
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.models.dagrun import DagRun
from airflow.serialization.serialized_objects import DagSerialization

from slipway.dag.forms import read_params, read_release
from slipway.dag.run_lease import HOLDERS
from slipway.dag.tasks.deploy import RemovePreviewOperator
from slipway.dag.tasks.gate import ApproveOperator
from slipway.dag.tasks.plan import ChooseOperator, PlanOperator
from slipway.dag.tasks.rollback import RollbackOperator
from slipway.dag.tasks.teardown import RemoveObjectsOperator
from slipway.dag.tasks.waits import WaitSensor
from slipway.model import served
from slipway.model.served import read_model_file, served_files
from slipway.names import dag_id
from slipway.steps.settings import RefreshParams

PROJECT = Path(__file__).parents[2]
FILE = PROJECT / "dags" / "refresh.py"
STORY = (
    "resolve", "plan", "export", "build_image", "smoke_test", "push", "preview", "wait_for_preview", "preview_gate",
    "apply", "wait_for_rollout", "wait_for_address", "gate", "announce", "rollback", "remove_preview", "record", "prune",
)  # fmt: skip
PREVIEW = ("preview", "wait_for_preview", "preview_gate")
GOOD = """\
source: {folder: digits-vit/checkpoint}
schedule: "0 3 * * *"
gate: {golden: [{name: three, image: three.png, label: "3"}]}
"""

# In a process of its own: what parsing alone has loaded, what the DAG serialises to, and what the plugin loader then loads.
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
stray = [name for name in set(sys.modules) - before if "/plugins/slipway/" in str(getattr(sys.modules[name], "__file__", ""))]
print(json.dumps({{"loaded": loaded, "hash": hash_, "stray": stray, "plugin_errors": plugin_errors}}))
"""


class Ran(NamedTuple):
    """A task that has run, as far as Airflow looks at it for the run's colour."""

    task_id: str
    state: str


@pytest.fixture(scope="module")
def bag():
    """The DAGs as Airflow's DAG processor finds them."""
    return DagBag(dag_folder=str(PROJECT / "dags"))


@pytest.fixture(scope="module")
def dag(bag):
    """The embedded default's DAG."""
    return bag.dags["refresh_digits_vit"]


@pytest.fixture(scope="module")
def parses():
    """Two parses in processes of their own, whose sets are ordered differently."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PARSE, seed],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(PROJECT / "plugins")},
        )
        for seed in ("1", "2")
    ]
    said = [process.communicate(timeout=1800)[0] for process in running]
    return [json.loads(text.splitlines()[-1]) for text in said]


@pytest.fixture
def dags_of(monkeypatch, tmp_path):
    """The DAGs that the DAG file makes of these model files, by name."""

    def parse(**texts):
        paths = [tmp_path / f"{name}.yaml" for name in sorted(texts)]
        for path in paths:
            path.write_text(texts[path.stem])
        monkeypatch.setattr(served, "served_files", lambda: paths)
        made = runpy.run_path(str(FILE))
        return {path.stem: made[dag_id(path.stem)] for path in paths}

    return parse


def test_no_import_errors_and_one_dag_per_model_file(bag):
    """Every model file that ships has its DAG, and nothing else does."""
    assert bag.import_errors == {}
    assert {dag_id(path.stem) for path in served_files()} <= set(bag.dags)
    assert "refresh_digits_vit" in bag.dags


def test_tasks_follow_one_another_as_the_story_is_told(dag):
    """The graph is the story: each task has exactly the next one after it."""
    downstream = {task.task_id: task.downstream_task_ids for task in dag.tasks}
    assert {**{task: {following} for task, following in pairwise(STORY)}, "prune": set()} == downstream


def test_cluster_is_made_beside_export_and_build(bag):
    """Where the model file names a GKE cluster, the preview waits for it and for the image, and neither for the other."""
    dag = bag.dags["refresh_digits_vit_gke"]
    assert {task.task_id for task in dag.tasks} == {*STORY, "preflight", "create_cluster"}
    assert dag.get_task("plan").downstream_task_ids == {"export", "create_cluster"}
    assert dag.get_task("create_cluster").downstream_task_ids == {"preview"}
    assert dag.get_task("preview").upstream_task_ids == {"push", "create_cluster"}


def test_google_is_asked_before_anything_is_planned(bag):
    """On a GKE target everything waits for the preflight, also in a run that only plans."""
    dag = bag.dags["refresh_digits_vit_gke"]
    assert dag.get_task("resolve").downstream_task_ids == {"preflight"}
    assert dag.get_task("preflight").downstream_task_ids == {"plan"}
    assert "preflight" not in dag.get_task("plan").deploys


def test_cluster_is_looked_at_if_there_is_nothing_to_build(bag):
    """What the plan skips with the image is not the cluster: manifests are applied to one that has been proven."""
    plan = bag.dags["refresh_digits_vit_gke"].get_task("plan")
    assert "create_cluster" in plan.deploys
    assert "create_cluster" not in plan.builds


DOUBTFUL = GOOD.replace('label: "3"}]', 'label: "3"}], latency_ms: 500')
GATES = {
    "preview": ("", "preview_gate", "apply", "gate"),
    "rolling": ("target: {strategy: rolling}\n", "gate", "announce", "approve"),
    "a temporary cluster": ("target: {gke: {temporary: true}}\n", "gate", "announce", "approve"),
}


@pytest.mark.parametrize(("target", "first", "then", "proof"), GATES.values(), ids=GATES)
def test_a_person_is_asked_after_the_first_gate_that_may_be_in_doubt(dags_of, target, first, then, proof):
    """Where the gate can be in doubt a question follows the first one: before apply, where there is a preview; else as the proof."""
    dag = dags_of(doubtful=DOUBTFUL + target)["doubtful"]
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


@pytest.mark.parametrize("rules", ["", ", latency_ms: 500, on_inconclusive: fail"], ids=["sure", "told to fail"])
def test_nobody_is_asked_if_there_is_no_doubt_to_be_had(dags_of, rules):
    """A gate that is always sure, and one that takes doubt for no, is followed by no question."""
    dag = dags_of(sure=GOOD.replace('label: "3"}]', f'label: "3"}}]{rules}'))["sure"]
    assert "approve" not in dag.task_ids
    assert not any(getattr(task, "asks", False) for task in dag.tasks)
    assert dag.get_task("record").proof_task_id == "gate"


def test_rolling_update_has_no_preview(dags_of):
    """Where the model file says rolling, the graph is the story without the preview; what one left is removed all the same."""
    dag = dags_of(plain=GOOD + "target: {strategy: rolling}\n")["plain"]
    story = [task for task in STORY if task not in PREVIEW]
    downstream = {task.task_id: task.downstream_task_ids for task in dag.tasks}
    assert {**{task: {following} for task, following in pairwise(story)}, "prune": set()} == downstream


def test_nothing_is_previewed_if_nothing_is_deployed(dag):
    """A run with nothing to do skips the preview; it still removes what a killed one left of one."""
    deploys = set(dag.get_task("plan").deploys)
    assert {*PREVIEW, "remove_preview"} - deploys == {"remove_preview"}


def test_no_preview_and_nothing_built_still_lead_to_apply(dag):
    """What skips build or preview does not skip what follows; what looks at a preview is skipped with it, or fails apply."""
    rules = {
        task: dag.get_task(task).trigger_rule.value for task in ("preview", "wait_for_preview", "preview_gate", "apply")
    }
    assert rules == {
        "preview": "none_failed",
        "wait_for_preview": "all_success",
        "preview_gate": "all_success",
        "apply": "none_failed",
    }


TEMPORARY = GOOD + "target: {gke: {temporary: true}}\n"


@pytest.fixture
def temporary(dags_of):
    """The DAG of a model whose runs make their own cluster."""
    dag = dags_of(temporary=TEMPORARY)["temporary"]
    dag.validate()
    assert DagSerialization.to_dict(dag)
    return dag


def test_temporary_cluster_is_claimed_made_and_taken_away(temporary):
    """Claim and creation are the setups of the tasks that take it away, which run whatever happened between."""
    takes = ("remove_objects", "delete_cluster", "leftovers")
    made = {"preflight", "claim_cluster", "create_cluster"}
    assert {task.task_id for task in temporary.tasks} == {*STORY, *takes, *made} - {
        "rollback",
        "remove_preview",
        *PREVIEW,
    }
    assert {task.task_id for task in temporary.tasks if task.is_setup} == {"claim_cluster", "create_cluster"}
    for task in map(temporary.get_task, takes):
        assert task.is_teardown
        assert {"claim_cluster", "create_cluster"} <= task.upstream_task_ids
        assert task.trigger_rule == "all_done_setup_success"
    assert "announce" in temporary.get_task("remove_objects").upstream_task_ids
    assert temporary.get_task("claim_cluster").downstream_task_ids == {"create_cluster", *takes}


def test_temporary_run_is_red_if_the_gate_or_the_deletion_failed(temporary):
    """The deletion is a leaf that counts too: without it the cluster goes on being billed."""
    tis = [Ran(task.task_id, "success") for task in temporary.tasks]
    leaves = DagRun(dag_id=temporary.dag_id)._tis_for_dagrun_state(dag=temporary, tis=tis)
    assert {leaf.task_id for leaf in leaves} == {"announce", "delete_cluster", "record"}


def test_temporary_release_is_announced_to_nobody(temporary):
    """What nobody can ask any more is no news of a live release."""
    assert [task.task_id for task in temporary.tasks if task.outlets] == []


def test_clearing_a_task_makes_the_temporary_cluster_again(temporary):
    """Airflow clears a task's setups and teardowns with it: a gate that is tried again has a cluster to ask."""
    cleared = temporary.partial_subset(["gate"], include_downstream=True, include_upstream=False).task_ids
    assert {"claim_cluster", "create_cluster", "gate", "remove_objects", "delete_cluster"} <= set(cleared)


@pytest.mark.parametrize("task_id", ["rollback", "remove_preview", "prune"])
def test_teardowns_cannot_turn_a_run_green_or_red(dag, task_id):
    """Rollback, removal and prune are teardowns that run whatever happened, bound to no setup, and do not fail the run."""
    task = dag.get_task(task_id)
    assert task.is_teardown
    assert task.on_failure_fail_dagrun is False
    assert not any(task.is_setup for task in dag.tasks)


def test_announce_and_record_give_the_run_its_colour(dag):
    """By Airflow's own reckoning the announcement below the gate counts, and the record, which knows if a person ended the run."""
    tis = [Ran(task.task_id, "success") for task in dag.tasks]
    leaves = DagRun(dag_id=dag.dag_id)._tis_for_dagrun_state(dag=dag, tis=tis)
    assert {leaf.task_id for leaf in leaves} == {"announce", "record"}


def test_announce_alone_updates_the_asset(dag):
    """The Asset's event comes from a task after the gate, never from a teardown, which would emit it in a red run."""
    announcing = {task.task_id: [asset.uri for asset in task.outlets] for task in dag.tasks if task.outlets}
    assert announcing == {"announce": ["x-slipway://served/digits-vit"]}


def test_one_run_at_a_time_without_a_limit_that_skips_the_record(dag):
    """Two runs would write the same objects; a run's timeout would skip everything, the record included."""
    assert dag.max_active_runs == 1
    assert dag.dagrun_timeout is None
    assert dag.catchup is False


def test_every_param_is_valid_as_it_is(bag):
    """A run without a form is one as the model file says."""
    for name, each in bag.dags.items():
        each.params.validate()
        if name.startswith("refresh_"):
            assert RefreshParams() == read_params(each.params.dump())
        elif name.startswith("rollback_"):
            assert read_release(each.params.dump()) is None


def test_model_file_with_a_schedule_has_a_dag_that_runs_by_it(dags_of):
    """A schedule in the model file is the DAG's, and the DAG can be stored."""
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
def test_watched_model_runs_for_a_new_commit(dags_of, schedule):
    """A watched model's DAG runs by its upstream Asset, which has a watcher, and by the time where the file gives one."""
    dag = dags_of(watched=WATCHED + (f'schedule: "{schedule}"\n' if schedule else ""))["watched"]
    dag.validate()
    stored = json.dumps(DagSerialization.to_dict(dag))
    assert "x-slipway://upstream/watched" in stored
    assert "slipway.dag.triggers.hub.HubTrigger" in stored
    assert ("0 3 * * *" in stored) is (schedule is not None)


REFUSED = {
    "unknown field": ("odd", GOOD + "shedule: daily\n", "shedule: "),
    "bad schedule": ("odd", GOOD.replace("0 3", "61 3"), "schedule: "),
    "not YAML": ("odd", "source: [\n", "not YAML: "),
    "source is text": ("odd", "source: google/vit\n", "source: "),
    "misnamed": ("My Model", GOOD, "the file's name is the model's name"),
}


@pytest.mark.parametrize(("name", "text", "words"), REFUSED.values(), ids=REFUSED)
def test_malformed_model_file_still_has_a_dag(dags_of, name, text, words):
    """A refused file has a DAG that never starts by itself and says what is wrong; the others are as they were."""
    dags = dags_of(**{name: text, "good": GOOD})
    refused = dags[name]
    refused.validate()
    assert not refused.timetable.can_be_scheduled
    assert refused.description.startswith("refused: ")
    assert words in refused.description
    assert words in refused.doc_md
    assert DagSerialization.to_dict(refused)
    assert dags["good"].timetable.can_be_scheduled


def test_whoever_may_hold_the_target_first_is_known(bag, dags_of):
    """A run finds out whether it has held its target from what these tasks left: none that takes the Lease is missing."""
    takes = (
        PlanOperator, ChooseOperator, WaitSensor, RollbackOperator, RemovePreviewOperator, RemoveObjectsOperator, ApproveOperator,
    )  # fmt: skip
    dags = [*bag.dags.values(), *dags_of(doubtful=DOUBTFUL).values()]
    tasks = [task for dag in dags for task in dag.tasks]
    holders = {task.task_id for task in tasks if isinstance(task, takes) or getattr(task, "writes_s", None)}
    assert holders == set(HOLDERS)


def test_description_is_the_model_files(dag):
    """What a person reads in the list of DAGs is what the model file says."""
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
    """TensorFlow, docker, Kubernetes, gRPC and the Hub are loaded by the tasks that need them, never by a parse."""
    loaded = parses[0]["loaded"]
    assert {name for name in loaded if name.split(".")[0] in HEAVY} == set()


def test_parsing_loads_no_google_code(parses):
    """Of Google there is only what `airflow.sdk` alone brings: a provider's info and an empty namespace."""
    loaded = parses[0]["loaded"]
    assert {name for name in loaded if name.startswith("airflow.providers.google.")} <= {
        "airflow.providers.google.get_provider_info"
    }
    assert {name for name in loaded if name.split(".")[0] == "google"} <= {"google", "google.cloud"}


def test_same_hash_if_parsed_again(parses):
    """Two parses are one version of the DAG."""
    assert parses[0]["hash"] == parses[1]["hash"]


def test_plugin_loader_keeps_off_the_package(parses):
    """Airflow's plugin loader executes nothing of the package a second time under another name."""
    assert parses[0]["plugin_errors"] == {}
    assert parses[0]["stray"] == []
