"""HTTP answers of a bounded size and within a total time.

httpx limits only the time between two bytes: a server that sends headers or a body slowly could hold a request open for ever.
Here every request ends, so neither a trigger's event loop nor a task hangs. Tasks use asyncio too, because only asyncio can
end a request at any point.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx

from slipway.urls import plain_url

MAX_REDIRECTS = 5
JSON_BYTES = 16 * 1024 * 1024  # of the answers that are read as a whole: predictions, manifests, lists of tags


class EndlessAnswer(httpx.HTTPError):
    """An answer that is too large, or takes too long."""


def bounded_client(*, max_bytes: int = JSON_BYTES, **options: Any) -> httpx.AsyncClient:
    """A client that stops reading at `max_bytes` of each answer, also of a redirect or a refusal, and raises EndlessAnswer."""

    async def bound(answer: httpx.Response) -> None:
        if (
            answer.headers.get("Content-Encoding", "identity") != "identity"
        ):  # the client did not ask for it, and its size when decompressed is unknown
            raise EndlessAnswer(f"{plain_url(str(answer.url))}: a compressed answer, which was not asked for")
        assert isinstance(answer.stream, httpx.AsyncByteStream)  # noqa: S101 - of an asynchronous client
        answer.stream = _BoundedStream(answer.stream, max_bytes, plain_url(str(answer.url)))

    headers = {**options.pop("headers", {}), "Accept-Encoding": "identity"}
    return httpx.AsyncClient(headers=headers, event_hooks={"response": [bound]}, **options)


async def send_bounded(
    client: httpx.AsyncClient, method: str, url: str, *, total_s: float, **options: Any
) -> httpx.Response:
    """The whole answer to a request. Raises httpx.HTTPError: EndlessAnswer if it is not complete after `total_s`."""
    try:
        async with asyncio.timeout(total_s):
            return await client.request(method, url, **options)
    except TimeoutError as error:
        raise EndlessAnswer(f"no complete answer within {total_s:g} s") from error


async def send_within_host(
    client: httpx.AsyncClient, method: str, url: str, *, total_s: float
) -> tuple[httpx.Response, httpx.URL | None]:
    """The whole answer after redirects on the same host, and where it redirects to elsewhere; None if it does not.

    Raises as `send_bounded`, for each of at most MAX_REDIRECTS requests; and httpx.InvalidURL.
    """
    for _ in range(MAX_REDIRECTS):
        answer = await send_bounded(client, method, url, total_s=total_s)
        if not answer.has_redirect_location:
            break
        following = answer.url.join(answer.headers["Location"])
        if origin(following) != origin(answer.url):
            return answer, following
        url = str(following)
    return answer, None


def origin(url: httpx.URL) -> tuple[str, bytes]:
    """What a URL has in common with all others of its server: scheme, host and port."""
    return url.scheme, url.netloc


class _BoundedStream(httpx.AsyncByteStream):
    """The bytes of an answer, up to `max_bytes`."""

    def __init__(self, stream: httpx.AsyncByteStream, max_bytes: int, where: str) -> None:
        self.stream = stream
        self.max_bytes = max_bytes
        self.where = where

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = 0
        async for chunk in self.stream:
            read += len(chunk)
            if read > self.max_bytes:
                raise EndlessAnswer(f"{self.where}: an answer of more than {self.max_bytes} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self.stream.aclose()
