"""What Slipway adds to Airflow: links on tasks, and a listener."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from slipway.dag import listener
from slipway.dag.links import ServedModelLink


class SlipwayPlugin(AirflowPlugin):
    """Links on tasks, and what happens when the scheduler starts."""

    name = "slipway"
    operator_extra_links = [ServedModelLink()]  # noqa: RUF012 - as Airflow declares it
    listeners = [listener]  # noqa: RUF012 - likewise
