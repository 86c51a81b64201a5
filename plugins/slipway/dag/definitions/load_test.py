"""The load-test DAG of a model file with `load_test`: how much load does the live release bear."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, CronTriggerTimetable, chain

from slipway.dag import task_ids
from slipway.dag.forms import load_test_form
from slipway.dag.graph import LOAD_PYTHON, UNTIL_SETTLED
from slipway.dag.tasks.load import ChooseLoadOperator, LoadTestOperator
from slipway.model.load_settings import LoadSettings
from slipway.names import asset_uri, load_test_dag_id
from slipway.steps.load_test import plan_of

DOC = """
### {model} under load

**choose** finds the live release and its address. **load test** sends it requests at rates that rise step by step, then lets some users
ask again as soon as they have an answer. It checks label, confidence and version of every answer. It keeps the figures, a picture
and Locust's report with the release, in the artifact store below `loads/{model}/`.

The load reaches whatever answers at the model's public address, or at the address that the form names. It ends by itself after {seconds} seconds, and with its task.
"""


def load_test_dag(model: str, settings: LoadSettings) -> DAG:
    """The DAG that tests a model's live release under load."""
    plan = plan_of(settings, {})
    with DAG(
        load_test_dag_id(model),
        description=f"How much load the live release of {model} bears.",
        doc_md=DOC.format(model=model, seconds=plan.steps * plan.step_s),
        schedule=_schedule(model, settings),
        params=load_test_form(plan, settings.form_most_per_s),
        max_active_runs=1,
        default_args={"retries": 0},  # a second test would find a server that the first one has warmed
        tags=["slipway", "load test"],
    ) as dag:
        choose = ChooseLoadOperator(task_id=task_ids.CHOOSE, model=model, **UNTIL_SETTLED)
        test = LoadTestOperator(task_id=task_ids.LOAD_TEST, task_display_name="load test", load_python=LOAD_PYTHON)
        chain(choose, test)
    return dag


def _schedule(model: str, settings: LoadSettings) -> Any:
    """A schedule, the model's Asset, which each proven release updates, or both."""
    released = [Asset(name=model, uri=asset_uri(model), group="slipway")]
    if not settings.after_release:
        return settings.schedule
    if settings.schedule is None:
        return released
    return AssetOrTimeSchedule(timetable=CronTriggerTimetable(settings.schedule, timezone="UTC"), assets=released)
