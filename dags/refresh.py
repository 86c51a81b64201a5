"""One DAG for each model file in `include/served/`: from a revision to a deployment that has answered correctly."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, BaseOperator, chain

from slipway.dag.forms import refresh_form
from slipway.dag.graph import REMOVE_PREVIEW, WAIT, deploy_stages, temporary_stages
from slipway.dag.tasks.build import BuildImageOperator, ExportOperator, PushOperator, SmokeTestOperator
from slipway.dag.tasks.cluster import ClaimClusterOperator, CreateClusterOperator, PreflightOperator
from slipway.dag.tasks.plan import PlanOperator, ResolveOperator
from slipway.dag.tasks.record import PruneOperator
from slipway.errors import InputRefused
from slipway.model.exporter import DEFAULT_EXPORTER_PYTHON
from slipway.model.model_file import ModelFile, is_previewed, is_temporary, may_be_inconclusive
from slipway.model.served import read_model_file, served_files
from slipway.names import dag_id

# Jinja, so that a worker's own setting is read where the exporter runs.
EXPORTER_PYTHON = f"{{{{ var.value.get('slipway_exporter_python', '{DEFAULT_EXPORTER_PYTHON}') }}}}"

DOC = """
### {model}
{description}

**resolve** pins revision and base image, **plan** finds out what changed since the live release and skips the rest. Where the
model file names a GKE cluster, **preflight** asks Google whether the run can do its work, and **create cluster** finds or makes
it. **export** writes the SavedModel,
**build image**, **smoke test** and **push** ship it. **preview** runs it beside the live release, where no user's request
reaches it, and the **preview gate** asks it the golden questions there (unless the model file says `strategy: rolling`).
Where the first gate is in doubt **approve**, if there is one, asks a person.
**apply** changes what is live, the **waits** watch it, the **gate**
asks the golden questions, **announce** tells the Asset. **rollback** brings the last good release back where the gate did
not pass, **remove preview** deletes what ran beside it, **record** writes down how it went, pass or fail, **prune** removes what goes beyond the model file's `retention`.
A temporary GKE cluster is claimed first, and deleted again whatever happened: **remove objects**, **delete cluster**, **leftovers**.

Model file: `include/served/{model}.yaml`. When a task is red, its last log line says where, what and what next.
"""


def refresh_dag(path: Path) -> DAG:
    """The DAG of one model file. A file that cannot be meant has no schedule, and its `resolve` says what is wrong."""
    file, description = _read(path)
    with DAG(
        dag_id(path.stem),
        description=description,
        doc_md=DOC.format(model=path.stem, description=description),
        schedule=_schedule(path.stem, file),
        params=refresh_form(file),
        max_active_runs=1,  # two runs of one model would write the same objects
        default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
        tags=["slipway", "refresh"],
    ) as dag:
        asks = file is not None and may_be_inconclusive(file)
        clusters: list[BaseOperator] = []
        if file is not None and file.target.gke is not None:
            clusters = [CreateClusterOperator(task_id="create_cluster", task_display_name="create cluster", **WAIT)]
        if file is not None and is_temporary(file):
            clusters.insert(0, ClaimClusterOperator(task_id="claim_cluster", task_display_name="claim cluster"))
            stages = temporary_stages(setups=clusters, asks=asks)
        else:
            stages = deploy_stages(path.stem, preview=file is None or is_previewed(file), asks=asks)
        # The preview's removal is never skipped: a killed run may have left one.
        deploys = [*clusters, *(stage for stage in stages if stage.task_id != REMOVE_PREVIEW)]
        builds: list[BaseOperator] = [
            ExportOperator(task_id="export", exporter_python=EXPORTER_PYTHON),
            BuildImageOperator(task_id="build_image", task_display_name="build image"),
            SmokeTestOperator(task_id="smoke_test", task_display_name="smoke test"),
            PushOperator(task_id="push"),
        ]
        prune = PruneOperator(task_id="prune").as_teardown()
        plan = PlanOperator(
            task_id="plan",
            builds=[task.task_id for task in builds],
            deploys=[task.task_id for task in (*deploys, prune)],
        )
        preflights = [PreflightOperator(task_id="preflight")] if clusters else []
        chain(ResolveOperator(task_id="resolve", model_file=str(path)), *preflights, plan, *builds, stages[0])
        if clusters:  # beside export and build, not before them
            chain(plan, *clusters, stages[0])
        chain(stages[-1], prune)
    return dag


def _read(path: Path) -> tuple[ModelFile | None, str]:
    try:
        file = read_model_file(path)
    except InputRefused as error:
        return None, f"refused: {error}"
    return file, file.description or f"Keeps {path.stem} fresh."


def _schedule(model: str, file: ModelFile | None) -> str | list[Asset] | AssetOrTimeSchedule | None:
    if file is None or file.watch is None:
        return file.schedule if file else None
    from slipway.dag.triggers.hub import watched_schedule

    return watched_schedule(model, file)


for served in served_files():
    refresh = refresh_dag(served)
    globals()[refresh.dag_id] = refresh
