"""Answers requests in a few threads, and keeps only so many waiting: a server that is behind refuses instead of being later and later."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from serving_protocol.words import ServingError, too_late

T = TypeVar("T")
# What waits for a thread: the work, and the future of its answer; empty once it has begun, or is not wanted any more. Taking it out
# is one step, in whichever thread.
Waiting = list[tuple[Callable[[], Any], "asyncio.Future[Any]"]]


class Workers:
    """A pool of threads with a bounded queue."""

    def __init__(self, threads: int, max_queued: int) -> None:
        """Run in so many threads, with so many requests waiting for them."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="worker")
        self._slots = threading.BoundedSemaphore(threads + max_queued)
        self._max_queued = max_queued

    async def run(self, work: Callable[[], T], deadline_s: float | None) -> T:
        """The result of `work`. Raises ServingError: UNAVAILABLE if too many wait, DEADLINE_EXCEEDED at the deadline.

        Work that has not begun by then, or whose caller is gone, is not begun, and keeps no memory.
        """
        if not self._slots.acquire(blocking=False):
            raise ServingError("UNAVAILABLE", f"The server is behind: {self._max_queued} requests are waiting.")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        waiting: Waiting = [(work, answer)]
        self._pool.submit(self._begin, waiting, deadline_s, loop)
        try:
            async with asyncio.timeout_at(deadline_s and loop.time() + deadline_s - time.monotonic()):
                return await answer
        except TimeoutError as error:
            raise too_late() from error
        finally:
            with contextlib.suppress(IndexError):  # it has begun
                waiting.pop()
                self._slots.release()

    def _begin(self, waiting: Waiting, deadline_s: float | None, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread of the pool: do what waits, and hand the result to the loop."""
        try:
            work, answer = waiting.pop()
        except IndexError:
            return
        result, error = None, None
        try:
            result = _unless_late(work, deadline_s)
        except Exception as raised:  # whatever it is: the caller waits for it
            error = raised
        finally:
            self._slots.release()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(_settle, answer, result, error)


def _unless_late(work: Callable[[], T], deadline_s: float | None) -> T:
    if deadline_s is not None and time.monotonic() >= deadline_s:
        raise too_late()
    return work()


def _settle(answer: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if answer.done():  # its caller is gone
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
