"""The tasks that every road onto a cluster ends with, as the refresh and the rollback DAG have them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, BaseOperator, chain

from slipway.dag.tasks.deploy import AnnounceOperator, ApplyOperator, PreviewOperator, RemovePreviewOperator
from slipway.dag.tasks.gate import APPROVE, ApproveOperator, PredictionSensor
from slipway.dag.tasks.record import RecordOperator
from slipway.dag.tasks.rollback import RollbackOperator
from slipway.dag.tasks.teardown import DeleteClusterOperator, LeftoversOperator, RemoveObjectsOperator
from slipway.dag.tasks.waits import AddressSensor, RolloutSensor
from slipway.names import asset_uri

GATE, PREVIEW_GATE, REMOVE_PREVIEW = "gate", "preview_gate", "remove_preview"
# A wait that failed says so without a retry; what is tried again is a deferral that Airflow lost, and soon.
WAIT: dict[str, Any] = {"retries": 5, "retry_delay": timedelta(seconds=5)}
# An API server that restarts must not keep the good release away: what is tried again for five minutes is one that is silent.
UNDO: dict[str, Any] = {"retries": 30, "retry_delay": timedelta(seconds=10)}


def deploy_stages(model: str, *, preview: bool = False, asks: bool = False) -> list[BaseOperator]:
    """The preview and its gate, apply, the waits, the gate, announce, and the teardowns, already chained.

    A skipped task before the preview or apply does not skip them: a release that changed only manifests builds nothing,
    one that only comes back has no preview. Where a preview fails, apply does not run. With `asks`, a person decides
    where the first gate is in doubt: before anything is applied, where there is a preview.
    """
    proof = APPROVE if asks and not preview else GATE
    return _chained(
        *(_preview_stages(asks=asks) if preview else ()),
        *_proof_stages("none_failed", asks=asks and not preview),
        AnnounceOperator(task_id="announce", announces=Asset(name=model, uri=asset_uri(model), group="slipway")),
        # Teardowns run whatever happened, and cannot turn a red run green: announce is the leaf that counts. Beside it, not
        # right below it, record is another.
        RollbackOperator(task_id="rollback", model=model, proof_task_id=proof, **UNDO).as_teardown(),
        # Without a preview of its own too: a killed run may have left one, of before the model file said rolling.
        RemovePreviewOperator(task_id=REMOVE_PREVIEW, task_display_name="remove preview").as_teardown(),
        RecordOperator(task_id="record", proof_task_id=proof).as_teardown(on_failure_fail_dagrun=True),
    )


def temporary_stages(setups: list[BaseOperator], *, asks: bool = False) -> list[BaseOperator]:
    """The same on a cluster that the run makes and deletes: nothing to roll back to, nothing that stays to be announced.

    The teardowns belong to the setups: they run if one of them succeeded, whatever happened to the others and between.
    A cluster that could not be deleted is billed, so that this too turns the run red. It does so as a second leaf beside
    announce: right below announce it would take its place, and a run whose gate failed would be green.
    """
    return _chained(
        *_proof_stages(
            "all_success", asks=asks
        ),  # Airflow's rule for what follows a setup; here everything is built anew
        AnnounceOperator(task_id="announce", announces=None),
        RemoveObjectsOperator(task_id="remove_objects", task_display_name="remove objects", **WAIT).as_teardown(
            setups=setups
        ),
        DeleteClusterOperator(task_id="delete_cluster", task_display_name="delete cluster", **WAIT).as_teardown(
            setups=setups, on_failure_fail_dagrun=True
        ),
        LeftoversOperator(task_id="leftovers").as_teardown(setups=setups),
        RecordOperator(task_id="record", proof_task_id=APPROVE if asks else GATE).as_teardown(
            on_failure_fail_dagrun=True
        ),
    )


def _preview_stages(*, asks: bool) -> list[BaseOperator]:
    """What is skipped with the preview is what looks at it."""
    return [
        PreviewOperator(task_id="preview", trigger_rule="none_failed"),
        RolloutSensor(task_id="wait_for_preview", task_display_name="wait for preview", preview=True, **WAIT),
        PredictionSensor(task_id=PREVIEW_GATE, task_display_name="preview gate", preview=True, asks=asks, **WAIT),
        *([ApproveOperator(task_id=APPROVE, gate_task_id=PREVIEW_GATE, preview=True, **WAIT)] if asks else ()),
    ]


def _proof_stages(apply_rule: str, *, asks: bool) -> list[BaseOperator]:
    return [
        ApplyOperator(task_id="apply", trigger_rule=apply_rule),
        RolloutSensor(task_id="wait_for_rollout", task_display_name="wait for rollout", **WAIT),
        AddressSensor(task_id="wait_for_address", task_display_name="wait for address", **WAIT),
        PredictionSensor(task_id=GATE, asks=asks, **WAIT),
        *([ApproveOperator(task_id=APPROVE, gate_task_id=GATE, **WAIT)] if asks else ()),
    ]


def _chained(*stages: BaseOperator) -> list[BaseOperator]:
    chain(*stages)
    return list(stages)
