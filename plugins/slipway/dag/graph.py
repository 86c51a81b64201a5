"""The parts that the DAGs are chained from: lists of tasks that run one after another."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, BaseOperator

from slipway.dag import task_ids
from slipway.dag.tasks.bake import BakeSensor
from slipway.dag.tasks.build import (
    AppendImageOperator,
    BuildImageOperator,
    ExportOperator,
    PushOperator,
    SmokeTestOperator,
)
from slipway.dag.tasks.cluster import ClaimClusterOperator, CreateClusterOperator
from slipway.dag.tasks.deploy import AnnounceOperator, ApplyOperator, PreviewOperator, RemovePreviewOperator
from slipway.dag.tasks.gate import ApproveOperator, PredictionSensor
from slipway.dag.tasks.load import LoadGateOperator
from slipway.dag.tasks.record import RecordOperator
from slipway.dag.tasks.rollback import RollbackOperator
from slipway.dag.tasks.teardown import DeleteClusterOperator, LeftoversOperator, RemoveObjectsOperator
from slipway.dag.tasks.waits import AddressSensor, RolloutSensor
from slipway.dag.tries import retries_of_a_wait
from slipway.names import asset_uri
from slipway.release import Builder
from slipway.runtimes import RUNTIMES
from slipway.serving.load_program import DEFAULT_LOAD_PYTHON

# Every task of a DAG, unless it says otherwise.
RETRIES: dict[str, Any] = {"retries": 2, "retry_delay": timedelta(seconds=30)}
# A wait that failed is not retried. Other errors, and tries that Airflow lost, are retried after a few seconds.
WAIT = retries_of_a_wait(5, delay_s=5)
# An API server that restarts must not prevent a rollback: every error is retried, for at least five minutes.
ROLLBACK = retries_of_a_wait(30, delay_s=10)
# A run that announced its release records its end some seconds later, on a busy Airflow up to a minute.
UNTIL_SETTLED: dict[str, Any] = {"retries": 12, "retry_delay": timedelta(seconds=10)}
# Jinja, so that a worker's own setting is read where the exporter runs.
EXPORTER_PYTHONS = {
    name: f"{{{{ var.value.get('{runtime.python_variable}', '{runtime.default_python}') }}}}"
    for name, runtime in RUNTIMES.items()
}
LOAD_PYTHON = f"{{{{ var.value.get('slipway_load_python', '{DEFAULT_LOAD_PYTHON}') }}}}"


def build_tasks(builder: Builder) -> list[BaseOperator]:
    """Export the model, build its image, test it, push it; or let the registry build it, which the preview tests."""
    export = ExportOperator(task_id=task_ids.EXPORT, exporter_pythons=EXPORTER_PYTHONS)
    if builder == "registry":
        return [export, AppendImageOperator(task_id=task_ids.PUSH, task_display_name="build in registry")]
    return [
        export,
        BuildImageOperator(task_id=task_ids.BUILD_IMAGE, task_display_name="build image"),
        SmokeTestOperator(task_id=task_ids.SMOKE_TEST, task_display_name="smoke test"),
        PushOperator(task_id=task_ids.PUSH),
    ]


def cluster_tasks(*, temporary: bool) -> list[BaseOperator]:
    """Find or create the GKE cluster. A temporary one is claimed first: only its own run may create and delete it."""
    create = CreateClusterOperator(task_id=task_ids.CREATE_CLUSTER, task_display_name="create cluster", **WAIT)
    if not temporary:
        return [create]
    return [ClaimClusterOperator(task_id=task_ids.CLAIM_CLUSTER, task_display_name="claim cluster"), create]


def preview_tasks(*, asks: bool, loads: bool = False) -> list[BaseOperator]:
    """Run the release next to the live one and gate it there; with `loads`, under load too; with `asks`, a person may be asked.

    If the preview is skipped, so is what waits for it. A skipped task before the preview does not skip it: a release that
    changed only manifests builds nothing. Neither does a skipped smoke test, which the gate waits for too, skip the gate.
    """
    return [
        PreviewOperator(task_id=task_ids.PREVIEW, trigger_rule="none_failed"),
        RolloutSensor(task_id=task_ids.WAIT_FOR_PREVIEW, task_display_name="wait for preview", preview=True, **WAIT),
        PredictionSensor(
            task_id=task_ids.PREVIEW_GATE,
            task_display_name="preview gate",
            preview=True,
            asks=asks,
            trigger_rule="none_failed_min_one_success",
            **WAIT,
        ),
        *(_load_gate(asks=asks) if loads else ()),
        *_approval(asks=asks, preview=True),
    ]


def chain_proof(tasks: list[BaseOperator]) -> list[Any]:
    """The tasks of `proof_tasks` in their order, for `chain`: after `apply`, both waits at once."""
    apply, rollout, address, *rest = tasks
    return [apply, (rollout, address), *rest]


def proof_tasks(*, asks: bool, bakes: bool = False, temporary: bool = False) -> list[BaseOperator]:
    """Apply the release, wait for it, and gate it at its public address; with `bakes`, watch it for some time after that.

    `chain_proof` says in which order. A skipped task before `apply` does not skip it; a failed one, such as the preview's gate, does. On a temporary cluster
    everything is built again, and Airflow wants the rule all_success after a setup.
    """
    return [
        ApplyOperator(task_id=task_ids.APPLY, trigger_rule="all_success" if temporary else "none_failed"),
        RolloutSensor(task_id=task_ids.WAIT_FOR_ROLLOUT, task_display_name="wait for rollout", **WAIT),
        AddressSensor(task_id=task_ids.WAIT_FOR_ADDRESS, task_display_name="wait for address", **WAIT),
        PredictionSensor(task_id=task_ids.GATE, asks=asks, **WAIT),
        *_approval(asks=asks),
        *([BakeSensor(task_id=task_ids.BAKE, **WAIT)] if bakes else []),
    ]


def _load_gate(*, asks: bool) -> list[BaseOperator]:
    name = "preview load"
    return [LoadGateOperator(task_id=task_ids.PREVIEW_LOAD, task_display_name=name, load_python=LOAD_PYTHON, asks=asks)]


def _approval(*, asks: bool, preview: bool = False) -> list[BaseOperator]:
    return [ApproveOperator(task_id=task_ids.APPROVE, preview=preview, **WAIT)] if asks else []


def announce_task(model: str, *, temporary: bool = False) -> BaseOperator:
    """Update the model's Asset: the leaf that gives the run its colour. On a temporary cluster nothing stays to be announced."""
    asset = None if temporary else Asset(name=model, uri=asset_uri(model), group="slipway")
    return AnnounceOperator(task_id=task_ids.ANNOUNCE, announces=asset)


def closing_tasks(model: str, *, proof: BaseOperator) -> list[BaseOperator]:
    """Roll back what was not proven, remove the preview and what a proven release no longer has, close the record.

    `proof` is the task that proves the release.
    All are teardowns: they run whatever happened, and cannot turn a red run green. `record` may turn a green run red; it is
    not directly below `announce`, because it would then take the place of that leaf.
    """
    return [
        RollbackOperator(task_id=task_ids.ROLLBACK, model=model, proof_task_id=proof.task_id, **ROLLBACK).as_teardown(),
        # Also if this release has no preview: a killed run may have left one.
        RemovePreviewOperator(
            task_id=task_ids.REMOVE_PREVIEW, task_display_name="remove preview", proof_task_id=proof.task_id
        ).as_teardown(),
        _record_task(proof),
    ]


def temporary_closing_tasks(*, setups: list[BaseOperator], proof: BaseOperator) -> list[BaseOperator]:
    """Delete the objects and the cluster that the run made, list what Google leaves, close the record.

    They are the teardowns of `setups`: they run if one of these succeeded, whatever happened in between. A cluster that could
    not be deleted is billed, so that this turns the run red.
    """
    return [
        RemoveObjectsOperator(task_id=task_ids.REMOVE_OBJECTS, task_display_name="remove objects", **WAIT).as_teardown(
            setups=setups
        ),
        DeleteClusterOperator(task_id=task_ids.DELETE_CLUSTER, task_display_name="delete cluster", **WAIT).as_teardown(
            setups=setups, on_failure_fail_dagrun=True
        ),
        LeftoversOperator(task_id=task_ids.LEFTOVERS).as_teardown(setups=setups),
        _record_task(proof),
    ]


def _record_task(proof: BaseOperator) -> BaseOperator:
    record = RecordOperator(task_id=task_ids.RECORD, proof_task_id=proof.task_id)
    record.as_teardown(on_failure_fail_dagrun=True)
    return record
