"""The one port of a universe: each connection goes to the server that serves its host, by the name in its TLS greeting.

A universe domain that carries a port carries one: `container.DOMAIN:PORT` speaks gRPC there, the other hosts speak REST.
"""

import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable

GREETING_S = 10
CHUNK = 65536


def open_door(port: int, server_of: Callable[[str], int]) -> socketserver.ThreadingTCPServer:
    """Serve on loopback, in threads; `server_of` a host's name is the loopback port that its connections are passed to."""

    class Visit(socketserver.BaseRequestHandler):
        """One connection."""

        def handle(self) -> None:
            """Read the greeting, find the server, pass everything on until both sides have ended."""
            with contextlib.suppress(OSError):
                greeting, host = read_greeting(self.request)
                with socket.create_connection(("127.0.0.1", server_of(host))) as server:
                    server.sendall(greeting)
                    back = threading.Thread(target=_pass_on, args=(server, self.request), daemon=True)
                    back.start()
                    _pass_on(self.request, server)
                    back.join()

    class Door(socketserver.ThreadingTCPServer):
        """Its threads end with the process."""

        allow_reuse_address = True
        daemon_threads = True

    door = Door(("127.0.0.1", port), Visit)
    threading.Thread(target=door.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return door


def read_greeting(connection: socket.socket) -> tuple[bytes, str]:
    """What a client sends first, and the host that it names; empty where it names none, or speaks no TLS."""
    connection.settimeout(GREETING_S)
    read = b""
    while (host := named_host(read)) is None:
        more = connection.recv(CHUNK)
        if not more:
            return read, ""
        read += more
    connection.settimeout(None)
    return read, host


def named_host(greeting: bytes) -> str | None:
    """The host that a TLS ClientHello names, read by OpenSSL itself; None where there is more to come."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    incoming = ssl.MemoryBIO()
    incoming.write(greeting)
    try:
        context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    except ssl.SSLWantReadError:
        return (names[0] or "") if names else None
    except ssl.SSLError:  # it has no certificate to go on with
        pass
    return (names[0] or "") if names else ""


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
