"""The folders of what Slipway ships, and of what its users write."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
PROJECT = _PACKAGE.parents[1]  # of a checkout
CHECKOUT = PROJECT / "include"
# Exporters, server, load test, manifests: inside the package in a wheel, beside plugins/ in a checkout.
INCLUDE = _PACKAGE / "include" if (_PACKAGE / "include").is_dir() else CHECKOUT


def user_folder() -> Path:
    """The folder with the users' `served` (model files) and `manifests` (overlays).

    Airflow's setting `[slipway] folder` names it (`AIRFLOW__SLIPWAY__FOLDER`). A relative one is looked for in the DAG bundle,
    which Airflow adds to `sys.path` in each process that parses or runs a DAG, then in `AIRFLOW_HOME`. If it is not set: the
    checkout's `include`, or `include` in the same places.
    """
    from airflow.sdk.configuration import conf

    named = conf.get("slipway", "folder", fallback=None) or None
    if named is None and INCLUDE == CHECKOUT:
        return CHECKOUT
    asked = Path(os.path.expandvars(named or "include")).expanduser()
    if asked.is_absolute():
        return asked
    places = [place / asked for place in _places()]
    return next((place for place in places if (place / "served").is_dir()), places[-1])


def _places() -> Iterator[Path]:
    """Where a relative folder is looked for."""
    yield from (Path(entry) for entry in reversed(sys.path) if entry)  # Airflow appends the bundle
    yield Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()


def served_folder() -> Path:
    """The folder of the model files."""
    return user_folder() / "served"


def model_file(model: str) -> Path:
    """The model file of a model."""
    return served_folder() / f"{model}.yaml"


def manifests_folders() -> tuple[Path, ...]:
    """The folders with kustomizations: the users', then the shipped one, which has the base. Both may be one."""
    users, shipped = user_folder() / "manifests", INCLUDE / "manifests"
    return (users, shipped) if users.is_dir() and users.resolve() != shipped.resolve() else (shipped,)


def shown(path: Path) -> str:
    """How messages name a path: without what comes before the users' folder, if it is in there."""
    parent = user_folder().parent
    return str(path.relative_to(parent)) if path.is_relative_to(parent) else str(path)


def shown_model_file(model: str) -> str:
    """How messages name a model's file."""
    return shown(model_file(model))
