"""One DAG for each model file in `include/served/`: from a revision to a deployment that has answered correctly."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Asset, chain

from slipway.errors import InputRefused
from slipway.export import DEFAULT_EXPORTER_PYTHON
from slipway.model_file import ModelFile, read_model_file, served_files
from slipway.operators import (
    AnnounceOperator,
    ApplyOperator,
    BuildImageOperator,
    ExportOperator,
    PushOperator,
    RecordOperator,
    ResolveOperator,
    SmokeTestOperator,
)
from slipway.params import refresh_form
from slipway.release import asset_uri, dag_id
from slipway.sensors import AddressSensor, PredictionSensor, RolloutSensor

# Jinja, so that a worker's own setting is read where the exporter runs.
EXPORTER_PYTHON = f"{{{{ var.value.get('slipway_exporter_python', '{DEFAULT_EXPORTER_PYTHON}') }}}}"

DOC = """
### {model}
{description}

**resolve** pins revision and base image, **export** writes the SavedModel, **build_image**, **smoke_test** and **push**
ship it, **apply** changes the cluster, **wait_for_rollout** and **wait_for_address** watch it, the **gate** asks the
golden questions, **announce** tells the Asset, **record** writes down how it went, pass or fail.

Model file: `include/served/{model}.yaml`. When a task is red, its last log line says where, what and what next.
"""


def refresh_dag(path: Path) -> DAG:
    """The DAG of one model file. A file that cannot be meant has no schedule, and its `resolve` says what is wrong."""
    file, description = _read(path)
    with DAG(
        dag_id(path.stem),
        description=description,
        doc_md=DOC.format(model=path.stem, description=description),
        schedule=file.schedule if file else None,
        params=refresh_form(file),
        max_active_runs=1,  # two runs of one model would write the same objects
        default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
        tags=["slipway", "refresh"],
    ) as dag:
        resolve = ResolveOperator(task_id="resolve", model_file=str(path))
        export = ExportOperator(task_id="export", exporter_python=EXPORTER_PYTHON)
        image = BuildImageOperator(task_id="build_image", task_display_name="build image")
        smoke_test = SmokeTestOperator(task_id="smoke_test", task_display_name="smoke test")
        push = PushOperator(task_id="push")
        apply = ApplyOperator(task_id="apply")
        rollout = RolloutSensor(task_id="wait_for_rollout", task_display_name="wait for rollout")
        address = AddressSensor(task_id="wait_for_address", task_display_name="wait for address")
        gate = PredictionSensor(task_id="gate")
        announce = AnnounceOperator(
            task_id="announce", announces=Asset(name=path.stem, uri=asset_uri(path.stem), group="slipway")
        )
        # A teardown runs whatever happened, and cannot turn a red run green.
        record = RecordOperator(task_id="record", proof_task_id="gate").as_teardown()
        chain(resolve, export, image, smoke_test, push, apply, rollout, address, gate, announce, record)
    return dag


def _read(path: Path) -> tuple[ModelFile | None, str]:
    try:
        file = read_model_file(path)
    except InputRefused as error:
        return None, f"refused: {error}"
    return file, file.description or f"Keeps {path.stem} fresh."


for served in served_files():
    refresh = refresh_dag(served)
    globals()[refresh.dag_id] = refresh
