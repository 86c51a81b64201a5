"""Addresses on loopback that forward REST requests to Services, and gRPC to pods, through the API server, while a block runs.

A program beside Airflow can then ask a server that has no address, and needs neither a login nor a cluster's certificates. Every
process on the worker can reach these addresses. So each forwards only POST requests, to one path of one Service, or connections to
one port of a release's pods.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from slipway.kubernetes.api import NOT_FOUND
from slipway.kubernetes.client import api_server_unreachable, async_cluster_client, kubernetes_connection_errors
from slipway.kubernetes.port_forward import PodRoute, serving_pods
from slipway.kubernetes.proxy import send_through
from slipway.target import Target

if TYPE_CHECKING:
    from aiohttp import web

BAD_GATEWAY = 502  # the API server itself answered, or did not answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What an address forwards: a Service's path at the API server, and the one path below it that may be asked."""

    service: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarding:
    """Addresses that forward, and what was lost on the way."""

    addresses: tuple[str, ...]  # one for each route: a URL, or HOST:PORT for pods
    lost: Counter[str]  # how many connections to pods ended from the other side, by reason


@contextmanager
def forwarded(target: Target, routes: Sequence[Route | PodRoute]) -> Iterator[Forwarding]:
    """An address on loopback for each route. Raises ClusterUnreachable, InputRefused; for pods also ApplyRefused, LoadTestUnfinished."""
    started: SimpleQueue[Forwarding | BaseException] = SimpleQueue()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        async with _serving(target, routes) as forwarding:
            started.put(forwarding)
            await ended.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        except BaseException as error:
            started.put(error)
        finally:
            loop.close()

    thread = threading.Thread(target=run, name="slipway-forward", daemon=True)
    thread.start()
    found = started.get()
    if isinstance(found, BaseException):
        thread.join()
        if isinstance(found, TimeoutError):
            raise api_server_unreachable(target, "its client", found) from found
        with kubernetes_connection_errors(target.conn_id):
            raise found
    try:
        yield found
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()


@asynccontextmanager
async def _serving(target: Target, routes: Sequence[Route | PodRoute]) -> AsyncIterator[Forwarding]:
    """Servers on loopback, one for each route. All requests over REST share connections."""
    lost: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(async_cluster_client(target))
        addresses = [
            await stack.enter_async_context(
                serving_pods(client, target, route, lost) if isinstance(route, PodRoute) else _requests(client, route)
            )
            for route in routes
        ]
        yield Forwarding(addresses=tuple(addresses), lost=lost)


@asynccontextmanager
async def _requests(client: Any, route: Route) -> AsyncIterator[str]:
    """The URL of a server that forwards requests."""
    from aiohttp import web

    runner = web.ServerRunner(web.Server(partial(_forward, client, route), access_log=None))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _forward(client: Any, route: Route, request: web.BaseRequest) -> web.StreamResponse:
    from aiohttp import web

    if (request.method, request.path) != ("POST", route.path):
        return web.Response(status=NOT_FOUND)
    answer = await send_through(client, route.service + route.path, (await request.read()).decode())
    return web.Response(status=answer.status or BAD_GATEWAY, text=answer.body, content_type="application/json")
