"""The REST API's limits on bodies, without a server."""

import asyncio
import time

import pytest

from onnx_server.bounded_rest import AT_ONCE, Bodies
from serving_protocol.words import ServingError

MOST, SOON_S = 100, 10


def arriving(*pieces, waits=False):
    """ASGI's `receive` of a body in these pieces; it may then wait for one that never comes."""
    left = list(pieces)

    async def receive():
        if not left:
            await asyncio.sleep(SOON_S if waits else 0)
        body = left.pop(0) if left else b""
        return {"type": "http.request", "body": body, "more_body": bool(left) or waits}

    return receive


async def refused(bodies, receive, length=0, deadline_s=None):
    """The code of a body that is refused."""
    with pytest.raises(ServingError) as error:
        async with bodies.read(receive, length, deadline_s):
            pass
    return error.value.code


async def test_body_arrives_whole():
    """All pieces, up to the largest size."""
    async with Bodies(MOST).read(arriving(b"a" * 60, b"b" * 40), MOST, time.monotonic() + SOON_S) as body:
        assert body == b"a" * 60 + b"b" * 40


async def test_large_body_is_refused():
    """By its header before any of it is read, and by its pieces if the header does not say it."""
    asked = []

    async def receive():
        asked.append(1)

    assert await refused(Bodies(MOST), receive, length=MOST + 1) == "RESOURCE_EXHAUSTED"
    assert asked == []
    assert await refused(Bodies(MOST), arriving(b"a" * 60, b"b" * 41, b"c")) == "RESOURCE_EXHAUSTED"


async def test_slow_body_is_refused_at_its_deadline():
    """DEADLINE_EXCEEDED, as of any request that is late."""
    began = time.monotonic()
    assert await refused(Bodies(MOST), arriving(b"a", waits=True), deadline_s=began + 0.05) == "DEADLINE_EXCEEDED"
    assert time.monotonic() - began < SOON_S / 2


async def test_all_bodies_share_a_bound():
    """While so many bytes are kept, the next body is UNAVAILABLE; a request without a body is not. They are free when their blocks end."""
    bodies, more = Bodies(MOST), []
    for _ in range(AT_ONCE):
        more.append(bodies.read(arriving(b"a" * MOST), 0, None))
        await more[-1].__aenter__()
    assert await refused(bodies, arriving(b"a")) == "UNAVAILABLE"
    async with bodies.read(arriving(), 0, None) as body:
        assert body == b""
    await more.pop().__aexit__(None, None, None)
    async with bodies.read(arriving(b"a" * MOST), 0, None) as body:
        assert len(body) == MOST
    for one in more:
        await one.__aexit__(None, None, None)
