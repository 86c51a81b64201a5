"""The server: reads the flags, loads the model, opens the ports and serves until it is killed.

The package runs in its own image, in the environment of requirements.txt. It serves a SavedModel with the REST and gRPC
APIs, flags, answers and error codes of the real server. README.md says what it imitates and what it does not.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from serving_protocol.flags import parse_flags
from serving_protocol.words import START_FAILED, ServingError, log, name_program

from .flags import StandInFlags
from .lean_tensorflow import skip_public_api

if TYPE_CHECKING:
    from serving_protocol.versions import Versions

NAME = "stand-in for tensorflow/serving"


def main(arguments: list[str]) -> None:
    """Serve without end. Ends the process with status 255 if the first version cannot be served."""
    name_program(NAME)
    log("this is not tensorflow/serving; it takes the place of that image if it cannot be pulled")
    flags = parse_flags(arguments, StandInFlags)
    try:
        serve(flags)
    except ServingError as error:
        log(f"Failed to start server. Error: {error.code}: 1 model(s) did not become available: {error.message}")
        raise SystemExit(START_FAILED) from error


def serve(flags: StandInFlags) -> None:
    """Load the first version, open the ports, and poll for newer versions."""
    skip_public_api()
    # Imported here: TensorFlow and gRPC take seconds, which a refused flag need not wait for.
    from .grpc_server import start_grpc
    from .tensorflow_runtime import refuse_xla

    if not flags.compiles:
        refuse_xla()
    versions = versions_of(flags)
    versions.load_first()
    grpc_server = start_grpc(versions, flags.port, flags.grpc_max_threads)
    if flags.rest_api_port == flags.port:
        log("--rest_api_port is the gRPC port: skipped exporting HTTP/REST API")
    elif flags.rest_api_port:
        start_rest(flags, versions)
    versions.watch()
    grpc_server.wait_for_termination()


def versions_of(flags: StandInFlags) -> "Versions":
    """The versions of the model. Each is loaded and warmed up according to the flags."""
    from serving_protocol.batching import Batcher, parameters_of
    from serving_protocol.configs import read_batching
    from serving_protocol.models import Model
    from serving_protocol.versions import Found, Versions

    from .tensorflow_runtime import Session, signature_runner
    from .warmup import warm_up

    batcher = Batcher(parameters_of(read_batching(flags.batching_parameters_file))) if flags.enable_batching else None

    def load(found: Found) -> Model:
        session = Session(
            str(found.folder),
            flags.saved_model_tags.split(","),
            inter_op_threads=flags.inter_op_threads,
            intra_op_threads=flags.intra_op_threads,
        )
        run = signature_runner(session, batcher.wrap(session.run) if batcher else session.run)
        model = Model(flags.model_name, found.version, session.signatures, run, runtime="TF1")
        if flags.enable_model_warmup:
            warm_up(model, found, flags.num_request_iterations_for_warmup)
        return model

    return Versions(flags, load)


def start_rest(flags: StandInFlags, versions: "Versions") -> None:
    """Serve REST in a thread, each prediction in one of a bounded pool."""
    from serving_protocol.configs import metrics_path
    from serving_protocol.rest import Rest, listening, rest_server

    pool = ThreadPoolExecutor(max(flags.rest_api_num_threads, 1), thread_name_prefix="rest")

    async def execute(predict: Callable[[], bytes], _: float | None) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(pool, predict)

    path = metrics_path(flags.monitoring_config_file)
    app = Rest(versions, execute, timeout_ms=flags.rest_api_timeout_in_ms, metrics_path=path)
    opened = listening(flags.rest_api_port)
    if opened:
        threading.Thread(target=rest_server(app).run, args=([opened],), name="rest-loop", daemon=True).start()
        log(f"Exporting HTTP/REST API at:localhost:{flags.rest_api_port} ...")
