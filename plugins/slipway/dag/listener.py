"""What Slipway does when a part of Airflow starts: the scheduler loads the large libraries of Slipway's tasks once.

Tasks of a LocalExecutor are forked from the scheduler, and need not load them again: that takes most tasks longer than their work.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

from airflow.listeners import hookimpl

# Those that a task takes a quarter of a second or more to load. None starts a thread, so that a process that has them may be forked.
LIBRARIES = (
    "airflow.providers.cncf.kubernetes.hooks.kubernetes",
    "airflow.providers.docker.hooks.docker",
    "airflow.providers.google.cloud.fs.gcs",
    "kubernetes.dynamic",
)
# Of every ObjectStoragePath: Airflow loads the file systems of all providers that are installed.
FILE_SYSTEMS = ("airflow.providers.amazon.aws.fs.s3", "airflow.providers.microsoft.azure.fs.adls")

log = logging.getLogger(__name__)


@hookimpl
def on_starting(component: Any) -> None:
    """Load the libraries if it is the scheduler that starts. What cannot be loaded, the task will say."""
    if getattr(component, "job_type", None) != "SchedulerJob":
        return
    for library in (*LIBRARIES, *FILE_SYSTEMS):
        try:
            importlib.import_module(library)
        except ImportError as error:
            level = logging.DEBUG if library in FILE_SYSTEMS else logging.WARNING
            log.log(level, "slipway: %s was not loaded for tasks: %s", library, error)
