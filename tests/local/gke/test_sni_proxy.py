"""The server name of a TLS connection."""

import ssl

import pytest

from local.gke import sni_proxy


def test_host_is_read_from_the_client_hello():
    """A TLS ClientHello names its host, however few bytes arrive at a time. Data that is not TLS names none."""
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="compute.example")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    client_hello = outgoing.read()
    assert sni_proxy.server_name(client_hello) == "compute.example"
    assert {sni_proxy.server_name(client_hello[:end]) for end in (0, 4, 60, len(client_hello) - 1)} == {None}
    assert not sni_proxy.server_name(b"GET / HTTP/1.1\r\n\r\n")
