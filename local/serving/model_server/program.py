"""From the command line to a served model: load it, then open the ports and serve until killed."""

from typing import TYPE_CHECKING

from .flags import Flags, parse_flags
from .words import START_FAILED, ServingError, log

if TYPE_CHECKING:
    from .models import Versions
    from .rest import Rest


def main(arguments: list[str]) -> None:
    """Serve; returns never, and ends the process with 255 where the first version cannot be served."""
    log("this is not tensorflow/serving; it answers in its place where that image cannot be pulled")
    flags = parse_flags(arguments)
    try:
        serve(flags)
    except ServingError as error:
        log(f"Failed to start server. Error: {error.code}: 1 model(s) did not become available: {error.message}")
        raise SystemExit(START_FAILED) from error


def serve(flags: Flags) -> None:
    """Load the first version, open the ports, and look for newer versions."""
    from .grpc_api import start_grpc  # TensorFlow and gRPC: seconds that a refused command line need not wait
    from .rest import start_rest

    versions = versions_of(flags)
    versions.load_first()
    grpc_server = start_grpc(versions, flags.port, flags.grpc_max_threads)
    if flags.rest_api_port == flags.port:
        log("--rest_api_port is that of gRPC: skipped exporting HTTP/REST API")
    elif flags.rest_api_port:
        start_rest(rest_of(flags, versions), flags.rest_api_port)
    versions.watch()
    grpc_server.wait_for_termination()


def versions_of(flags: Flags) -> "Versions":
    """The versions of the model, each loaded as the flags say and warmed up."""
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
    """The REST application that the flags describe."""
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
