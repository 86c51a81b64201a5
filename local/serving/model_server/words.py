"""What the server says: its log, and the errors that a client is told."""

import sys

import grpc

NAME = "stand-in for tensorflow/serving"
START_FAILED = 255  # the real server's exit(-1)

# gRPC's codes as HTTP statuses (tensorflow/serving@2.20.0 model_servers/http_server.cc:46-87).
HTTP_STATUS = {
    "OK": 200,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


CODE_NUMBERS: dict[str, int] = {code.name: code.value[0] for code in grpc.StatusCode}
CODE_NAMES = {number: name for name, number in CODE_NUMBERS.items()}


class ServingError(Exception):
    """A request that cannot be answered, or a model that cannot be loaded: one of gRPC's codes by name, and the reason."""

    def __init__(self, code: str, message: str) -> None:
        """Name the code as gRPC does, such as INVALID_ARGUMENT."""
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> ServingError:
    """The caller's mistake."""
    return ServingError("INVALID_ARGUMENT", message)


def log(line: str) -> None:
    """One event, one line on stderr."""
    print(f"{NAME}: {line}", file=sys.stderr, flush=True)
