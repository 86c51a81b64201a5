"""A login at an image registry: that of a Docker connection, or a short-lived token of a Google connection.

It is made for each use, given only to the engine and the registry, and masked in all logs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from slipway.connections import DOCKER, GOOGLE, find_connection
from slipway.errors import ClusterRefused, InputRefused, RegistryLoginRefused

ARTIFACT_REGISTRY = re.compile(r"[a-z0-9-]+-docker\.pkg\.dev|([a-z]+\.)?gcr\.io")  # its hosts
DOCKER_HUB = "docker.io"  # the registry of images without one
NAMES_OF_DOCKER_HUB = {"docker.io", "index.docker.io", "registry-1.docker.io", "auth.docker.io"}
GOOGLE_USER = "oauth2accesstoken"  # the user name that Artifact Registry expects with a token
WRITER = "roles/artifactregistry.writer"  # to delete old images: repoAdmin
REGISTRY_LOGIN = "with the registry's host, login and password"
NAME_A_LOGIN = (  # what to do if a registry requires a login and there is none
    "create a connection of type docker with its host, login and password, or for Artifact Registry of type google_cloud_platform, "
    "and name it in image.registry_conn_id"
)
LOGIN_HOSTS = "login_hosts"  # of a connection's extra: other hosts that may get its login


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user name and a password for registries. The password is not in its repr."""

    conn_id: str
    hosts: tuple[str, ...]  # the registries of images that may get it, as the images name them
    user: str
    password: str = field(repr=False)
    more_hosts: frozenset[str] = frozenset()  # that the connection names besides its own, in the form of `plain_host`

    @property
    def fix(self) -> str:
        """What to do if the registry refuses it."""
        if self.user == GOOGLE_USER:
            return f"give its account {WRITER} on the repository; clear the task, which gets a new token"
        return "correct the connection's host, login and password in Airflow; docker login tests them"


def find_login(conn_id: str | None, repository: str, *others: str) -> Login | None:
    """The login of a connection for a repository; None without a connection.

    It is also for the registries of the `others` (images), if it may go there. A login may go to the connection's own host,
    or to Artifact Registries if it is Google's; and to the hosts that the connection's extra names in `login_hosts`.
    For a Google connection, a new token is made.
    Raises InputRefused if the connection is missing, invalid, or for another registry; RegistryLoginRefused or
    GoogleUnreachable if there is no token.
    """
    if conn_id is None:
        return None
    connection = find_connection(conn_id, DOCKER, GOOGLE, needs=REGISTRY_LOGIN)
    google, more = connection.conn_type == GOOGLE, _more_hosts(connection)
    own = "" if google else _own_host(connection)

    def may_go_to(host: str) -> bool:
        plain = plain_host(host)
        return plain in more or (ARTIFACT_REGISTRY.fullmatch(plain) is not None if google else plain == own)

    first, *rest = (registry_of(image) for image in (repository, *others))
    if not may_go_to(first):
        raise InputRefused(
            f"connection {conn_id}: its login is for {'Artifact Registry' if google else own}, not for {plain_host(first)}, where "
            f"{repository} is. Next: name a connection for that registry in image.registry_conn_id, or add the host to "
            f"{LOGIN_HOSTS} in the connection's extra"
        )
    hosts = tuple(dict.fromkeys((first, *filter(may_go_to, rest))))
    user, password = (GOOGLE_USER, _new_token(conn_id, first)) if google else (connection.login, connection.password)
    return Login(conn_id=conn_id, hosts=hosts, user=user, password=password, more_hosts=more)


def _own_host(connection: Any) -> str:
    """The host of a Docker connection. Raises InputRefused if it has no complete login."""
    missing = [name for name in ("host", "login", "password") if not getattr(connection, name)]
    if missing:
        raise InputRefused(f"connection {connection.conn_id}: it has no {missing[0]}. Next: set it in Airflow")
    host = plain_host(connection.host)
    return plain_host(f"{host}:{connection.port}") if connection.port else host


def _more_hosts(connection: Any) -> frozenset[str]:
    """The hosts in the `login_hosts` of the connection's extra. Raises InputRefused."""
    named = connection.extra_dejson.get(LOGIN_HOSTS) or ()
    hosts = named.split(",") if isinstance(named, str) else named
    if not isinstance(hosts, list | tuple) or not all(isinstance(host, str) for host in hosts):
        raise InputRefused(
            f"connection {connection.conn_id}: {LOGIN_HOSTS} in its extra is not a list of hosts. "
            "Next: write them as HOST[:PORT], with commas between them"
        )
    return frozenset(plain_host(host.strip()) for host in hosts if host.strip())


def _new_token(conn_id: str, host: str) -> str:
    from airflow.sdk.log import mask_secret

    from slipway.google import google_access_token

    try:
        token = google_access_token(conn_id)
    except ClusterRefused as error:
        raise RegistryLoginRefused(f"registry {host}: {error}") from error
    mask_secret(token)
    return token


def image_host(image: str) -> str:
    """The registry at the beginning of an image's name; empty if there is none."""
    host, slash, _ = image.partition("/")
    return host if slash and re.search(r"[.:]|^localhost$", host) else ""


def registry_of(image: str) -> str:
    """The registry of an image, as its name has it; Docker Hub if it names none."""
    return image_host(image) or DOCKER_HUB


def plain_host(host: str) -> str:
    """A registry's HOST[:PORT] for comparisons: without scheme, path and the port of HTTPS; Docker Hub has one name."""
    plain = host.lower().removeprefix("https://").removeprefix("http://").partition("/")[0].removesuffix(":443")
    return DOCKER_HUB if plain in NAMES_OF_DOCKER_HUB else plain


def is_artifact_registry(image: str) -> bool:
    """Whether the image's name is one of Google's Artifact Registry."""
    return ARTIFACT_REGISTRY.fullmatch(image_host(image)) is not None
