"""The worker's Docker Engine: reached through a connection, its refusals in one line, its containers never left behind."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlparse

from slipway.errors import EngineUnreachable, InputRefused, ResolveError
from slipway.release import Release

ENGINE_TIMEOUT_S = 600  # a commit of a large layer is one answer

log = logging.getLogger(__name__)


@contextmanager
def engine(release: Release) -> Iterator[Any]:
    """The engine of the release's Docker connection, as `docker.APIClient`, logged in where a registry connection is named."""
    with engine_at(release.engine_conn_id, release.registry_conn_id) as client:
        yield client


@contextmanager
def engine_at(engine_conn_id: str, registry_conn_id: str | None) -> Iterator[Any]:
    """The engine that a connection of type `docker` names by its host (`unix://…` or `tcp://…`).

    Raises InputRefused where a connection is missing or names no engine, EngineUnreachable where none answers.
    """
    from airflow.providers.docker.hooks.docker import DockerHook
    from airflow.sdk.exceptions import AirflowException
    from docker.errors import DockerException

    base_url = engine_url(engine_conn_id)
    try:
        hook = DockerHook(docker_conn_id=registry_conn_id, base_url=base_url, timeout=ENGINE_TIMEOUT_S)
        client = hook.api_client
    except (AirflowException, DockerException) as error:
        raise EngineUnreachable(
            f"engine at {base_url} (connection {engine_conn_id}): {one_line(error)}. Next: DOCKER_HOST={base_url} docker info"
        ) from error
    try:
        yield client
    finally:
        client.close()


def engine_url(engine_conn_id: str) -> str:
    """The URL of the engine that a Docker connection names. Raises InputRefused."""
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = BaseHook.get_connection(engine_conn_id)
    except AirflowNotFoundException as error:
        raise InputRefused(
            f"connection {engine_conn_id}: there is none. Next: create it in Airflow (Admin, Connections), "
            "type docker, host unix:///var/run/docker.sock or tcp://HOST:PORT"
        ) from error
    host = connection.host or ""
    if "://" in host:
        return str(host)
    if connection.schema or host.startswith("/"):
        return f"unix:///{host.lstrip('/')}"
    raise InputRefused(
        f"connection {engine_conn_id}: its host {host!r} names no engine. Next: unix:///var/run/docker.sock or tcp://HOST:PORT"
    )


def resolve_base(client: Any, reference: str) -> str:
    """The digest that an image reference has now (sha256:…), as the engine sees the registry; else as it has it.

    Raises ResolveError with the engine's words.
    """
    from docker.errors import APIError, ImageNotFound

    try:
        return str(client.inspect_distribution(reference)["Descriptor"]["digest"])
    except APIError as error:
        with suppress(ImageNotFound):
            for known in client.inspect_image(reference)["RepoDigests"]:
                log.warning("base image %s: the registry did not answer, the engine has %s", reference, known)
                return str(known.split("@", 1)[1])
        raise ResolveError(
            f"base image {reference}: {one_line(error)}. Next: check image.base, or what the engine reaches: docker pull {reference}"
        ) from error


def engine_host(release: Release) -> str:
    """Where the engine publishes ports, as this worker reaches it: loopback for a socket, else the engine's host."""
    url = urlparse(engine_url(release.engine_conn_id))
    return url.hostname if url.scheme in {"tcp", "http", "https"} and url.hostname else "127.0.0.1"


@contextmanager
def throwaway_container(client: Any, name: str, **config: Any) -> Iterator[str]:
    """A container of this name, gone afterwards; one that a killed task left is removed first."""
    from docker.errors import NotFound

    with suppress(NotFound):
        client.remove_container(name, force=True, v=True)
    container = client.create_container(name=name, **config)["Id"]
    try:
        yield container
    finally:
        with suppress(NotFound):
            client.remove_container(container, force=True, v=True)


def one_line(error: BaseException) -> str:
    """An error's own words in one line."""
    words = getattr(error, "explanation", None) or str(error) or type(error).__name__
    return " ".join(str(words).split())
