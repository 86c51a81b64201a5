"""HTTP and XML-RPC over unix sockets, with the standard library only."""

import http.client
import socket
import xmlrpc.client
from pathlib import Path
from typing import Any


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection to a socket file."""

    def __init__(self, path: Path, timeout_s: float = 60) -> None:
        """Keep the path; `connect` opens it."""
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Open the socket file."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ARG002  # the socket file is the host
        return UnixConnection(self._path)


def unix_rpc(path: Path) -> xmlrpc.client.ServerProxy:
    """A client of the XML-RPC server at a socket file."""
    return xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=_UnixTransport(path))
