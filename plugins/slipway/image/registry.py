"""A registry's own HTTP API (OCI distribution), for what a Docker Engine cannot do: read and delete images in a registry.

The worker sends these requests itself. Everything else about images goes through the engine.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx

from slipway.bounded_http import bounded_client, send_bounded
from slipway.errors import RegistryUnusable, one_line
from slipway.image.registry_login import Login, find_login, image_host
from slipway.strict_json import load_json

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
DOCKER_HUB = "registry-1.docker.io"  # the registry of names without one
CANNOT_DELETE = {HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")  # OCI's grammar: no other may become a part of a path
REQUEST_TIMEOUT_S = 30  # to connect, and between two bytes
TOTAL_S = 120  # for a whole answer
MAX_PAGES = 1000  # of a list of tags
SHOWN_CHARACTERS = 200  # of an error page


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """A tag and its image."""

    tag: str
    digest: str  # sha256:… of its manifest
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Repository:
    """An image repository in a registry. Methods raise RegistryUnusable."""

    client: httpx.AsyncClient  # its base URL is the repository's
    runner: asyncio.Runner  # of the client's connections

    def tagged(self, *, without: frozenset[str] = frozenset()) -> Iterator[Tagged]:
        """Every tag with its image, except images with the digests in `without`; none if the repository does not exist."""
        for tag in self._tags():
            manifest = self._request("GET", f"manifests/{tag}", allowed={HTTPStatus.NOT_FOUND})
            if not manifest.is_success:  # it has been deleted in the meantime
                continue
            digest = self._digest_of(manifest)
            if digest in without:
                continue
            config = self._json(manifest).get("config")
            if config:  # else it is an index of several platforms, which Slipway never pushes
                yield Tagged(tag=tag, digest=digest, labels=self._labels(tag, config))

    def _labels(self, tag: str, config: Any) -> dict[str, str]:
        """The labels of an image, from its manifest's reference to its configuration."""
        digest = config.get("digest") if isinstance(config, dict) else None
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise self._invalid(f"the manifest of {tag} names no configuration")
        found = self._json(self._request("GET", f"blobs/{digest}")).get("config")
        labels = found.get("Labels") if isinstance(found, dict) else None
        texts = labels.items() if isinstance(labels, dict) else ()
        return {name: value for name, value in texts if isinstance(value, str)}

    def delete(self, digest: str, tags: tuple[str, ...] = ()) -> bool:
        """Delete an image with its tags; no error if it is deleted already. False if the registry does not support deletion.

        Tags first: some registries keep an image as long as it has a tag. Others cannot delete a tag.
        """
        if not DIGEST.fullmatch(digest):
            raise RegistryUnusable(
                f"{self._where}: {digest!r} is not a digest, nothing was deleted. Next: check its manifests"
            )
        for tag in tags:
            self._request(
                "DELETE", f"manifests/{tag}", allowed={HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST, *CANNOT_DELETE}
            )
        answer = self._request("DELETE", f"manifests/{digest}", allowed={HTTPStatus.NOT_FOUND, *CANNOT_DELETE})
        return answer.status_code not in CANNOT_DELETE

    def _tags(self) -> Iterator[str]:
        page, seen = "tags/list", set[str]()
        while page:
            answer = self._request("GET", page, allowed={HTTPStatus.NOT_FOUND})
            if not answer.is_success:
                return
            tags = self._json(answer).get("tags") or []
            if not isinstance(tags, list) or not all(isinstance(tag, str) and TAG.fullmatch(tag) for tag in tags):
                raise self._invalid(f"GET {page}: not a list of tags")
            yield from tags
            seen |= {page, str(answer.url)}
            following = answer.links.get("next", {}).get("url")
            page = str(self._same_host(self._join(answer.url, following))) if following else ""
            if page in seen or len(seen) > 2 * MAX_PAGES:
                raise RegistryUnusable(
                    f"{self._where}: GET {page}: its list of tags has no end. Next: ask the registry's operator"
                )

    def _join(self, url: httpx.URL, following: str) -> httpx.URL:
        try:
            return url.join(following)
        except httpx.InvalidURL as error:
            raise self._invalid(f"its list of tags leads to {following!r}, which is no URL") from error

    def _invalid(self, what: str) -> RegistryUnusable:
        return RegistryUnusable(f"{self._where}: {what}. Next: ask the registry's operator")

    def _same_host(self, url: httpx.URL) -> httpx.URL:
        base = self.client.base_url
        if (url.scheme, url.netloc) != (base.scheme, base.netloc):  # the login must not go to another host
            raise RegistryUnusable(
                f"{self._where}: its list of tags leads to another host: {url}. Next: ask the registry's operator"
            )
        return url

    def _digest_of(self, manifest: httpx.Response) -> str:
        """The digest of a manifest's bytes. The registry's `Docker-Content-Digest` (a SHOULD) is only compared with it."""
        digest = f"sha256:{hashlib.sha256(manifest.content).hexdigest()}"
        named = manifest.headers.get("Docker-Content-Digest", "")
        if named.startswith("sha256:") and named != digest:
            raise RegistryUnusable(
                f"{self._where}: {manifest.url}: it names {named}, but its bytes have the digest {digest}. "
                "Next: ask the operator of the registry, or of the proxy in front of it"
            )
        return digest

    def _json(self, answer: httpx.Response) -> Any:
        """The JSON object of an answer."""
        try:
            found = load_json(answer.content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RegistryUnusable(f"{self._where}: {answer.url}: not a JSON object. Next: check image.repository")
        return found

    @property
    def _where(self) -> str:
        return f"registry {self.client.base_url}"

    def _request(self, method: str, path: str, allowed: set[HTTPStatus] | None = None) -> httpx.Response:
        try:
            answer = self.runner.run(send_bounded(self.client, method, path, total_s=TOTAL_S))
        except (httpx.HTTPError, httpx.InvalidURL) as error:  # it may redirect to anything
            raise RegistryUnusable(
                f"{self._where}: {method} {path}: {one_line(error)}. Next: check that the worker reaches the registry"
            ) from error
        if not answer.is_success and answer.status_code not in (allowed or ()):
            words = one_line(answer.text)[:SHOWN_CHARACTERS]
            raise RegistryUnusable(
                f"{self._where}: {method} {path}: HTTP {answer.status_code}: {words}. Next: check image.registry_conn_id and its rights"
            )
        return answer


@contextmanager
def repository_at(repository: str, registry_conn_id: str | None) -> Iterator[Repository]:
    """A repository such as `europe-docker.pkg.dev/project/models/vit`, with the login of the connection, if one is given.

    Plain HTTP on loopback, as the engine does; TLS elsewhere. Raises InputRefused if the connection is missing or invalid,
    RegistryLoginRefused or GoogleUnreachable if a Google connection gets no token.
    """
    login = find_login(registry_conn_id, repository)
    client = bounded_client(
        base_url=repository_url(repository),
        auth=_RegistryAuth(login),
        headers={"Accept": ", ".join((*MANIFESTS, "*/*"))},
        follow_redirects=True,
        timeout=REQUEST_TIMEOUT_S,
    )
    with asyncio.Runner() as runner:
        try:
            yield Repository(client, runner)
        finally:
            runner.run(client.aclose())


def repository_url(repository: str) -> str:
    """The repository's URL in its registry's API."""
    host = image_host(repository)
    name = repository.removeprefix(f"{host}/")
    if not host:
        host, name = DOCKER_HUB, repository if "/" in repository else f"library/{repository}"
    return f"{'http' if _is_loopback(host) else 'https'}://{host}/v2/{name}/"


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


class _RegistryAuth(httpx.Auth):
    """Answers a registry's challenge: with the login itself, or with a token that the registry's token server issues for it."""

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
        scheme, parameters = parse_challenge(answer.headers.get("WWW-Authenticate", ""))
        if scheme == "basic" and self.login:
            self.authorization = _basic(self.login)
        elif scheme == "bearer" and _may_send_login(parameters.get("realm", "")):
            response = yield self._token_request(parameters)
            if response.is_success:
                token: dict[str, Any] = response.json()
                self.authorization = f"Bearer {token.get('token') or token.get('access_token')}"
        if self.authorization:
            request.headers["Authorization"] = self.authorization
            yield request

    def _token_request(self, parameters: dict[str, str]) -> httpx.Request:
        wanted: dict[str, str] = {name: parameters[name] for name in ("service", "scope") if name in parameters}
        headers = {"Authorization": _basic(self.login)} if self.login else {}
        return httpx.Request("GET", parameters["realm"], params=wanted, headers=headers)


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """The scheme, in lower case, and the parameters of a `WWW-Authenticate` header."""
    scheme, _, rest = header.partition(" ")
    return scheme.lower(), dict(re.findall(r'\b(\w+)="([^"]*)"', rest))


def _may_send_login(realm: str) -> bool:
    """Whether a login may be sent to a token server: never unencrypted over a network."""
    parts = urlsplit(realm)
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.netloc))


def _basic(login: Login) -> str:
    return f"Basic {base64.b64encode(f'{login.user}:{login.password}'.encode()).decode()}"
