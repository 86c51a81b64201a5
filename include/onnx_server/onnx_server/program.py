"""The server: reads the flags, loads the model, opens the ports, and serves until SIGTERM."""

import asyncio
import os
import signal
import sys
import threading

import uvicorn

from serving_protocol.flags import parse_flags
from serving_protocol.rest import Rest, listening, rest_server
from serving_protocol.versions import Versions
from serving_protocol.words import START_FAILED, ServingError, log, name_program

from .bounded_rest import BoundedRest
from .flags import QUEUED_PER_THREAD, ServerFlags
from .grpc_server import GrpcServer
from .loader import Loader
from .memory import share_one_heap
from .workers import Workers

NAME = "onnx_model_server"
SWITCH_S = 0.0005  # a thread that computes gives way to the event loop after this, not after Python's 5 ms


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM. Ends the process with status 255 if the first version cannot be served."""
    name_program(NAME)
    share_one_heap()
    flags = parse_flags(arguments, ServerFlags)
    serve(flags, Loader(flags))


def serve(flags: ServerFlags, load: Loader) -> None:
    """Load the first version with `load`, open the ports, and serve until SIGTERM."""
    sys.setswitchinterval(SWITCH_S)
    # Until the ports are open there is nothing to finish: SIGTERM ends a server that still loads or waits for a version.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    versions = Versions(flags, load)
    try:
        versions.load_first()
    except ServingError as error:
        log(f"Failed to start server. Error: {error.code}: 1 model(s) did not become available: {error.message}")
        raise SystemExit(START_FAILED) from error
    threading.Thread(target=versions.watch, name="versions", daemon=True).start()
    threads = max(flags.threads, load.together)
    workers = Workers(threads, flags.max_queued_requests or QUEUED_PER_THREAD * threads)
    if not asyncio.run(Server(flags, versions, workers).run()):
        log(f"{flags.shutdown_timeout_in_ms} ms after SIGTERM some requests still run: they get no answer")
        sys.stderr.flush()
        os._exit(0)  # Python would wait for their threads


class Server:
    """Both servers, in one event loop."""

    def __init__(self, flags: ServerFlags, versions: Versions, workers: Workers) -> None:
        """Serve these versions."""
        self._flags = flags
        self._versions = versions
        self._workers = workers

    async def run(self) -> bool:
        """Serve until SIGTERM, then finish what runs. False if some of it did not end within its limit."""
        flags, leave = self._flags, asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, leave.set)
        grpc_server = GrpcServer(self._versions, self._workers, flags)
        await grpc_server.start()
        app = BoundedRest(self._versions, self._workers.run, flags)
        rest = self._start_rest(app)
        await leave.wait()
        log("SIGTERM: finishing the requests that run")
        app.is_leaving = True
        await grpc_server.leave()
        await asyncio.sleep(flags.shutdown_delay_in_ms / 1000)
        return await _stop(rest, grpc_server, flags.shutdown_timeout_in_ms / 1000)

    def _start_rest(self, app: Rest) -> tuple[uvicorn.Server, asyncio.Task[None]] | None:
        port = self._flags.rest_api_port
        if port == self._flags.port:
            log("--rest_api_port is the gRPC port: skipped exporting HTTP/REST API")
            return None
        opened = listening(port) if port else None
        if opened is None:
            return None
        server = rest_server(app)
        log(f"Exporting HTTP/REST API at:localhost:{port} ...")
        return server, asyncio.create_task(server.serve(sockets=[opened]))


async def _stop(
    rest: tuple[uvicorn.Server, asyncio.Task[None]] | None, grpc_server: GrpcServer, limit_s: float
) -> bool:
    ending = [asyncio.create_task(grpc_server.stop(limit_s))]
    if rest:
        server, serving = rest
        server.should_exit = True
        ending.append(serving)
    _, late = await asyncio.wait(ending, timeout=limit_s)
    return not late
