"""What Slipway adds to Airflow's UI."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from slipway.dag.links import ServedModelLink


class SlipwayPlugin(AirflowPlugin):
    """Links on tasks."""

    name = "slipway"
    operator_extra_links = [ServedModelLink()]  # noqa: RUF012 - as Airflow declares it
