"""Ports of loopback, for tests that start a server."""

import socket


def free_ports(count):
    """Loopback ports on which no process listens at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def is_open(address):
    """True if a process listens at host:port."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((host, int(port))) == 0
