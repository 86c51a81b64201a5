"""Every name that Slipway gives: labels, ids, tags, URIs, paths and file names."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePosixPath
from typing import Any

# Kubernetes
LABEL_MODEL = "slipway/model"
LABEL_VERSION = "slipway/version"
LABEL_RELEASE = "slipway/release"
LABEL_OWNER = "slipway/owner"  # of an exporter's pod: whose it is, among Airflows that share a namespace
FIELD_MANAGER = "slipway"
PREVIEW_SUFFIX = "-preview"
SWEEP_SUFFIX = "-sweep-"  # and the number of the turn

# GKE clusters; Google's labels take no slash
CLUSTER_LABEL_STORE = "slipway-store"  # the Slipway that made the cluster, by its artifact store
CLUSTER_LABEL_MODEL = "slipway-model"  # the model that it was made for
CLUSTER_LABEL_RUN = "slipway-run"  # the run that made it

# TF Serving
MODELS_FOLDER = "/models"  # its MODEL_BASE_PATH
SERVING_SIGNATURE = "serving_default"
REST_PORT = 8501  # of every Service
GRPC_PORT = 8500  # of every server

SHORT = 12  # characters of a hash that a person can tell apart
LONGEST_MODEL = 40  # characters of a model's name
LONGEST_FILE_NAME = 150  # characters of a run id, which has up to 250; a file system's limit is 255 with all suffixes


# --- Airflow ---


def dag_id(model: str) -> str:
    """The DAG that refreshes a model. A refused file has one too: each invalid character becomes a dot, and a hash is added."""
    name = printable(model)
    safe = re.sub(r"[^a-z0-9-]", ".", name)[:LONGEST_MODEL]
    tail = "" if safe == name else f".{short(digest_of(name))}"
    return f"refresh_{safe.replace('-', '_')}{tail}"


def rollback_dag_id(model: str) -> str:
    """The DAG that rolls a model back."""
    return dag_id(model).replace("refresh_", "rollback_", 1)


def teardown_dag_id(model: str) -> str:
    """The DAG that tears a model's cluster down."""
    return dag_id(model).replace("refresh_", "teardown_", 1)


def load_test_dag_id(model: str) -> str:
    """The DAG that tests a model's live release under load."""
    return dag_id(model).replace("refresh_", "load_test_", 1)


def sweep_dag_id(model: str) -> str:
    """The DAG that compares variants of a model's live release."""
    return dag_id(model).replace("refresh_", "sweep_", 1)


def asset_uri(model: str) -> str:
    """The Asset that a live and proven release of a model updates."""
    return f"x-slipway://served/{model}"


def upstream_uri(model: str) -> str:
    """The Asset that a new revision of a model's source updates, if its model file has `watch`."""
    return f"x-slipway://upstream/{model}"


# --- Kubernetes ---


def preview_name(name: str) -> str:
    """The name of an object's preview; also the label value of a release's preview, which tells its pods from the live ones."""
    return f"{name}{PREVIEW_SUFFIX}"


def sweep_suffix(turn: int) -> str:
    """What the names of the objects of a sweep's turn end in."""
    return f"{SWEEP_SUFFIX}{turn}"


def lease_name(deployment: str) -> str:
    """The Lease that says which run may write to a Deployment."""
    return f"slipway-{deployment}"


def proxy_path(namespace: str, service: str) -> str:
    """The API server's path that forwards to a Service's REST port."""
    return f"/api/v1/namespaces/{namespace}/services/{service}:{REST_PORT}/proxy"


def pod_proxy_path(namespace: str, pod: str, port: int) -> str:
    """The API server's path that forwards to a port of a pod."""
    return f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy"


# --- images and containers ---


def repository_of(reference: str) -> str:
    """An image reference without tag and digest; a registry's port is kept."""
    name = reference.split("@", 1)[0]
    last = PurePosixPath(name).name
    return name[: -len(last)] + last.split(":", 1)[0]


def image_tag(version: int, image_id: str) -> str:
    """A tag for one image. It never moves, so the registry never treats a live image as untagged."""
    return f"v{version}-{short(image_id)}"


def build_container_name(model: str, store_id: str) -> str:
    """The container that an image is committed from."""
    return f"slipway-build-{model}-{store_id}"


def smoke_container_name(model: str, store_id: str) -> str:
    """The container of the smoke test."""
    return f"slipway-smoke-{model}-{store_id}"


# --- TF Serving ---


def version_folder(model: str, version: int) -> str:
    """A version's folder in the image."""
    return f"{MODELS_FOLDER}/{model}/{version}"


def model_path(model: str) -> str:
    """A model's REST path, where its versions are listed."""
    return f"/v1/models/{model}"


def version_path(model: str, version: int) -> str:
    """A version's REST path."""
    return f"{model_path(model)}/versions/{version}"


# --- the artifact store ---


def former_store_id(store: str) -> str:
    """The id that an earlier Slipway gave to an artifact store, from its URI. Stores on two machines may share it."""
    return short(digest_of([store]))


def records_folder(model: str) -> str:
    """The folder of a model's records."""
    return f"records/{model}"


def record_key(model: str, run_id: str) -> str:
    """The key of a run's record."""
    return f"{records_folder(model)}/{file_name(run_id)}.json"


def order_folder(model: str) -> str:
    """The folder of the numbers that order a model's records, one file each."""
    return f"order/{model}"


def order_key(model: str, number: int) -> str:
    """The key of a number that orders a model's records."""
    return f"{order_folder(model)}/{number}.json"


def breaks_folder(model: str) -> str:
    """The folder of the notes of runs that break a Lease."""
    return f"breaks/{model}"


def break_key(model: str, holder: str) -> str:
    """The key of the note that says which Lease a run breaks; `holder` is that run's identity."""
    return f"{breaks_folder(model)}/{file_name(holder)}.json"


def source_key(model: str, revision: str, suffix: str) -> str:
    """The key of a source's copy."""
    return f"sources/{model}/{revision.removeprefix('sha256:')}{suffix}"


def rendered_key(model: str, digest: str) -> str:
    """The key of a release's rendered manifests."""
    return f"rendered/{model}/{short(digest)}.json"


def manifests_key(model: str, release_id: str, digest: str) -> str:
    """The key of a release's manifests as they were applied."""
    return f"manifests/{model}/{release_id}-{short(digest)}.yaml"


def loads_folder(model: str) -> str:
    """The folder of a model's load tests, with a folder for each release."""
    return f"loads/{model}"


def load_folder(model: str, release_id: str) -> str:
    """The folder of a release's load tests."""
    return f"{loads_folder(model)}/{release_id}"


def load_run_folder(model: str, release_id: str, run_id: str) -> str:
    """The folder of one load test."""
    return f"{load_folder(model, release_id)}/{file_name(run_id)}"


def sweeps_folder(model: str) -> str:
    """The folder of a model's sweeps, with a folder for each release."""
    return f"sweeps/{model}"


def sweep_folder(model: str, release_id: str) -> str:
    """The folder of a release's sweeps."""
    return f"{sweeps_folder(model)}/{release_id}"


def sweep_run_folder(model: str, release_id: str, run_id: str) -> str:
    """The folder of one sweep."""
    return f"{sweep_folder(model, release_id)}/{file_name(run_id)}"


def labelled_set_key(model: str, digest: str) -> str:
    """The key of a labelled set."""
    return f"quality/{model}/{short(digest)}.json"


def file_name(run_id: str) -> str:
    """A run id as a file name; Airflow's own ids contain `:` and `+`. A changed name ends in the run id's hash."""
    safe = re.sub(r"^\.|[^A-Za-z0-9_.-]", "_", run_id)[:LONGEST_FILE_NAME]
    return run_id if safe == run_id else f"{safe}-{short(digest_of(run_id))}"


def printable(text: str) -> str:
    """The text without lone surrogates, which no database stores. A file's name has them if its bytes are not UTF-8."""
    return text.encode(errors="backslashreplace").decode()


# --- hashes ---


def digest_of(value: Any) -> str:
    """sha256:… of a JSON value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def short(digest: str) -> str:
    """The first characters of a hash, for names and for people."""
    return digest.removeprefix("sha256:")[:SHORT]
