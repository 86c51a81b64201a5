"""The worker's Docker Engine, reached through an Airflow connection. It leaves no containers behind."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlparse

from slipway.connections import DOCKER, find_connection
from slipway.errors import InputRefused
from slipway.image.docker_errors import (
    base_image_unresolved,
    engine_unreachable,
    engine_words,
    registry_login_failed,
    repository_refusal,
)
from slipway.image.registry_login import Login
from slipway.release import Release
from slipway.runtimes import IMAGE_LABEL_RUNTIME, Runtime, runtime_of_image

ENGINE_TIMEOUT_S = 600  # the commit of a large layer is one request
REMOVAL_TIMEOUT_S, REMOVAL_POLL_S = 60, 0.5
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
LOOPBACK = "127.0.0.1"
PORTS_HOST = "ports_host"  # of a Docker connection's extra
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
CONFLICT = 409  # the removal is already in progress

log = logging.getLogger(__name__)


@contextmanager
def engine(release: Release) -> Iterator[Any]:
    """The engine of the release's Docker connection, as `docker.APIClient`."""
    with engine_at(release.engine_conn_id) as client:
        yield client


@contextmanager
def engine_at(engine_conn_id: str) -> Iterator[Any]:
    """The engine at the host of a connection of type `docker` (`unix://…` or `tcp://…`).

    Raises InputRefused if the connection is missing or invalid. Raises EngineUnreachable if the engine does not respond, also
    within the block.
    """
    from airflow.providers.docker.hooks.docker import DockerHook
    from airflow.sdk.exceptions import AirflowException
    from docker.errors import DockerException
    from requests.exceptions import ConnectionError as RequestsConnectionError

    base_url = engine_url(engine_conn_id)
    try:
        client = DockerHook(docker_conn_id=None, base_url=base_url, timeout=ENGINE_TIMEOUT_S).api_client
    except (AirflowException, DockerException, RequestsConnectionError) as error:
        raise engine_unreachable(base_url, engine_conn_id, error) from error
    try:
        yield client
    except RequestsConnectionError as error:  # from the HTTP library that the client uses; it lets these errors through
        raise engine_unreachable(base_url, engine_conn_id, error) from error
    finally:
        client.close()


def log_in(client: Any, login: Login | None) -> None:
    """Let the engine log in at the login's registries. The client keeps the login in memory and sends it with later requests.

    The provider's hook cannot be used: it logs in with a connection's password only, not with a token.
    Raises RegistryLoginRefused, RegistryUnreachable.
    """
    from docker.errors import APIError

    if login is None:
        return
    for host in login.hosts:
        try:
            client.login(login.user, login.password, registry=host, reauth=True)
        except APIError as error:
            raise registry_login_failed(host, error, login) from error


def _connection(engine_conn_id: str) -> Any:
    return find_connection(engine_conn_id, DOCKER, needs="host unix:///var/run/docker.sock or tcp://HOST:PORT")


def engine_url(engine_conn_id: str) -> str:
    """The engine's URL, from its Docker connection. Raises InputRefused."""
    connection = _connection(engine_conn_id)
    host = connection.host or ""
    if "://" in host:
        return str(host)
    if connection.schema or host.startswith("/"):
        return f"unix:///{host.lstrip('/')}"
    raise InputRefused(
        f"connection {engine_conn_id}: its host {host!r} is not the address of an engine. Next: write unix:///var/run/docker.sock or tcp://HOST:PORT"
    )


def check_registry(client: Any, repository: str, login: Login | None) -> None:
    """Check, before a build that may take hours, that the engine reaches the repository's registry and may log in.

    The repository need not exist yet. Only the push can tell whether pushing is allowed.
    Raises RegistryLoginRefused, RegistryUnreachable, ImagePushRefused.
    """
    from docker.errors import APIError

    try:
        client.inspect_distribution(repository)
    except APIError as error:
        if refusal := repository_refusal(repository, error, login):
            raise refusal from error
        log.info("resolve: registry of %s: %s", repository, engine_words(error))


def resolve_base(client: Any, reference: str, login: Login | None = None) -> str:
    """The digest (sha256:…) of an image reference, from the registry; if that fails, from the engine's own copy.

    Raises RegistryLoginRefused, ResolveError.
    """
    from docker.errors import APIError, ImageNotFound

    try:
        return str(client.inspect_distribution(reference)["Descriptor"]["digest"])
    except APIError as error:
        with suppress(ImageNotFound):
            for known in client.inspect_image(reference)["RepoDigests"]:
                log.warning("base image %s: no digest from the registry; the engine has %s", reference, known)
                return str(known.split("@", 1)[1])
        raise base_image_unresolved(reference, error, login) from error


def check_base(client: Any, reference: str, runtime: Runtime) -> None:
    """Check that a base image (by digest) is one of this runtime, if the engine has the image already. Raises InputRefused."""
    from docker.errors import ImageNotFound

    with suppress(ImageNotFound):
        judge_base(reference, client.inspect_image(reference)["Config"].get("Labels") or {}, runtime)


def judge_base(reference: str, labels: Mapping[str, str], runtime: Runtime) -> None:
    """Raise InputRefused if an image with these labels is one of another runtime."""
    found = runtime_of_image(labels)
    if found != runtime.name:
        raise InputRefused(
            f"base image {reference}: its label {IMAGE_LABEL_RUNTIME} says {found}, and serving.runtime is {runtime.name}. "
            f"Next: name {runtime.image_source} in image.base or in the Variable {runtime.image_variable}, or change serving.runtime"
        )


def engine_host(release: Release) -> str:
    """The host at which this worker reaches the engine's published ports: loopback for a socket, else the engine's host.

    The connection's extra may name it in `ports_host`: a mounted socket's ports are not at the loopback of a pod or container. A
    `$NAME` is a variable of the worker's environment, such as the node's address (`status.hostIP`). Raises InputRefused.
    """
    if named := _ports_host(release.engine_conn_id):
        return named
    url = urlparse(engine_url(release.engine_conn_id))
    return url.hostname if url.scheme in {"tcp", "http", "https"} and url.hostname else LOOPBACK


def publish_address(release: Release) -> str:
    """The address of the engine's machine at which it publishes ports, so that this worker reaches them and as few others as possible."""
    host = engine_host(release)
    if host == LOOPBACK or (_ports_host(release.engine_conn_id) and _is_address(host)):
        return host
    return "0.0.0.0"  # noqa: S104 - which of a remote engine's addresses the worker reaches is unknown


def _ports_host(engine_conn_id: str) -> str | None:
    """The `ports_host` of a connection; None if it has none. Raises InputRefused."""
    named = _connection(engine_conn_id).extra_dejson.get(PORTS_HOST)
    if named is None:
        return None
    host = os.path.expandvars(named) if isinstance(named, str) else ""
    if not HOST.fullmatch(host):
        raise InputRefused(
            f"connection {engine_conn_id}: {PORTS_HOST} in its extra, {named!r}, is no host on this worker. "
            "Next: write a host, or $NAME of a variable that the worker's environment has"
        )
    return host


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


@contextmanager
def throwaway_container(client: Any, name: str, **config: Any) -> Iterator[str]:
    """A container of this name, removed afterwards. A container that a killed task left is removed first."""
    remove_container(client, name)
    container = client.create_container(name=name, **config)["Id"]
    try:
        yield container
    finally:
        remove_container(client, container)


@contextmanager
def closed_network(client: Any, name: str) -> Iterator[str]:
    """A network of this name for one container, removed afterwards. One that a killed task left is removed first.

    The engine publishes the container's ports as on any other network, but nothing beyond the engine's host answers it: its packets
    keep their own sender, to which no other host has a route. (An `internal` network would not publish ports.)
    """
    remove_network(client, name)
    client.create_network(name, driver="bridge", options={MASQUERADE: "false"})
    try:
        yield name
    finally:
        remove_network(client, name)


def remove_network(client: Any, name: str) -> None:
    """Remove the networks of this name; several of them can have one."""
    from docker.errors import NotFound

    for found in client.networks(names=[name]):
        if found["Name"] == name:  # the engine's filter also finds longer names
            with suppress(NotFound):
                client.remove_network(found["Id"])


def remove_container(client: Any, name: str) -> None:
    """Remove a container, running or not, and return when it is gone.

    Waits if a removal is in progress already, for example one that a killed task began.
    """
    from docker.errors import APIError, NotFound

    end_s = time.monotonic() + REMOVAL_TIMEOUT_S
    while True:
        try:
            client.remove_container(name, force=True, v=True)
        except NotFound:
            return
        except APIError as error:
            if error.status_code != CONFLICT or time.monotonic() > end_s:
                raise
            time.sleep(REMOVAL_POLL_S)
        else:
            return
