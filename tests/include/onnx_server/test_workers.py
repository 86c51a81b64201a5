"""A pool of threads with a bounded queue."""

import asyncio
import threading
import time

import pytest

from onnx_server.workers import Workers
from serving_protocol.words import ServingError

SOON_S = 10


@pytest.fixture
def busy():
    """One thread, which is busy until the event is set; two requests may wait."""
    release = threading.Event()
    workers = Workers(1, 2)
    yield workers, release, lambda: workers.run(lambda: release.wait(SOON_S), None)
    release.set()


async def begun(work):
    """A task of this work, after its first step."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0)
    return task


async def test_full_queue_refuses(busy):
    """One runs and two wait: the fourth is UNAVAILABLE. When one has ended, the next is taken."""
    workers, release, hold = busy
    tasks = [await begun(hold()) for _ in range(3)]
    with pytest.raises(ServingError, match="2 requests are waiting") as refused:
        await hold()
    assert refused.value.code == "UNAVAILABLE"
    release.set()
    assert await asyncio.gather(*tasks) == [True] * 3
    assert await workers.run(lambda: "taken", None) == "taken"


async def test_work_whose_time_is_over_is_not_begun(busy):
    """Its caller gets DEADLINE_EXCEEDED at the deadline, not when its turn comes; its place in the queue is free again."""
    workers, release, hold = busy
    first, ran = await begun(hold()), []
    began = time.monotonic()
    with pytest.raises(ServingError) as late:
        await workers.run(lambda: ran.append(1), began + 0.05)
    assert late.value.code == "DEADLINE_EXCEEDED"
    assert time.monotonic() - began < SOON_S / 2
    tasks = [await begun(hold()) for _ in range(2)]
    release.set()
    await asyncio.gather(first, *tasks)
    assert ran == []


async def test_work_of_a_caller_that_is_gone_is_not_begun(busy):
    """A cancelled call leaves the queue."""
    workers, release, hold = busy
    first, ran = await begun(hold()), []
    gone = await begun(workers.run(lambda: ran.append(1), None))
    gone.cancel()
    tasks = [await begun(hold())]
    release.set()
    await asyncio.gather(first, *tasks)
    assert (gone.cancelled(), ran) == (True, [])


async def test_error_of_the_work_is_its_callers(busy):
    """What the work raises comes to its caller."""
    workers, release, _ = busy
    release.set()

    def fail():
        raise ServingError("INVALID_ARGUMENT", "no")

    with pytest.raises(ServingError, match="no"):
        await workers.run(fail, time.monotonic() + SOON_S)
