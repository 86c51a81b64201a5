"""A proxy that forwards each TLS connection to the server of its host, by the server name (SNI) in the ClientHello.

A universe domain has one port for all hosts: `container.DOMAIN:PORT` serves gRPC, the other hosts serve REST.
"""

import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable

CLIENT_HELLO_S = 10
CHUNK = 65536


def serve_proxy(port: int, port_of: Callable[[str], int]) -> socketserver.ThreadingTCPServer:
    """Serve on loopback, in threads. `port_of` gives the loopback port of a host's server."""

    class Connection(socketserver.BaseRequestHandler):
        """One connection of a client."""

        def handle(self) -> None:
            """Read the ClientHello, connect to the server, and forward data until both sides have closed."""
            with contextlib.suppress(OSError):
                client_hello, host = read_client_hello(self.request)
                with socket.create_connection(("127.0.0.1", port_of(host))) as server:
                    server.sendall(client_hello)
                    back = threading.Thread(target=_forward, args=(server, self.request), daemon=True)
                    back.start()
                    _forward(self.request, server)
                    back.join()

    class Proxy(socketserver.ThreadingTCPServer):
        """Its threads end with the process."""

        allow_reuse_address = True
        daemon_threads = True

    proxy = Proxy(("127.0.0.1", port), Connection)
    threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return proxy


def read_client_hello(connection: socket.socket) -> tuple[bytes, str]:
    """The first bytes of a client and the host that it names, which is empty without SNI or without TLS."""
    connection.settimeout(CLIENT_HELLO_S)
    read = b""
    while (host := server_name(read)) is None:
        more = connection.recv(CHUNK)
        if not more:
            return read, ""
        read += more
    connection.settimeout(None)
    return read, host


def server_name(client_hello: bytes) -> str | None:
    """The server name in a TLS ClientHello, parsed by OpenSSL; None if the ClientHello is incomplete."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    incoming = ssl.MemoryBIO()
    incoming.write(client_hello)
    try:
        context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    except ssl.SSLWantReadError:
        return (names[0] or "") if names else None
    except ssl.SSLError:  # the context has no certificate
        pass
    return (names[0] or "") if names else ""


def _forward(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
