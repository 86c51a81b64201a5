"""A registry over its own HTTP API (OCI distribution), for what a Docker Engine cannot do there: look into images, delete them.

Asked from the worker itself; everything else about images goes through the engine.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx

from slipway.errors import RegistryUnusable
from slipway.image.engine import one_line
from slipway.image.registry_login import Login, find_login

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
DOCKER_HUB = "registry-1.docker.io"  # where names without a registry are
CANNOT_DELETE = {HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
REQUEST_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """An image that a tag names."""

    tag: str
    digest: str  # sha256:… of its manifest
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Repository:
    """An image repository as its registry shows it. Methods raise RegistryUnusable."""

    client: httpx.Client  # its base is the repository's URL

    def tagged(self, *, without: frozenset[str] = frozenset()) -> Iterator[Tagged]:
        """Every tag with its image, but for images with these digests; none where the repository is not there."""
        for tag in self._tags():
            manifest = self._ask("GET", f"manifests/{tag}", allowed={HTTPStatus.NOT_FOUND})
            digest = manifest.headers.get("Docker-Content-Digest", "")
            if not manifest.is_success or digest in without:  # gone meanwhile, or not asked for
                continue
            config = manifest.json().get("config")
            if config:  # else an index of several platforms, which is not ours
                said = self._ask("GET", f"blobs/{config['digest']}").json()
                labels = (said.get("config") or {}).get("Labels") or {}
                yield Tagged(tag=tag, digest=digest, labels=labels)

    def delete(self, digest: str, tags: tuple[str, ...] = ()) -> bool:
        """Delete an image; what is gone already is passed over. False where this registry deletes nothing.

        Tags go first: some registries keep an image while a tag names it, others know no deletion of a tag.
        """
        for tag in tags:
            self._ask(
                "DELETE", f"manifests/{tag}", allowed={HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST, *CANNOT_DELETE}
            )
        answer = self._ask("DELETE", f"manifests/{digest}", allowed={HTTPStatus.NOT_FOUND, *CANNOT_DELETE})
        return answer.status_code not in CANNOT_DELETE

    def _tags(self) -> Iterator[str]:
        page: str | None = "tags/list"
        while page:
            answer = self._ask("GET", page, allowed={HTTPStatus.NOT_FOUND})
            if not answer.is_success:
                return
            yield from answer.json().get("tags") or ()
            following = answer.links.get("next", {}).get("url")
            page = str(answer.url.join(following)) if following else None

    def _ask(self, method: str, path: str, allowed: set[HTTPStatus] | None = None) -> httpx.Response:
        where = f"registry {self.client.base_url}"
        try:
            answer = self.client.request(method, path)
        except httpx.HTTPError as error:
            raise RegistryUnusable(
                f"{where}: {one_line(error)}. Next: check that the worker reaches the registry"
            ) from error
        if not answer.is_success and answer.status_code not in (allowed or ()):
            words = " ".join(answer.text.split())[:200]
            raise RegistryUnusable(
                f"{where}: {method} {path}: HTTP {answer.status_code}: {words}. Next: check image.registry_conn_id and its rights"
            )
        return answer


@contextmanager
def repository_at(repository: str, registry_conn_id: str | None) -> Iterator[Repository]:
    """A repository such as `europe-docker.pkg.dev/project/models/vit`, logged in where a connection is named.

    Plain HTTP on loopback, as the engine does it; TLS elsewhere. Raises InputRefused where the connection is missing,
    RegistryLoginRefused, GoogleUnreachable where a Google connection gets no token.
    """
    login = find_login(registry_conn_id, repository)
    with httpx.Client(
        base_url=repository_url(repository),
        auth=_Challenged(login),
        headers={"Accept": ", ".join((*MANIFESTS, "*/*"))},
        follow_redirects=True,
        timeout=REQUEST_TIMEOUT_S,
    ) as client:
        yield Repository(client)


def repository_url(repository: str) -> str:
    """The URL that a repository has in its registry's API."""
    host, _, name = repository.partition("/")
    if not name or not re.search(r"[.:]|^localhost$", host):
        host, name = DOCKER_HUB, repository if "/" in repository else f"library/{repository}"
    return f"{'http' if _is_loopback(host) else 'https'}://{host}/v2/{name}/"


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


class _Challenged(httpx.Auth):
    """Answers a registry's challenge: with the login itself, or with a token that its own token server gives for it."""

    requires_response_body = True

    def __init__(self, login: Login | None) -> None:
        self.login = login
        self.authorization: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self.authorization:
            request.headers["Authorization"] = self.authorization
        answer = yield request
        if answer.status_code != HTTPStatus.UNAUTHORIZED:
            return
        scheme, asked = parse_challenge(answer.headers.get("WWW-Authenticate", ""))
        if scheme == "basic" and self.login:
            self.authorization = _basic(self.login)
        elif scheme == "bearer" and _may_be_told(asked.get("realm", "")):
            given = yield self._token_request(asked)
            if given.is_success:
                token: dict[str, Any] = given.json()
                self.authorization = f"Bearer {token.get('token') or token.get('access_token')}"
        if self.authorization:
            request.headers["Authorization"] = self.authorization
            yield request

    def _token_request(self, asked: dict[str, str]) -> httpx.Request:
        wanted: dict[str, str] = {name: asked[name] for name in ("service", "scope") if name in asked}
        headers = {"Authorization": _basic(self.login)} if self.login else {}
        return httpx.Request("GET", asked["realm"], params=wanted, headers=headers)


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """Scheme, in lower case, and parameters of a `WWW-Authenticate` header."""
    scheme, _, rest = header.partition(" ")
    return scheme.lower(), dict(re.findall(r'(\w+)="([^"]*)"', rest))


def _may_be_told(realm: str) -> bool:
    """Whether a login may be sent to a token server: never in clear over a network."""
    parts = urlsplit(realm)
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.netloc))


def _basic(login: Login) -> str:
    return f"Basic {base64.b64encode(f'{login.user}:{login.password}'.encode()).decode()}"
