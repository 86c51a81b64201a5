"""The refresh DAG of a model file: from a revision to a deployment that has answered correctly."""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, chain

from slipway.dag import task_ids
from slipway.dag.forms import refresh_form
from slipway.dag.graph import (
    RETRIES,
    announce_task,
    build_tasks,
    chain_proof,
    closing_tasks,
    cluster_tasks,
    preview_tasks,
    proof_tasks,
    temporary_closing_tasks,
)
from slipway.dag.tasks.cluster import PreflightOperator
from slipway.dag.tasks.plan import PlanOperator, ResolveOperator
from slipway.dag.tasks.record import PruneOperator
from slipway.errors import InputRefused, plain_line
from slipway.model.model_file import ModelFile, is_previewed, is_temporary, may_ask_person
from slipway.names import dag_id, printable
from slipway.paths import shown

DOC = """
### {model}
{description}

**resolve** pins the revision and the base image. **plan** finds out what has changed since the live release and skips what is not
needed. If the model file names a GKE cluster, **preflight** asks Google whether the run can do its work, and **create cluster**
finds or creates it while the image is built.
**export** writes the model that is served; **build image** and **push** ship it, and the **smoke test** asks the image on the worker. **preview** runs it next to the live
release, where no user's request reaches it, and the **preview gate** sends it the golden requests there (unless the model file
says `strategy: rolling`). **preview load** sends it as many requests as the model file's `gate.load` says. **approve** asks a person, if the model file wants that for every release, or for one whose first gate was
inconclusive.
**apply** changes what is live, the **waits** watch it, the **gate** sends the golden requests to the public address,
**bake** goes on doing so for some time and reads the servers' metrics, if the model file says so, and **announce** updates the Asset. If
the gate or the bake did not pass, **rollback** brings the last good release back. **remove preview** deletes
the preview and what a proven release no longer has, **record** writes down how the run went, and **prune** removes what the
model file's `retention` no longer covers.
A temporary GKE cluster is claimed first, and deleted whatever happened: **remove objects**, **delete cluster**, **leftovers**.

Model file: `{path}`. If a task is red, its last log line says where, what and what next.
"""


def refresh_dag(path: Path, asked: ModelFile | InputRefused) -> DAG:
    """The DAG of one model file. If the file is refused, the DAG has no schedule, and `resolve` says what is wrong."""
    model = printable(path.stem)
    file, description = _described(model, asked)
    on_gke = file is not None and file.target.gke is not None
    temporary = file is not None and is_temporary(file)
    previewed = not temporary and (file is None or is_previewed(file))
    asks = file is not None and may_ask_person(file)  # after the first gate
    loads = file is not None and file.gate.load is not None
    with DAG(
        dag_id(model),
        description=description,
        doc_md=DOC.format(model=model, description=description, path=plain_line(shown(path))),
        schedule=_schedule(model, file),
        params=refresh_form(file),
        max_active_runs=1,  # two runs of one model would write the same objects
        default_args=RETRIES,
        tags=["slipway", "refresh"],
    ) as dag:
        resolve = ResolveOperator(task_id=task_ids.RESOLVE, model_file=str(path.with_name(printable(path.name))))
        preflight = [PreflightOperator(task_id=task_ids.PREFLIGHT)] if on_gke else []
        cluster = cluster_tasks(temporary=temporary) if on_gke else []
        build = build_tasks(file.image.builder if file else "engine")
        preview = preview_tasks(asks=asks, loads=loads) if previewed else []
        bakes = file is not None and file.gate.bake is not None
        proof = proof_tasks(asks=asks and not previewed, bakes=bakes, temporary=temporary)
        announce = announce_task(model, temporary=temporary)
        if temporary:
            closing = temporary_closing_tasks(setups=cluster, proof=proof[-1])
        else:
            closing = closing_tasks(model, proof=proof[-1])
        prune = PruneOperator(task_id=task_ids.PRUNE).as_teardown()
        deploy = [*cluster, *preview, *proof, announce, *closing, prune]
        plan = PlanOperator(
            task_id=task_ids.PLAN,
            builds=[task.task_id for task in build],
            # A run with nothing to do still removes the preview that a killed run may have left.
            deploys=[task.task_id for task in deploy if task.task_id != task_ids.REMOVE_PREVIEW],
        )

        # The smoke test runs beside push and preview: what these do reaches no user before the preview's gate, which waits for both.
        beside = [task for task in build if preview and task.task_id == task_ids.SMOKE_TEST]
        straight = [task for task in build if task not in beside]
        chain(resolve, *preflight, plan, *straight, *preview, *chain_proof(proof), announce, *closing, prune)
        for smoke_test in beside:
            chain(dag.get_task(task_ids.BUILD_IMAGE), smoke_test, dag.get_task(task_ids.PREVIEW_GATE))
        if cluster:  # while the image is built
            chain(plan, *cluster, (*preview, *proof)[0])
    return dag


def _described(model: str, asked: ModelFile | InputRefused) -> tuple[ModelFile | None, str]:
    if isinstance(asked, InputRefused):
        return None, f"refused: {asked}"
    return asked, asked.description or f"Keeps {model} fresh."


def _schedule(model: str, file: ModelFile | None) -> str | list[Asset] | AssetOrTimeSchedule | None:
    if file is None or file.watch is None:
        return file.schedule if file else None
    from slipway.dag.triggers.hub import watched_schedule

    return watched_schedule(model, file)
