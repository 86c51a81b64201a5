"""Sends an image's layers to a registry without an engine, through the library dxf.

dxf streams a file from the disk, mounts a layer from another repository, and asks first whether the registry has it. A login is
ours to keep: it goes to the repository's own registry, and to token servers as `registry` knows them.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from dxf import DXF
from dxf.exceptions import DXFError, DXFMountFailed

from slipway.bounded_requests import bound_session, call_within
from slipway.errors import RegistryUnusable, one_line
from slipway.image.registry import answer_challenge, repository_url
from slipway.image.registry_login import Login, registry_of
from slipway.urls import plain_url

ANSWER_TIMEOUT_S = 600  # between two bytes: a registry hashes a large layer before it answers
TOTAL_S = 4 * 3600  # for a layer and the answer
PROGRESS_S = 10

log = logging.getLogger(__name__)


class Uploads(DXF):  # type: ignore[misc]  # dxf has no types
    """A repository that layers and manifests are sent to. Methods raise RegistryUnusable. `sent` counts the bytes of layers."""

    def __init__(self, repository: str, login: Login | None) -> None:
        self.url = repository_url(repository)
        parts = urlsplit(self.url)
        registry = registry_of(repository)
        super().__init__(
            parts.netloc,
            _name_in_registry(repository),
            auth=lambda _, answer: self._log_in(answer, registry, login),
            insecure=parts.scheme == "http",
            timeout=ANSWER_TIMEOUT_S,
        )
        self.sent = 0

    def __enter__(self) -> Uploads:
        """Use one session, which follows no redirect and reads no endless answer."""
        super().__enter__()
        bound_session(self._sessions[0])
        return self

    def _log_in(self, answer: requests.Response, registry: str, login: Login | None) -> None:
        authorization = answer_challenge(answer.headers.get("WWW-Authenticate", ""), registry, login)
        if authorization is not None:
            self._headers = {"Authorization": authorization}

    def _base_request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Dxf's request; an upload's address at another host is refused, because the login would go there."""
        where, asked = urljoin(self._base_url, path), urlsplit(self._base_url)
        if (urlsplit(where).scheme, urlsplit(where).netloc) != (asked.scheme, asked.netloc):
            raise RegistryUnusable(
                f"registry {self.url}: it wants an upload at another host: {plain_url(where)}. Next: ask the registry's operator"
            )
        answer: requests.Response = call_within(
            TOTAL_S, lambda: super(Uploads, self)._base_request(method, path, **options)
        )
        return answer

    def has(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        with self._errors(f"HEAD blobs/{digest}"):
            try:
                self.blob_size(digest)
            except requests.HTTPError as error:
                if error.response is not None and error.response.status_code == requests.codes.not_found:
                    return False
                raise
        return True

    def mount(self, digest: str, repository: str) -> bool:
        """Whether the registry took a blob from another of its repositories; False if it does not do that."""
        with self._errors(f"mount of {digest}"):
            try:
                self.mount_blob(_name_in_registry(repository), digest)
            except (DXFMountFailed, requests.HTTPError):
                return False
        return True

    def send(self, file: Path, digest: str) -> None:
        """Upload a blob, unless the repository has it."""
        if self.has(digest):
            return
        with self._errors(f"upload of {digest}"), _Reported(file) as reader:
            self.push_blob(data=reader, digest=digest, check_exists=False)
        self.sent += file.stat().st_size

    def send_manifest(self, tag: str, content: str) -> None:
        """Upload a manifest under a tag."""
        with self._errors(f"PUT manifests/{tag}"):
            self.set_manifest(tag, content)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Raise what the library and its client raise as RegistryUnusable, with the HTTP status if there is one."""
        try:
            yield
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else None
            words = one_line(error.response.text)[:200] if error.response is not None else one_line(error)
            raise RegistryUnusable(
                f"registry {self.url}: {what}: HTTP {status}: {words}. Next: check image.registry_conn_id and its rights",
                status=status,
            ) from error
        except DXFError as error:  # it refused the login
            raise RegistryUnusable(
                f"registry {self.url}: {what}: unauthorized. Next: check image.registry_conn_id and its rights",
                status=requests.codes.unauthorized,
            ) from error
        except (requests.RequestException, OSError) as error:
            raise RegistryUnusable(
                f"registry {self.url}: {what}: {one_line(error)}. Next: check that the worker reaches the registry",
                status=0,
            ) from error


def _name_in_registry(repository: str) -> str:
    """The repository's name, as its registry's API has it."""
    return urlsplit(repository_url(repository)).path.removeprefix("/v2/").rstrip("/")


class _Reported(io.FileIO):
    """A file that logs how much of it has been read."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.size, self.done, self.next_s = file.stat().st_size, 0, time.monotonic() + PROGRESS_S

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        chunk = super().read(size)
        self.done += len(chunk)
        if chunk and time.monotonic() > self.next_s:
            log.info("push: %d of %d MB sent", self.done // 10**6, self.size // 10**6)
            self.next_s = time.monotonic() + PROGRESS_S
        return chunk
