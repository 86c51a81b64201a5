"""The bounds of `bounded_http` for `requests`, which Google's clients use. It trusts the same certificates as they do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from slipway.bounded_http import JSON_BYTES

if TYPE_CHECKING:
    import requests

T = TypeVar("T")


def bound_session(session: requests.Session, *, max_bytes: int = JSON_BYTES) -> requests.Session:
    """The session, which now stops reading at `max_bytes` of each answer and raises `requests`' ConnectionError.

    It follows no redirect, and raises `requests`' TooManyRedirects: Google's APIs send none, and the body of a request for a
    token is a login, which `requests` would send to another host.
    """

    def bound(answer: Any, **_: Any) -> None:
        answer.raw = _BoundedRaw(answer.raw, max_bytes)

    session.hooks["response"].append(bound)
    session.max_redirects = 0
    return session


def call_within(total_s: float, call: Callable[[], T]) -> T:
    """What the call returns. Raises TimeoutError after `total_s`.

    `requests` limits only the time between two bytes, and cannot be cancelled. A thread that waits for a slow answer is
    abandoned: it ends with its connection, at the latest with the process.
    """
    done: Future[T] = Future()

    def work() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # the caller raises it
            done.set_exception(error)

    threading.Thread(target=copy_context().run, args=(work,), daemon=True).start()
    try:
        return done.result(timeout=total_s)
    except TimeoutError as error:
        if done.done():  # the call itself raised it
            raise
        raise TimeoutError(f"Timeout: no complete answer within {total_s:g} s") from error


class _BoundedRaw:
    """urllib3's response, up to `max_bytes`."""

    def __init__(self, raw: Any, max_bytes: int) -> None:
        self.raw = raw
        self.max_bytes = max_bytes

    def stream(self, amt: int, decode_content: bool | None = None) -> Iterator[bytes]:  # noqa: FBT001 - urllib3's signature
        from requests.exceptions import ConnectionError as RequestsConnectionError

        read = 0
        for chunk in self.raw.stream(amt, decode_content=decode_content):
            read += len(chunk)
            if read > self.max_bytes:
                self.raw.close()
                raise RequestsConnectionError(f"an answer of more than {self.max_bytes} bytes")
            yield chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)
