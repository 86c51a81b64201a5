"""The server: reads the flags, loads the model, opens the ports, and serves until SIGTERM."""

import asyncio
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from google.protobuf.message import DecodeError

from serving_protocol.batching import Batcher, Parameters, parameters_of
from serving_protocol.configs import metrics_path, read_batching
from serving_protocol.flags import parse_flags
from serving_protocol.messages import PredictRequest
from serving_protocol.models import Model
from serving_protocol.rest import Rest, listening, rest_server
from serving_protocol.versions import Found, Versions
from serving_protocol.warmup import replay
from serving_protocol.words import START_FAILED, ServingError, invalid, log, name_program

from .classifier import RunPixels, load_classifier
from .description import Description, ModelRefused
from .flags import QUEUED_PER_THREAD, ServerFlags
from .grpc_server import GrpcServer
from .session import INPUT, OUTPUT
from .workers import Workers

NAME = "onnx_model_server"
RUNTIME = "ONNX"
SWITCH_S = 0.0005  # a thread that computes gives way to the event loop after this, not after Python's 5 ms

MOST_THREADS = 64


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM. Ends the process with status 255 if the first version cannot be served."""
    name_program(NAME)
    flags = parse_flags(arguments, ServerFlags)
    serve(flags, Loader(flags))


def serve(flags: ServerFlags, load: Callable[[Found], Model]) -> None:
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
    threads = max(flags.threads, getattr(load, "together", 1))
    workers = Workers(threads, flags.max_queued_requests or QUEUED_PER_THREAD * threads)
    if not asyncio.run(Server(flags, versions, workers).run()):
        log(f"{flags.shutdown_timeout_in_ms} ms after SIGTERM some requests still run: they get no answer")
        sys.stderr.flush()
        os._exit(0)  # Python would wait for their threads


class Loader:
    """Loads the model in a folder and answers its warmup requests."""

    def __init__(self, flags: ServerFlags) -> None:
        """Join requests if the flags or the model say so."""
        self._flags = flags
        self._chosen = parameters_of(read_batching(flags.batching_parameters_file)) if flags.enable_batching else None
        self._batcher = functools.cache(Batcher)  # one for each set of parameters: it has threads
        self.together = self._threads_for(self._chosen)  # how many threads it takes to fill batches

    def __call__(self, found: Found) -> Model:
        """The model in this folder. Raises ServingError."""
        flags = self._flags
        try:
            classifier = load_classifier(found.folder, threads=flags.intra_op_threads, joined=self._joined)
        except ModelRefused as refused:
            raise invalid(str(refused)) from refused
        model = Model(flags.model_name, found.version, classifier.signatures, classifier.run, RUNTIME)
        folder = found.folder / "warmup"
        if flags.enable_model_warmup and folder.is_dir():
            replay(model, found, folder, _requests(folder), flags.num_request_iterations_for_warmup)
        return model

    def _joined(self, description: Description, run: RunPixels) -> RunPixels:
        """Joins runs by the file that the flags name; without one by the model's own numbers, if it has any."""
        parameters = self._chosen or _parameters(description)
        if parameters is None:
            return run
        self.together = max(self.together, self._threads_for(parameters))
        joined = self._batcher(parameters).wrap(lambda feeds, _, deadline_s: [run(feeds[INPUT], deadline_s)])

        def run_joined(pixels: np.ndarray, deadline_s: float | None) -> np.ndarray:
            if self._chosen is None and len(pixels) > parameters.max_batch_size:
                return run(pixels, deadline_s)
            return np.asarray(joined({INPUT: pixels}, [OUTPUT], deadline_s)[0])

        return run_joined

    @staticmethod
    def _threads_for(parameters: Parameters | None) -> int:
        """The threads that can fill one batch while another runs."""
        return min(2 * parameters.max_batch_size, MOST_THREADS) if parameters else 1


def _parameters(description: Description) -> Parameters | None:
    own = description.batching
    if own is None:
        return None
    return Parameters(
        max_batch_size=own.max_batch, batch_timeout_s=own.timeout_ms / 1000, max_enqueued_batches=MOST_THREADS,
        num_batch_threads=1,
    )  # fmt: skip


def _requests(folder: Path) -> Iterator[Any]:
    """The warmup requests of a model, in the order of their names."""
    for path in sorted(folder.glob("*.bin")):
        try:
            yield PredictRequest.FromString(path.read_bytes())
        except DecodeError as error:
            raise invalid(f"Failed to parse warmup record: {path}") from error


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
        grpc_server = GrpcServer(self._versions, self._workers, flags.port)
        await grpc_server.start()
        app = Rest(
            self._versions, self._workers.run, timeout_ms=flags.rest_api_timeout_in_ms,
            metrics_path=metrics_path(flags.monitoring_config_file),
        )  # fmt: skip
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
