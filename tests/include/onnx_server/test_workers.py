"""A pool of threads with a bounded queue."""

import asyncio
import gc
import threading
import time
import weakref
from functools import partial

import numpy as np
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


async def abandoned(workers):
    """What a cancelled call held, as a weak reference."""
    images = np.zeros(8)
    gone = await begun(workers.run(partial(np.sum, images), None))
    gone.cancel()
    await asyncio.wait([gone])
    return weakref.ref(images)


async def test_cancelled_work_keeps_no_memory(busy):
    """What a request holds is free as soon as its caller is gone, and not when its turn would have come."""
    workers, release, hold = busy
    first = await begun(hold())
    held = await abandoned(workers)
    gc.collect()
    assert held() is None
    release.set()
    await first


async def test_error_of_the_work_is_its_callers(busy):
    """What the work raises comes to its caller."""
    workers, release, _ = busy
    release.set()

    def fail():
        raise ServingError("INVALID_ARGUMENT", "no")

    with pytest.raises(ServingError, match="no"):
        await workers.run(fail, time.monotonic() + SOON_S)
