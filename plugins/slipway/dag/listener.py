"""What Slipway does when a part of Airflow starts: scheduler and triggerer load the large libraries of Slipway's tasks and triggers.

Tasks of a LocalExecutor are forked from the scheduler, and need not load them again: that takes most tasks longer than their work. The
first trigger that loads one would block all triggers of its triggerer for most of a second.
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
    "airflow.providers.google.cloud.fs.gcs",  # of every ObjectStoragePath: Airflow loads each provider's file systems
    "kubernetes.dynamic",
    "kubernetes_asyncio.client",
)

PARTS = frozenset({"SchedulerJob", "TriggererJob"})

log = logging.getLogger(__name__)


@hookimpl
def on_starting(component: Any) -> None:
    """Load the libraries if it is the scheduler or a triggerer that starts. What cannot be loaded, the task will say."""
    if getattr(component, "job_type", None) not in PARTS:
        return
    for library in LIBRARIES:
        try:
            importlib.import_module(library)
        except ImportError as error:
            log.warning("slipway: %s was not loaded for tasks: %s", library, error)
