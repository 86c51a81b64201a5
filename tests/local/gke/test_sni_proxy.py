"""Which server a connection is for."""

import ssl

import pytest

from local.gke import sni_proxy


def test_host_is_read_from_the_greeting():
    """A TLS ClientHello names its host, however few bytes come at a time; what is no TLS names none."""
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="compute.example")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    greeting = outgoing.read()
    assert sni_proxy.named_host(greeting) == "compute.example"
    assert {sni_proxy.named_host(greeting[:end]) for end in (0, 4, 60, len(greeting) - 1)} == {None}
    assert not sni_proxy.named_host(b"GET / HTTP/1.1\r\n\r\n")
