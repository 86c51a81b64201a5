"""Airflow connections: found by their ids, each of the type that its field wants.

A connection holds the secret of one kind of server. One of another type is refused before a client reads its secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from slipway.errors import InputRefused

DOCKER, GOOGLE, HTTP, KUBERNETES = "docker", "google_cloud_platform", "http", "kubernetes"
HUGGINGFACE = "huggingface"  # dag/hub_hook.py
AZURE = ("wasb", "adls", "azure_data_lake")


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """What the URIs of an object store need: the types of connections, a library, and what installs it."""

    types: tuple[str, ...]
    library: str
    package: str


_GCS = ObjectStore((GOOGLE,), "gcsfs", "slipway")
_S3 = ObjectStore(("aws",), "s3fs", "slipway[s3]")
_AZURE = ObjectStore(AZURE, "adlfs", "slipway[azure]")
OBJECT_STORES = {  # by a URI's scheme
    "gs": _GCS, "gcs": _GCS, "s3": _S3, "s3a": _S3, "abfs": _AZURE, "abfss": _AZURE,
}  # fmt: skip


def find_connection(conn_id: str, *types: str, needs: str = "") -> Any:
    """The connection, of one of these types; `needs` tells people what it must have. Raises InputRefused."""
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        wanted = f"{types[0]}, {needs}" if needs else types[0]
        raise InputRefused(
            f"connection {conn_id}: no such connection. Next: create it in Airflow (Admin, Connections), type {wanted}"
        ) from error
    check_type(connection, *types)
    return connection


def check_bucket_connection(uri: str) -> None:
    """Raise InputRefused if a bucket's URI (`gs://CONNECTION@BUCKET`) names no connection of its type, or needs a library that is missing."""
    scheme, _, rest = uri.partition("://")
    store = OBJECT_STORES.get(scheme)
    if store is None:
        return
    if find_spec(store.library) is None:
        raise InputRefused(
            f"{scheme}://…: needs the library {store.library}. Next: pip install '{store.package}' on all of Airflow's machines"
        )
    conn_id, at, _ = rest.partition("/")[0].rpartition("@")
    if at:
        find_connection(conn_id, *store.types)


def check_type(connection: Any, *types: str) -> None:
    """Raise InputRefused if the connection is of none of these types."""
    if connection.conn_type not in types:
        wanted = " or ".join(types)
        raise InputRefused(
            f"connection {connection.conn_id}: is of type {connection.conn_type}, but type {wanted} is needed here. "
            "Next: name another connection, or correct its type in Airflow"
        )
