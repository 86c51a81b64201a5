"""An address on loopback whose TCP connections go to a port of pods, each through a websocket of its own at the API server.

For gRPC, which is HTTP/2: the API server's Service proxy does not pass it on. A port-forward reaches one pod, so the connections
go to the pods in turns. Whoever can reach the address can ask the pods what everybody can ask who reaches the model's own address.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slipway.errors import InputRefused, LoadTestUnfinished, SlipwayError
from slipway.kubernetes.api import api_refusal, list_pods_async
from slipway.kubernetes.client import api_server_unreachable
from slipway.kubernetes.server_metrics import server_pod
from slipway.target import REQUEST_TIMEOUT_S, Target

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

# Of Kubernetes' protocol v4.channel.k8s.io, which the client speaks unless it is told otherwise: the first byte of each message is
# its channel, and the first message of each channel only repeats the port.
DATA, ERROR = 0, 1
CHUNK_BYTES = 64 * 1024
HEARTBEAT_S = 10.0  # how often a websocket must answer, so that a connection that is lost ends

log = logging.getLogger(__name__)


class ForwardLost(Exception):
    """Why a connection to a pod ended from the other side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRoute:
    """What an address forwards: connections to the gRPC port of the ready pods with these labels."""

    labels: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardedPods:
    """Pods that were ready at the beginning, and what was lost on the way to them."""

    target: Target
    ports: dict[str, int]  # by the pods' names
    lost: Counter[str]  # how many connections ended from the other side, by reason

    def note(self, why: str) -> None:
        """Count a connection that was lost; the log names each reason once."""
        self.lost[why] += 1
        if self.lost[why] == 1:
            log.warning("port-forward: %s", why)


@asynccontextmanager
async def serving_pods(client: Any, target: Target, route: PodRoute, lost: Counter[str]) -> AsyncIterator[str]:
    """HOST:PORT of an address whose connections go to the route's pods in turns; `client` is of `kubernetes_asyncio`.

    Raises LoadTestUnfinished if no pod is ready, ClusterUnreachable, ApplyRefused if the connection may not forward, InputRefused.
    """
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
    async with _websockets(client, target) as sockets:
        pods = ForwardedPods(target=target, ports=await _ready_pods(target, route), lost=lost)
        names = itertools.cycle(pods.ports)
        for pod in pods.ports:  # so that a missing right is an error before there is any load
            await (await _open(sockets, pods, pod)).close()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(_forward(sockets, pods, next(names), reader, writer))
            connections[task] = writer
            task.add_done_callback(lambda ended: connections.pop(ended).close())

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            writers = list(connections.values())
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
            await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


async def _ready_pods(target: Target, route: PodRoute) -> dict[str, int]:
    """The gRPC ports of the ready pods, by the pods' names. Raises LoadTestUnfinished, ClusterUnreachable, ApplyRefused."""
    from aiohttp import ClientError
    from kubernetes_asyncio.client.exceptions import ApiException

    try:
        found = [server_pod(pod) for pod in await list_pods_async(target, route.labels)]
    except ApiException as error:
        raise api_refusal(target, "pods", error.status, error.body) from error
    except (ClientError, TimeoutError) as error:
        raise api_server_unreachable(target, "its API server", error) from error
    if not (ports := {pod.name: pod.grpc_port for pod in found if pod and pod.ready}):
        labels = ",".join(f"{name}={value}" for name, value in route.labels.items())
        raise LoadTestUnfinished(
            f"load test: no pod to forward gRPC to is ready. Next: {target.kubectl(f'get pods -l {labels}')}"
        )
    return ports


@asynccontextmanager
async def _websockets(client: Any, target: Target) -> AsyncIterator[Any]:
    """A client for websockets with the login of another client, and as many connections as there are users. Raises InputRefused."""
    from kubernetes_asyncio.stream import WsApiClient

    configuration = copy.copy(client.configuration)
    if configuration.proxy or configuration.tls_server_name:  # which this client would leave out
        raise InputRefused(
            f"connection {target.conn_id}: gRPC is not forwarded with a proxy-url or tls-server-name in the kubeconfig. "
            "Next: leave gate.load.grpc_share out of the model file, or use a kubeconfig without them"
        )
    configuration.connection_pool_maxsize = 0  # aiohttp's word for no limit; a websocket keeps its connection
    async with WsApiClient(configuration, heartbeat=HEARTBEAT_S) as sockets:
        yield sockets


async def _open(sockets: Any, pods: ForwardedPods, pod: str) -> ClientWebSocketResponse:
    """A websocket to a pod's port. Raises ApplyRefused, ClusterUnreachable."""
    from aiohttp import ClientError, WSServerHandshakeError
    from kubernetes_asyncio.client import CoreV1Api

    connect = CoreV1Api(sockets).connect_get_namespaced_pod_portforward
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            opening = await connect(pod, pods.target.namespace, ports=pods.ports[pod], _preload_content=False)
            socket: ClientWebSocketResponse = await opening
            return socket
    except WSServerHandshakeError as error:
        said = f"no port-forward to port {pods.ports[pod]}, for which a Role needs get and create on pods/portforward"
        raise api_refusal(pods.target, f"pod/{pod}", error.status, said) from error
    except (ClientError, TimeoutError) as error:
        raise api_server_unreachable(pods.target, "its API server", error) from error


async def _forward(
    sockets: Any, pods: ForwardedPods, pod: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Forward one connection until one of its sides ends it. The other connections go on, whatever happens to this one."""
    try:
        socket = await _open(sockets, pods, pod)
        try:
            await _exchange(socket, reader, writer)
        finally:
            await socket.close()
    except SlipwayError as error:
        pods.note(str(error).partition(". Next:")[0])
    except ForwardLost as why:
        pods.note(f"pod/{pod}: {why}")


async def _exchange(
    socket: ClientWebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send and receive until the local side ends. Raises ForwardLost if the other one does."""
    both = {asyncio.create_task(_send(reader, socket)), asyncio.create_task(_receive(socket, writer))}
    try:
        ended, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
    for task in ended:
        with suppress(ConnectionError):  # of the local side
            task.result()


async def _send(reader: asyncio.StreamReader, socket: ClientWebSocketResponse) -> None:
    while data := await reader.read(CHUNK_BYTES):
        try:
            await socket.send_bytes(bytes([DATA]) + data)
        except ConnectionError as error:
            raise ForwardLost("the websocket was closed") from error


async def _receive(socket: ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
    from aiohttp import WSMsgType

    begun = set()
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            raise ForwardLost(f"the websocket failed: {message.data}")
        channel, data = message.data[0], message.data[1:]
        if channel not in begun:
            begun.add(channel)
        elif channel == ERROR:
            raise ForwardLost(data.decode(errors="replace"))
        else:
            writer.write(data)
            await writer.drain()
    raise ForwardLost(f"the pod or the API server ended it (code {socket.close_code})")
