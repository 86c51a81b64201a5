"""The DAGs of every model file, for Airflow; `slipway.dag.definitions` says what each does."""

from slipway.dags import *  # noqa: F403 - Airflow reads the DAGs from this file's names
