"""A login at an image registry: a Docker connection's own, or a short-lived token of a Google connection.

It is made anew for each use, handed to the engine and the registry alone, and masked in every log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from slipway.errors import ClusterRefused, InputRefused, RegistryLoginRefused

ARTIFACT_REGISTRY = re.compile(r"[a-z0-9-]+-docker\.pkg\.dev|([a-z]+\.)?gcr\.io")  # the hosts that Google serves it at
GOOGLE_USER = "oauth2accesstoken"  # the user whose password is a token, to Artifact Registry
WRITER = "roles/artifactregistry.writer"  # repoAdmin, where old images are to be deleted
GOOGLE = "google_cloud_platform"
REGISTRY_LOGIN = "with the registry's host, login and password"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A name and a password at registries; the password is in no repr."""

    conn_id: str
    hosts: tuple[str, ...]
    user: str
    password: str = field(repr=False)

    @property
    def mend(self) -> str:
        """What to do where it is refused."""
        if self.user == GOOGLE_USER:
            return f"give its account {WRITER} on the repository; clear the task, which gets a new token"
        return "mend the connection's host, login and password in Airflow; docker login tries them"


def find_login(conn_id: str | None, *images: str) -> Login | None:
    """The login of a connection for these images; None where no connection is named.

    A Google connection's token is made here and now: it goes to the first image's registry, and to Artifact Registries.
    Raises InputRefused where the connection cannot be meant, RegistryLoginRefused, GoogleUnreachable where it gets no token.
    """
    if conn_id is None:
        return None
    connection = find_connection(conn_id, holding=REGISTRY_LOGIN)
    if connection.conn_type == GOOGLE:
        return _google_login(conn_id, images)
    missing = [field for field in ("host", "login", "password") if not getattr(connection, field)]
    if missing:
        raise InputRefused(f"connection {conn_id}: it has no {missing[0]}. Next: mend it in Airflow")
    host = f"{connection.host}:{connection.port}" if connection.port else str(connection.host)
    return Login(conn_id=conn_id, hosts=(host,), user=connection.login, password=connection.password)


def _google_login(conn_id: str, images: tuple[str, ...]) -> Login:
    from airflow.sdk.log import mask_secret

    from slipway.google import access_token

    first, *others = map(image_host, images)
    hosts = dict.fromkeys((first, *(host for host in others if ARTIFACT_REGISTRY.fullmatch(host))))
    try:
        token = access_token(conn_id)
    except ClusterRefused as error:
        raise RegistryLoginRefused(f"registry {first}: {error}") from error
    mask_secret(token)
    return Login(conn_id=conn_id, hosts=tuple(hosts), user=GOOGLE_USER, password=token)


def image_host(image: str) -> str:
    """The registry that an image's name begins with, empty where it names none."""
    host, slash, _ = image.partition("/")
    return host if slash and re.search(r"[.:]|^localhost$", host) else ""


def is_artifact_registry(image: str) -> bool:
    """Whether an image is kept in Google's Artifact Registry, by its name."""
    return ARTIFACT_REGISTRY.fullmatch(image_host(image)) is not None


def find_connection(conn_id: str, *, holding: str) -> Any:
    """An Airflow connection of type `docker`; `holding` tells people what one has to hold. Raises InputRefused."""
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise InputRefused(
            f"connection {conn_id}: there is none. Next: create it in Airflow (Admin, Connections), type docker, {holding}"
        ) from error
