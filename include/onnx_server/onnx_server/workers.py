"""Answers requests in a few threads, and keeps only so many waiting: a server that is behind refuses instead of being later and later."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from serving_protocol.words import ServingError, too_late

T = TypeVar("T")


class Workers:
    """A pool of threads with a bounded queue."""

    def __init__(self, threads: int, max_queued: int) -> None:
        """Run in so many threads, with so many requests waiting for them."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="worker")
        self._slots = threading.BoundedSemaphore(threads + max_queued)
        self._max_queued = max_queued

    async def run(self, work: Callable[[], T], deadline_s: float | None) -> T:
        """The result of `work`. Raises ServingError: UNAVAILABLE if too many wait, DEADLINE_EXCEEDED at the deadline.

        Work that has not begun by then, or whose caller is gone, is not begun.
        """
        if not self._slots.acquire(blocking=False):
            raise ServingError("UNAVAILABLE", f"The server is behind: {self._max_queued} requests are waiting.")
        job = self._pool.submit(_unless_late, work, deadline_s)
        job.add_done_callback(lambda _: self._slots.release())
        if deadline_s is None:
            return await asyncio.wrap_future(job)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(loop.time() + deadline_s - time.monotonic()):
                return await asyncio.wrap_future(job)
        except TimeoutError as error:
            raise too_late() from error


def _unless_late(work: Callable[[], T], deadline_s: float | None) -> T:
    if deadline_s is not None and time.monotonic() >= deadline_s:
        raise too_late()
    return work()
