"""The command line: TensorFlow Serving's flags, and four of this server."""

from dataclasses import dataclass

from serving_protocol.flags import Flags

from .processors import processors

QUEUED_PER_THREAD = 16
MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFlags(Flags):
    """The flags. Those of TensorFlow Serving have its names and defaults."""

    max_queued_requests: int = 0  # that wait for a thread; 0: sixteen for each thread
    max_request_bytes: int = 256 * MEBIBYTE  # of a body or a message
    shutdown_delay_in_ms: int = 1000  # after SIGTERM new requests are answered for so long, but the server is not ready
    shutdown_timeout_in_ms: int = 8000  # then it waits so long for the requests that run

    @property
    def threads(self) -> int:
        """The number of processors that the server uses."""
        return self.intra_op_threads or processors()
