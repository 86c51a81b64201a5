"""The tasks that every road onto a cluster ends with, as the refresh and the rollback DAG have them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, BaseOperator, chain

from slipway.operators import AnnounceOperator, ApplyOperator, RecordOperator
from slipway.release import asset_uri
from slipway.sensors import AddressSensor, PredictionSensor, RolloutSensor
from slipway.undo import RollbackOperator

GATE = "gate"
# A wait that failed says so without a retry; what is tried again is a deferral that Airflow lost, and soon.
WAIT: dict[str, Any] = {"retries": 5, "retry_delay": timedelta(seconds=5)}


def deploy_stages(model: str) -> list[BaseOperator]:
    """apply, the waits, the gate, announce, and the teardowns, already chained.

    A skipped task before them does not skip them: a release that changed only manifests builds nothing.
    """
    stages: list[BaseOperator] = [
        ApplyOperator(task_id="apply", trigger_rule="none_failed"),
        RolloutSensor(task_id="wait_for_rollout", task_display_name="wait for rollout", **WAIT),
        AddressSensor(task_id="wait_for_address", task_display_name="wait for address", **WAIT),
        PredictionSensor(task_id=GATE, **WAIT),
        AnnounceOperator(task_id="announce", announces=Asset(name=model, uri=asset_uri(model), group="slipway")),
        # Teardowns run whatever happened, and cannot turn a red run green: announce is the leaf that counts.
        RollbackOperator(task_id="rollback", model=model, proof_task_id=GATE, **WAIT).as_teardown(),
        RecordOperator(task_id="record", proof_task_id=GATE).as_teardown(),
    ]
    chain(*stages)
    return stages
