"""The server: reads the flags, loads the model, opens the ports and serves until it is killed.

The package runs in its own image, in the environment of requirements.txt. It serves a SavedModel with the REST and gRPC
APIs, flags, answers and error codes of the real server. README.md says what it imitates and what it does not.
"""

from typing import TYPE_CHECKING

from .flags import Flags, parse_flags
from .lean_tensorflow import skip_public_api
from .words import START_FAILED, ServingError, log

if TYPE_CHECKING:
    from .models import Versions
    from .rest import Rest


def main(arguments: list[str]) -> None:
    """Serve without end. Ends the process with status 255 if the first version cannot be served."""
    log("this is not tensorflow/serving; it takes the place of that image if it cannot be pulled")
    flags = parse_flags(arguments)
    try:
        serve(flags)
    except ServingError as error:
        log(f"Failed to start server. Error: {error.code}: 1 model(s) did not become available: {error.message}")
        raise SystemExit(START_FAILED) from error


def serve(flags: Flags) -> None:
    """Load the first version, open the ports, and poll for newer versions."""
    skip_public_api()
    # Imported here: TensorFlow and gRPC take seconds, which a refused flag need not wait for.
    from .grpc_api import start_grpc
    from .rest import start_rest

    versions = versions_of(flags)
    versions.load_first()
    grpc_server = start_grpc(versions, flags.port, flags.grpc_max_threads)
    if flags.rest_api_port == flags.port:
        log("--rest_api_port is the gRPC port: skipped exporting HTTP/REST API")
    elif flags.rest_api_port:
        start_rest(rest_of(flags, versions), flags.rest_api_port)
    versions.watch()
    grpc_server.wait_for_termination()


def versions_of(flags: Flags) -> "Versions":
    """The versions of the model. Each is loaded and warmed up according to the flags."""
    from .batching import Batcher, parameters_of
    from .configs import read_batching
    from .models import Found, Model, Versions
    from .tensorflow_runtime import Session
    from .warmup import warm_up

    batcher = Batcher(parameters_of(read_batching(flags.batching_parameters_file))) if flags.enable_batching else None

    def load(found: Found) -> Model:
        session = Session(
            str(found.folder),
            flags.saved_model_tags.split(","),
            inter_op_threads=flags.inter_op_threads,
            intra_op_threads=flags.intra_op_threads,
        )
        model = Model(flags.model_name, found.version, session, batcher)
        if flags.enable_model_warmup:
            warm_up(model, found, flags.num_request_iterations_for_warmup)
        return model

    return Versions(flags, load)


def rest_of(flags: Flags, versions: "Versions") -> "Rest":
    """The REST application, configured by the flags."""
    from .configs import read_monitoring
    from .metrics import PATH
    from .rest import Rest

    prometheus = read_monitoring(flags.monitoring_config_file).prometheus_config
    return Rest(
        versions,
        threads=max(flags.rest_api_num_threads, 1),
        timeout_ms=flags.rest_api_timeout_in_ms,
        metrics_path=(prometheus.path or PATH) if prometheus.enable else None,
    )
