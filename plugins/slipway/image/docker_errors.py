"""Maps what the Docker client raises to Slipway's errors.

The engine passes on a registry's refusal as text, under an HTTP status of its own: only the text tells the cases apart.
"""

from __future__ import annotations

import re
from shlex import quote
from typing import Any

from slipway.errors import (
    EngineUnreachable,
    ImageBuildFailed,
    ImageError,
    ImagePushRefused,
    RegistryLoginRefused,
    RegistryUnreachable,
    ResolveError,
    SlipwayError,
    SmokeTestUnfinished,
    one_line,
)
from slipway.image.registry_login import NAME_A_LOGIN, Login

LOGIN_REQUIRED = re.compile(
    r"no basic auth credentials|unauthorized|unauthenticated|authentication required", re.IGNORECASE
)
NO_RESPONSE = re.compile(
    r"dial tcp|no such host|connection re(fused|set)|timeout|deadline exceeded|status:? (429|5\d\d)|toomanyrequests|: EOF$",
    re.IGNORECASE,
)
NO_SPACE = "no space left on device"
GOOGLE_PERMISSION = "artifactregistry."  # how the names of Artifact Registry's permissions begin


def engine_words(error: BaseException) -> str:
    """One line of what the engine reported, or of the client's own error."""
    return one_line(getattr(error, "explanation", None) or error)


def engine_unreachable(base_url: str, conn_id: str, error: Exception) -> EngineUnreachable:
    """No engine responds at the URL of a Docker connection."""
    return EngineUnreachable(
        f"engine at {base_url} (connection {conn_id}): {engine_words(error)}. Next: DOCKER_HOST={base_url} docker info"
    )


def image_build_failed(what: str, error: Exception) -> ImageBuildFailed:
    """The engine could not build the image; for a full disk, the next step is to make space."""
    words, then = engine_words(error), "docker info, df -h"
    if NO_SPACE in words:
        then = "make space on the engine's machine: docker system df, docker image prune"
    return ImageBuildFailed(f"{what}: {words}. Next: {then}, then clear build_image")


def smoke_test_unfinished(image: str, error: Exception) -> SmokeTestUnfinished:
    """The engine could not run the image, so that nothing is known of the image."""
    return SmokeTestUnfinished(f"image {image}: {engine_words(error)}. Next: docker info")


def registry_login_failed(host: str, error: Exception, login: Login) -> ImageError:
    """The engine could not log in at a registry."""
    return registry_refusal(f"registry {host}", error, login) or RegistryLoginRefused(
        f"registry {host}: connection {login.conn_id}: {engine_words(error)}. Next: docker login {quote(host)}"
    )


def base_image_unresolved(reference: str, error: Exception, login: Login | None) -> SlipwayError:
    """Neither the registry nor the engine gave a digest for the base image."""
    what = f"base image {reference}"
    refusal = registry_refusal(what, error, login)
    if isinstance(refusal, RegistryLoginRefused):
        return refusal
    return ResolveError(
        f"{what}: {engine_words(error)}. Next: check image.base, and on the engine's machine: docker pull {quote(reference)}"
    )


def image_push_refused(image: str, error: Exception, login: Login | None) -> ImageError:
    """The registry did not take the image."""
    what, words = f"push {image}", engine_words(error)
    then = login.fix if login and GOOGLE_PERMISSION in words else f"docker push {image}"
    return registry_refusal(what, error, login) or ImagePushRefused(f"{what}: {words}. Next: {then}")


def repository_refusal(repository: str, error: Any, login: Login | None) -> ImageError | None:
    """Why the engine could not ask about a repository; None if it does not exist yet, or may only be written."""
    what = f"registry of {repository}"
    if refusal := registry_refusal(what, error, login):
        return refusal
    if error.is_server_error():  # the engine got no answer: TLS, plain HTTP, a proxy
        return ImagePushRefused(f"{what}: {engine_words(error)}. Next: docker pull {quote(repository)}")
    return None


def registry_refusal(what: str, error: Exception, login: Login | None) -> ImageError | None:
    """The error, if it is about the registry's login or availability; else None."""
    words = engine_words(error)
    if NO_RESPONSE.search(words):
        return RegistryUnreachable(
            f"{what}: the registry does not respond to the engine, or reports a server error: {words}. "
            "Next: curl the registry's /v2/ on the engine's machine"
        )
    if not LOGIN_REQUIRED.search(words):
        return None
    if login is None:
        return RegistryLoginRefused(f"{what}: the registry requires a login: {words}. Next: {NAME_A_LOGIN}")
    return RegistryLoginRefused(
        f"{what}: the registry does not accept the login of connection {login.conn_id}: {words}. Next: {login.fix}"
    )
