"""A login at an image registry: that of a Docker connection, or a short-lived token of a Google connection.

It is made for each use, given only to the engine and the registry, and masked in all logs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from slipway.errors import ClusterRefused, InputRefused, RegistryLoginRefused

ARTIFACT_REGISTRY = re.compile(r"[a-z0-9-]+-docker\.pkg\.dev|([a-z]+\.)?gcr\.io")  # its hosts
GOOGLE_USER = "oauth2accesstoken"  # the user name that Artifact Registry expects with a token
WRITER = "roles/artifactregistry.writer"  # to delete old images: repoAdmin
GOOGLE = "google_cloud_platform"
REGISTRY_LOGIN = "with the registry's host, login and password"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user name and a password for registries. The password is not in its repr."""

    conn_id: str
    hosts: tuple[str, ...]
    user: str
    password: str = field(repr=False)

    @property
    def fix(self) -> str:
        """What to do if the registry refuses it."""
        if self.user == GOOGLE_USER:
            return f"give its account {WRITER} on the repository; clear the task, which gets a new token"
        return "correct the connection's host, login and password in Airflow; docker login tests them"


def find_login(conn_id: str | None, *images: str) -> Login | None:
    """The login of a connection for these images; None without a connection.

    For a Google connection, a new token is made. It is for the first image's registry, and for Artifact Registries.
    Raises InputRefused if the connection is missing or invalid, RegistryLoginRefused or GoogleUnreachable if there is no token.
    """
    if conn_id is None:
        return None
    connection = find_connection(conn_id, needs=REGISTRY_LOGIN)
    if connection.conn_type == GOOGLE:
        return _google_login(conn_id, images)
    missing = [field for field in ("host", "login", "password") if not getattr(connection, field)]
    if missing:
        raise InputRefused(f"connection {conn_id}: it has no {missing[0]}. Next: set it in Airflow")
    host = f"{connection.host}:{connection.port}" if connection.port else str(connection.host)
    return Login(conn_id=conn_id, hosts=(host,), user=connection.login, password=connection.password)


def _google_login(conn_id: str, images: tuple[str, ...]) -> Login:
    from airflow.sdk.log import mask_secret

    from slipway.google import google_access_token

    first, *others = map(image_host, images)
    hosts = dict.fromkeys((first, *(host for host in others if ARTIFACT_REGISTRY.fullmatch(host))))
    try:
        token = google_access_token(conn_id)
    except ClusterRefused as error:
        raise RegistryLoginRefused(f"registry {first}: {error}") from error
    mask_secret(token)
    return Login(conn_id=conn_id, hosts=tuple(hosts), user=GOOGLE_USER, password=token)


def image_host(image: str) -> str:
    """The registry at the beginning of an image's name; empty if there is none."""
    host, slash, _ = image.partition("/")
    return host if slash and re.search(r"[.:]|^localhost$", host) else ""


def is_artifact_registry(image: str) -> bool:
    """Whether the image's name is one of Google's Artifact Registry."""
    return ARTIFACT_REGISTRY.fullmatch(image_host(image)) is not None


def find_connection(conn_id: str, *, needs: str) -> Any:
    """An Airflow connection of type `docker`; `needs` tells people what it must have. Raises InputRefused."""
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise InputRefused(
            f"connection {conn_id}: no such connection. Next: create it in Airflow (Admin, Connections), type docker, {needs}"
        ) from error
