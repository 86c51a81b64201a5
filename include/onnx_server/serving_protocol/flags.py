"""Parses the command line as the real server does."""

import dataclasses
import os
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from .words import START_FAILED, log

THREADS = 4 * len(os.sched_getaffinity(0))

# Flags of TensorFlow Serving that have no effect, unless a server has a field for one. The log names each one that is set.
WITHOUT_EFFECT = frozenset({
    "allow_version_labels_for_unavailable_models",
    "enable_grpc_healthcheck_service",
    "enable_profiler",
    "enable_serialization_as_tensor_content",
    "enable_signature_method_name_check",
    "flush_filesystem_caches",
    "grpc_channel_arguments",
    "mixed_precision",
    "num_load_threads",
    "num_tflite_interpreters_per_pool",
    "num_tflite_pools",
    "num_unload_threads",
    "per_process_gpu_memory_fraction",
    "remove_unused_fields_from_bundle_metagraph",
    "rest_api_enable_cors_support",
    "tensorflow_session_config_file",
    "thread_pool_factory_config_file",
    "xla_cpu_compilation_enabled",
    "xla_gpu_compilation_enabled",
})  # fmt: skip

# Flags that are refused: ignoring them would change the server's answers.
REFUSED = frozenset({
    "enable_per_model_batching_parameters",
    "grpc_socket_path",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "platform_config_file",
    "prefer_tflite_model",
    "ssl_config_file",
    "use_alts_credentials",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The flags. Names and defaults are those of the real server (2.20.0 main.cc:87-314, server.h:44-108)."""

    port: int = 8500
    rest_api_port: int = 0
    rest_api_num_threads: int = THREADS
    rest_api_timeout_in_ms: int = 30_000
    grpc_max_threads: int = THREADS
    model_name: str = "default"
    model_base_path: str = ""
    saved_model_tags: str = "serve"
    tensorflow_session_parallelism: int = 0
    tensorflow_inter_op_parallelism: int = 0
    tensorflow_intra_op_parallelism: int = 0
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    file_system_poll_wait_seconds: int = 1
    enable_model_warmup: bool = True
    num_request_iterations_for_warmup: int = 0
    enable_batching: bool = False
    batching_parameters_file: str = ""
    monitoring_config_file: str = ""

    @property
    def inter_op_threads(self) -> int:
        """The number of operations that run at the same time; 0 means the runtime's default."""
        return self.tensorflow_inter_op_parallelism or self.tensorflow_session_parallelism

    @property
    def intra_op_threads(self) -> int:
        """The number of threads of one operation; 0 means the runtime's default."""
        return self.tensorflow_intra_op_parallelism or self.tensorflow_session_parallelism


F = TypeVar("F", bound=Flags)


def parse_flags(arguments: list[str], kind: type[F]) -> F:
    """The parsed flags. As in the real server, an unknown flag is logged and ignored, and a bad value ends the process."""
    kinds = {field.name: type(field.default) for field in dataclasses.fields(kind)}
    if arguments[:1] == ["--help"]:
        refuse("flags: " + ", ".join(f"--{name}" for name in sorted(kinds)))
    given: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or (name not in kinds and name not in WITHOUT_EFFECT | REFUSED):
            log(f"unknown argument: {argument}")
        elif name in kinds:
            given[name] = _value(name, kinds[name], text if equals else None)
        elif name in REFUSED:
            refuse(f"--{name} is not supported")
        else:
            log(f"accepted without effect: --{name}")
    flags = kind(**given)
    _check(flags)
    return flags


def _value(name: str, kind: type, text: str | None) -> int | bool | str:
    words = {"true": True, "1": True, "false": False, "0": False}
    if kind is bool and (text is None or text.lower() in words):
        return True if text is None else words[text.lower()]
    if kind is str and text is not None:
        return text
    try:
        return int(text if kind is int and text else "")
    except ValueError:
        refuse(f"couldn't interpret value {text} for flag {name}")


def _check(flags: Flags) -> None:
    """End the process if the flags contradict each other (2.20.0 server.cc:183-262)."""
    if not flags.model_base_path:
        refuse("--model_base_path is required")
    if not flags.port:
        refuse("--port must be set")
    if flags.batching_parameters_file and not flags.enable_batching:
        refuse("--batching_parameters_file is set without setting --enable_batching to true")
    session, inter, intra = (
        flags.tensorflow_session_parallelism,
        flags.tensorflow_inter_op_parallelism,
        flags.tensorflow_intra_op_parallelism,
    )
    if session > 0 and inter > 0 and intra > 0:
        refuse("--tensorflow_session_parallelism replaces the other two parallelism flags: set it or them")


def refuse(reason: str) -> NoReturn:
    """Log the reason and end the process before it serves."""
    log(f"command line: {reason}. Next: --help lists the flags that have an effect here.")
    raise SystemExit(START_FAILED)
