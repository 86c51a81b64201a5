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
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from slipway.bounded_http import bounded_client, origin, send_bounded
from slipway.errors import RegistryUnusable, one_line
from slipway.image.registry_login import (
    DOCKER_HUB,
    LOGIN_HOSTS,
    Login,
    find_login,
    image_host,
    plain_host,
    registry_of,
)
from slipway.strict_json import load_json
from slipway.urls import plain_url

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
API_OF_DOCKER_HUB = "registry-1.docker.io"
TOKEN_SERVERS = {"registry.gitlab.com": "gitlab.com"}  # well-known ones at another host than their registry
TOKEN = re.compile(r"[!-~]+")  # of a token server; HTTP refuses anything else, with an error that quotes it
CANNOT_DELETE = {HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
INDEXES = (  # of several platforms
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest as the registry has it."""

    digest: str  # sha256:…
    media_type: str
    data: dict[str, Any]


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

    def manifest(self, reference: str) -> Manifest | None:
        """The manifest, or index of several platforms, at a tag or digest; None if there is none."""
        answer = self._request(
            "GET",
            f"manifests/{reference}",
            allowed={HTTPStatus.NOT_FOUND},
            headers={"Accept": ", ".join((*MANIFESTS, *INDEXES))},
        )
        if not answer.is_success:
            return None
        digest, data = self._digest_of(answer), self._json(answer)
        if DIGEST.fullmatch(reference) and digest != reference:
            raise self._invalid(f"the manifest at {reference} has the digest {digest}")
        kind = data.get("mediaType") or answer.headers.get("Content-Type", "").partition(";")[0].strip()
        return Manifest(digest=digest, media_type=str(kind), data=data)

    def blob_json(self, digest: str) -> Any:
        """The JSON object of a blob, such as an image's configuration."""
        answer = self._request("GET", f"blobs/{digest}")
        found = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
        if found != digest:
            raise self._invalid(f"the blob at {digest} has the digest {found}")
        return self._json(answer)

    def fetch_blob(self, digest: str, size: int, place: Path) -> None:
        """Copy a blob of this size to a file. A registry may redirect to where it stores blobs, which gets no login."""
        try:
            self.runner.run(self._fetch(digest, size, place))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RegistryUnusable(
                f"{self._where}: GET blobs/{digest}: {one_line(error)}. Next: check that the worker reaches the registry",
                status=0,
            ) from error

    async def _fetch(self, digest: str, size: int, place: Path) -> None:
        auth, hashed = self.client.auth, hashlib.sha256()
        known = auth.authorization if isinstance(auth, _RegistryAuth) else None  # of the request for the manifest
        async with (
            bounded_client(
                max_bytes=size,
                base_url=self.client.base_url,
                headers={"Authorization": known} if known else {},
                follow_redirects=True,
                timeout=REQUEST_TIMEOUT_S,
            ) as client,
            client.stream("GET", f"blobs/{digest}") as answer,
        ):
            answer.raise_for_status()
            with place.open("wb") as writer:
                async for chunk in answer.aiter_bytes():
                    hashed.update(chunk)
                    writer.write(chunk)
        if f"sha256:{hashed.hexdigest()}" != digest:
            raise self._invalid(f"the blob at {digest} has another digest")

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
        if origin(url) != origin(self.client.base_url):  # the login must not go to another host
            raise RegistryUnusable(
                f"{self._where}: its list of tags leads to another host: {plain_url(str(url))}. Next: ask the registry's operator"
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

    def _request(
        self, method: str, path: str, allowed: set[HTTPStatus] | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        try:
            answer = self.runner.run(send_bounded(self.client, method, path, total_s=TOTAL_S, headers=headers))
        except (httpx.HTTPError, httpx.InvalidURL) as error:  # it may redirect to anything
            raise RegistryUnusable(
                f"{self._where}: {method} {path}: {one_line(error)}. Next: check that the worker reaches the registry",
                status=0,
            ) from error
        if not answer.is_success and answer.status_code not in (allowed or ()):
            words = one_line(answer.text)[:SHOWN_CHARACTERS]
            raise RegistryUnusable(
                f"{self._where}: {method} {path}: HTTP {answer.status_code}: {words}. Next: check image.registry_conn_id and its rights",
                status=answer.status_code,
            )
        return answer


@contextmanager
def repository_at(repository: str, registry_conn_id: str | None) -> Iterator[Repository]:
    """A repository such as `europe-docker.pkg.dev/project/models/vit`, with the login of the connection, if one is given.

    Raises InputRefused if the connection is missing or invalid, RegistryLoginRefused or GoogleUnreachable if a Google connection
    gets no token.
    """
    with repository_with(repository, find_login(registry_conn_id, repository)) as found:
        yield found


@contextmanager
def repository_with(repository: str, login: Login | None) -> Iterator[Repository]:
    """A repository, with a login that may go to its registry. Plain HTTP on loopback, as the engine does; TLS elsewhere."""
    client = bounded_client(
        base_url=repository_url(repository),
        auth=_RegistryAuth(registry_of(repository), login),
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
    host = registry_of(repository)
    name = repository.removeprefix(f"{image_host(repository)}/")
    if plain_host(host) == DOCKER_HUB:
        host, name = API_OF_DOCKER_HUB, name if "/" in name else f"library/{name}"
    return f"{'http' if _is_loopback(host) else 'https'}://{host}/v2/{name}/"


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


class _RegistryAuth(httpx.Auth):
    """Answers the registry's challenge: with the login itself, or with a token that the registry's token server issues for it.

    Only the registry's own challenge is answered, not that of a host which it redirects to.
    """

    requires_response_body = True

    def __init__(self, registry: str, login: Login | None) -> None:
        self.registry = registry
        self.login = login
        self.authorization: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self.authorization:
            request.headers["Authorization"] = self.authorization
        answer = yield request
        if answer.status_code != HTTPStatus.UNAUTHORIZED or origin(answer.url) != origin(request.url):
            return
        scheme, parameters = parse_challenge(answer.headers.get("WWW-Authenticate", ""))
        if scheme == "basic" and self.login:
            self.authorization = _basic(self.login)
        elif scheme == "bearer":
            response = yield self._token_request(parameters)
            if not response.is_success:
                return  # httpx then gives this refusal to the caller
            self.authorization = f"Bearer {self._read_token(response)}"
        if self.authorization:
            request.headers["Authorization"] = self.authorization
            yield request

    async def fetch_token(self, parameters: dict[str, str]) -> str:
        """A token of the challenge's token server. Raises RegistryUnusable."""
        request = self._token_request(parameters)
        try:
            async with bounded_client(timeout=REQUEST_TIMEOUT_S) as client, asyncio.timeout(TOTAL_S):
                response = await client.send(request)
        except (httpx.HTTPError, TimeoutError) as error:
            raise RegistryUnusable(
                f"registry {self.registry}: its token server: {one_line(error)}. Next: check that the worker reaches it",
                status=0,
            ) from error
        if not response.is_success:
            raise RegistryUnusable(
                f"registry {self.registry}: its token server reports HTTP {response.status_code}. Next: check image.registry_conn_id",
                status=response.status_code,
            )
        return self._read_token(response)

    def _token_request(self, parameters: dict[str, str]) -> httpx.Request:
        """The request for a token. Raises RegistryUnusable if the token server may not get the login."""
        realm = parameters.get("realm", "")
        try:
            url = httpx.URL(realm)
        except httpx.InvalidURL:
            url = httpx.URL()
        encrypted = url.scheme == "https" or (url.scheme == "http" and _is_loopback(url.netloc.decode()))
        if url.userinfo or not encrypted or not self._is_token_server(url.netloc.decode()):
            connection = f"connection {self.login.conn_id}" if self.login else "a connection in image.registry_conn_id"
            raise RegistryUnusable(
                f"registry {self.registry}: its token server {plain_url(realm)!r} is not a known one. Next: if it is the registry's own "
                f"and has TLS, add its host to {LOGIN_HOSTS} in the extra of {connection}"
            )
        wanted: dict[str, str] = {name: parameters[name] for name in ("service", "scope") if name in parameters}
        headers = {"Authorization": _basic(self.login)} if self.login else {}
        return httpx.Request("GET", url, params=wanted, headers=headers)

    def _is_token_server(self, host: str) -> bool:
        """Whether a host may get the login for a token: the registry's own, a well-known one, or one that the connection names."""
        registry, more = plain_host(self.registry), self.login.more_hosts if self.login else ()
        return plain_host(host) in {registry, TOKEN_SERVERS.get(registry), *more}

    def _read_token(self, response: httpx.Response) -> str:
        """The token in a token server's answer. Raises RegistryUnusable."""
        try:
            found = load_json(response.content)
        except ValueError:
            found = None
        token = found.get("token") or found.get("access_token") if isinstance(found, dict) else None
        if not isinstance(token, str) or not TOKEN.fullmatch(token):
            raise RegistryUnusable(
                f"registry {self.registry}: its token server's answer has no token. Next: ask the registry's operator"
            )
        return token


def answer_challenge(header: str, registry: str, login: Login | None) -> str | None:
    """The `Authorization` with which a registry's challenge is answered; None if it cannot be. Raises RegistryUnusable."""
    auth = _RegistryAuth(registry, login)
    scheme, parameters = parse_challenge(header)
    if scheme == "basic" and login:
        return _basic(login)
    if scheme != "bearer":
        return None
    return f"Bearer {asyncio.run(auth.fetch_token(parameters))}"


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """The scheme, in lower case, and the parameters of a `WWW-Authenticate` header."""
    scheme, _, rest = header.partition(" ")
    return scheme.lower(), dict(re.findall(r'\b(\w+)="([^"]*)"', rest))


def _basic(login: Login) -> str:
    return f"Basic {base64.b64encode(f'{login.user}:{login.password}'.encode()).decode()}"
