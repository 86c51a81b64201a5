"""Helm and Airflow's chart are not part of the project: their tests are collected only if both are named."""

import os

collect_ignore = [] if {"SLIPWAY_HELM", "SLIPWAY_AIRFLOW_CHART"} <= os.environ.keys() else ["test_helm.py"]
