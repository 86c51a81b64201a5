"""Airflow connections: found by their ids, each of the type that its field wants.

A connection holds the secret of one kind of server. One of another type is refused before a client reads its secret.
"""

from __future__ import annotations

from typing import Any

from slipway.errors import InputRefused

DOCKER, GOOGLE, HTTP, KUBERNETES = "docker", "google_cloud_platform", "http", "kubernetes"
HUGGINGFACE = "huggingface"  # dag/hub_hook.py
OF_BUCKETS = {"gs": GOOGLE, "gcs": GOOGLE, "s3": "aws", "s3a": "aws"}  # by a URI's scheme


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
    """Raise InputRefused if the connection in the URI of a bucket (`gs://CONNECTION@BUCKET`) is missing or of another type."""
    scheme, _, rest = uri.partition("://")
    conn_id, at, _ = rest.partition("/")[0].rpartition("@")
    if at and scheme in OF_BUCKETS:
        find_connection(conn_id, OF_BUCKETS[scheme])


def check_type(connection: Any, *types: str) -> None:
    """Raise InputRefused if the connection is of none of these types."""
    if connection.conn_type not in types:
        wanted = " or ".join(types)
        raise InputRefused(
            f"connection {connection.conn_id}: is of type {connection.conn_type}, but type {wanted} is needed here. "
            "Next: name another connection, or correct its type in Airflow"
        )
