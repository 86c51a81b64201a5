"""The worker's Docker Engine: reached through a connection, its refusals in one line, its containers never left behind."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlparse

from slipway.errors import (
    EngineUnreachable,
    ImageError,
    ImagePushRefused,
    InputRefused,
    RegistryLoginRefused,
    RegistryUnreachable,
    ResolveError,
)
from slipway.image.registry_login import Login, find_connection
from slipway.release import Release

ENGINE_TIMEOUT_S = 600  # a commit of a large layer is one answer
REMOVAL_TIMEOUT_S, REMOVAL_LOOK_S = 60, 0.5
CONFLICT = 409  # the removal is already in progress
# A registry's refusal comes as the engine's words, under one status of the engine's own.
LOGIN_WANTED = re.compile(
    r"no basic auth credentials|unauthorized|unauthenticated|authentication required", re.IGNORECASE
)
NO_ANSWER = re.compile(
    r"dial tcp|no such host|connection re(fused|set)|timeout|deadline exceeded|status:? (429|5\d\d)|toomanyrequests|: EOF$",
    re.IGNORECASE,
)

log = logging.getLogger(__name__)


@contextmanager
def engine(release: Release) -> Iterator[Any]:
    """The engine of the release's Docker connection, as `docker.APIClient`."""
    with engine_at(release.engine_conn_id) as client:
        yield client


@contextmanager
def engine_at(engine_conn_id: str) -> Iterator[Any]:
    """The engine that a connection of type `docker` names by its host (`unix://…` or `tcp://…`).

    Raises InputRefused where the connection is missing or cannot be meant, EngineUnreachable where no engine answers, or where it
    stops to within the block.
    """
    from airflow.providers.docker.hooks.docker import DockerHook
    from airflow.sdk.exceptions import AirflowException
    from docker.errors import DockerException
    from requests.exceptions import ConnectionError as RequestsConnectionError

    base_url = engine_url(engine_conn_id)
    try:
        client = DockerHook(docker_conn_id=None, base_url=base_url, timeout=ENGINE_TIMEOUT_S).api_client
    except (AirflowException, DockerException, RequestsConnectionError) as error:
        raise _unreachable(base_url, engine_conn_id, error) from error
    try:
        yield client
    except RequestsConnectionError as error:  # the client's own HTTP library: its errors pass through the client
        raise _unreachable(base_url, engine_conn_id, error) from error
    finally:
        client.close()


def _unreachable(base_url: str, engine_conn_id: str, error: Exception) -> EngineUnreachable:
    return EngineUnreachable(
        f"engine at {base_url} (connection {engine_conn_id}): {one_line(error)}. Next: DOCKER_HOST={base_url} docker info"
    )


def log_in(client: Any, login: Login | None) -> None:
    """Have the engine try a login at its registries; the client keeps it in memory and sends it along from then on.

    The provider's hook logs in with what a Docker connection holds, and knows no tokens.
    Raises RegistryLoginRefused, RegistryUnreachable.
    """
    from docker.errors import APIError

    if login is None:
        return
    for host in login.hosts:
        try:
            client.login(login.user, login.password, registry=host, reauth=True)
        except APIError as error:
            raise refused_by_registry(f"registry {host}", error, login) or RegistryLoginRefused(
                f"registry {host}: connection {login.conn_id}: {one_line(error)}. Next: docker login {host}"
            ) from error


def engine_url(engine_conn_id: str) -> str:
    """The URL of the engine that a Docker connection names. Raises InputRefused."""
    connection = find_connection(engine_conn_id, holding="host unix:///var/run/docker.sock or tcp://HOST:PORT")
    host = connection.host or ""
    if "://" in host:
        return str(host)
    if connection.schema or host.startswith("/"):
        return f"unix:///{host.lstrip('/')}"
    raise InputRefused(
        f"connection {engine_conn_id}: its host {host!r} names no engine. Next: unix:///var/run/docker.sock or tcp://HOST:PORT"
    )


def check_registry(client: Any, repository: str, login: Login | None) -> None:
    """Have the engine ask the registry about a repository, which need not be there yet: before hours go into a build.

    Raises RegistryLoginRefused, RegistryUnreachable, ImagePushRefused. Whether it may be pushed to is known only by a push.
    """
    from docker.errors import APIError

    try:
        client.inspect_distribution(repository)
    except APIError as error:
        what = f"registry of {repository}"
        if refusal := refused_by_registry(what, error, login):
            raise refusal from error
        if error.is_server_error():  # the engine does not come as far as an answer: TLS, plain HTTP, a proxy
            raise ImagePushRefused(f"{what}: {one_line(error)}. Next: docker pull {repository}") from error
        log.info("resolve: %s: %s", what, one_line(error))  # not there yet, or not to be read


def refused_by_registry(what: str, error: Exception, login: Login | None) -> ImageError | None:
    """What a registry's words say of the login or of its health; None where they say something else."""
    words = one_line(error).rstrip(".")
    if NO_ANSWER.search(words):
        return RegistryUnreachable(
            f"{what}: it does not answer the engine, or is in trouble: {words}. Next: curl its /v2/ where the engine is"
        )
    if not LOGIN_WANTED.search(words):
        return None
    if login is None:
        return RegistryLoginRefused(
            f"{what}: it wants a login: {words}. Next: create a connection of type docker with its host, login and "
            "password, or for Artifact Registry of type google_cloud_platform, and name it in image.registry_conn_id"
        )
    return RegistryLoginRefused(
        f"{what}: the login of connection {login.conn_id} is not accepted: {words}. Next: {login.mend}"
    )


def resolve_base(client: Any, reference: str, login: Login | None = None) -> str:
    """The digest that an image reference has now (sha256:…), as the engine sees the registry; else as it has it.

    Raises RegistryLoginRefused, ResolveError with the engine's words.
    """
    from docker.errors import APIError, ImageNotFound

    try:
        return str(client.inspect_distribution(reference)["Descriptor"]["digest"])
    except APIError as error:
        with suppress(ImageNotFound):
            for known in client.inspect_image(reference)["RepoDigests"]:
                log.warning("base image %s: the registry did not answer, the engine has %s", reference, known)
                return str(known.split("@", 1)[1])
        refusal = refused_by_registry(f"base image {reference}", error, login)
        if isinstance(refusal, RegistryLoginRefused):
            raise refusal from error
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
    remove_container(client, name)
    container = client.create_container(name=name, **config)["Id"]
    try:
        yield container
    finally:
        remove_container(client, container)


def remove_container(client: Any, name: str) -> None:
    """Remove a container, running or not, and be back when it is gone: also where a killed task's call removes it already."""
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
            time.sleep(REMOVAL_LOOK_S)
        else:
            return


def one_line(error: BaseException) -> str:
    """An error's own words in one line."""
    words = getattr(error, "explanation", None) or str(error) or type(error).__name__
    return " ".join(str(words).split())
