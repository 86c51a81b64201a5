"""Every name that Slipway gives: labels, ids, tags, URIs and file names."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePosixPath
from typing import Any

MODELS_FOLDER = "/models"  # TF Serving's MODEL_BASE_PATH
SERVING_SIGNATURE = "serving_default"
LABEL_MODEL = "slipway/model"
LABEL_VERSION = "slipway/version"
LABEL_RELEASE = "slipway/release"
FIELD_MANAGER = "slipway"
PREVIEW_SUFFIX = "-preview"
REST_PORT = 8501  # of every Service
SHORT = 12  # characters of a hash that a person can tell apart
LONGEST_FILE_NAME = 150  # of a run id, which has up to 250; a file system's limit is 255 with all suffixes


def dag_id(model: str) -> str:
    """The DAG that refreshes a model; a dot stands for what no model's name has, so that a refused file has a DAG too."""
    return f"refresh_{re.sub(r'[^a-z0-9-]', '.', model).replace('-', '_')}"


def rollback_dag_id(model: str) -> str:
    """The DAG that rolls a model back."""
    return dag_id(model).replace("refresh_", "rollback_", 1)


def teardown_dag_id(model: str) -> str:
    """The DAG that tears a model's cluster down."""
    return dag_id(model).replace("refresh_", "teardown_", 1)


def asset_uri(model: str) -> str:
    """The Asset that a live and proven release of a model updates."""
    return f"x-slipway://served/{model}"


def preview_name(name: str) -> str:
    """What the preview of an object is called, and of a release's id: its pods are told by it from the live ones."""
    return f"{name}{PREVIEW_SUFFIX}"


def upstream_uri(model: str) -> str:
    """The Asset that a new revision of a model's source updates, where its model file says `watch`."""
    return f"x-slipway://upstream/{model}"


def digest_of(value: Any) -> str:
    """sha256:… of a JSON value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def short(digest: str) -> str:
    """The first characters of a hash, for names and for people."""
    return digest.removeprefix("sha256:")[:SHORT]


def repository_of(reference: str) -> str:
    """An image reference without tag and digest; a registry's port stays."""
    name = reference.split("@", 1)[0]
    last = PurePosixPath(name).name
    return name[: -len(last)] + last.split(":", 1)[0]


def store_id(store: str) -> str:
    """An artifact store in a few characters."""
    return short(digest_of([store]))


def lease_name(deployment: str) -> str:
    """The Lease that says which run may write to a Deployment."""
    return f"slipway-{deployment}"


def file_name(run_id: str) -> str:
    """A run id as a file name: Airflow's own have `:` and `+` in them. What had to be changed ends in the run id's hash."""
    safe = re.sub(r"^\.|[^A-Za-z0-9_.-]", "_", run_id)[:LONGEST_FILE_NAME]
    return run_id if safe == run_id else f"{safe}-{short(digest_of(run_id))}"
