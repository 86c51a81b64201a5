"""What Slipway does when a part of Airflow starts: the scheduler loads Slipway, and the large libraries of its tasks, once.

Tasks of a LocalExecutor are forked from the scheduler, and need not load them again: that takes most tasks longer than their work.
Slipway's own code can change under a running scheduler, as in a checkout: then the tasks load what is there.
"""

from __future__ import annotations

import importlib
import logging
import os
import pkgutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.listeners import hookimpl

import slipway

# Those that a task takes a quarter of a second or more to load. None starts a thread, so that a process that has them may be forked.
LIBRARIES = (
    "airflow.providers.cncf.kubernetes.hooks.kubernetes",
    "airflow.providers.docker.hooks.docker",
    "airflow.providers.google.cloud.fs.gcs",
    "kubernetes.dynamic",
)
# Of every ObjectStoragePath: Airflow loads the file systems of all providers that are installed.
FILE_SYSTEMS = ("airflow.providers.amazon.aws.fs.s3", "airflow.providers.microsoft.azure.fs.adls")

# They make DAGs or tell Airflow of the package; the others only define. The last imports a library that few tasks need.
APART = ("slipway.dags", "slipway.plugin", "slipway.get_provider_info", "slipway.dag.export_pod")

log = logging.getLogger(__name__)


@hookimpl
def on_starting(component: Any) -> None:
    """Load the libraries if it is the scheduler that starts. What cannot be loaded, the task will say."""
    if not _is_scheduler(component):
        return
    for library in (*LIBRARIES, *FILE_SYSTEMS):
        _load(library, logging.DEBUG if library in FILE_SYSTEMS else logging.WARNING)
    versions = load_package()
    os.register_at_fork(after_in_child=lambda: forget_if_changed(versions))


def _is_scheduler(component: Any) -> bool:
    """Whether it is a scheduler's job. Airflow tells of a job before it knows of what type it is: then its command says it."""
    kind = getattr(component, "job_type", None)
    return kind == "SchedulerJob" or (kind is None and sys.argv[1:2] == ["scheduler"])


def _load(module: str, level: int) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        log.log(level, "slipway: %s was not loaded for tasks: %s", module, error)


def load_package() -> dict[str, int]:
    """Load Slipway's modules; when the file of each was last changed, by its path."""
    before = {path: _changed(path) for path in _files()}
    for module in pkgutil.walk_packages(slipway.__path__, "slipway."):
        if module.name not in APART:
            _load(module.name, logging.WARNING)
    return before


def forget_if_changed(versions: Mapping[str, int]) -> None:
    """Forget Slipway's modules if a file has changed since they were loaded: the next import reads the files."""
    if {path: _changed(path) for path in _files()} == versions:
        return
    for name in [name for name in sys.modules if name.startswith("slipway.") and name != __name__]:
        del sys.modules[name]


def _files() -> list[str]:
    """The paths of Slipway's modules."""
    return sorted(
        entry.path
        for place in slipway.__path__
        for folder, _, _ in os.walk(place)
        if "include" not in folder
        for entry in os.scandir(folder)
        if entry.name.endswith(".py")
    )


def _changed(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:  # it is being replaced
        return 0
