"""A server's log, its errors and their codes."""

import sys

import grpc

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
    """A request or the load of a model failed: the name of a gRPC code, and the reason."""

    def __init__(self, code: str, message: str) -> None:
        """Set the code by its gRPC name, such as INVALID_ARGUMENT, and the reason."""
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> ServingError:
    """The error of an invalid request or model."""
    return ServingError("INVALID_ARGUMENT", message)


def too_late() -> ServingError:
    """The error of a request whose time limit passed before it was answered."""
    return ServingError("DEADLINE_EXCEEDED", "the request's time limit passed before it was answered")


_program: list[str] = []


def name_program(name: str) -> None:
    """Set the name that begins each line of the log."""
    _program[:] = [name]


def log(line: str) -> None:
    """Write one line to stderr."""
    print(*(f"{name}:" for name in _program), line, file=sys.stderr, flush=True)
