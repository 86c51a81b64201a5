"""What of the stand listens, read from the kernel's tables of sockets: loopback addresses alone."""

import contextlib
import os
import socket
import struct
from ipaddress import ip_address
from pathlib import Path

import pytest

from local import settings as at
from local.programs.processes import marked
from local.settings import SHARED_MARK, settings_here

LISTENS = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}  # the state of a socket that anybody may write to
# Kubernetes accepts no node with a loopback address. The kubelet asks each caller for a certificate or a token.
KUBELET = (at.POD_GATEWAY, at.KUBELET_PORT)


def read_sockets():
    """Inode, address and port of each listening socket in this network namespace: those of pods are in their own."""
    for table, state in LISTENS.items():
        for line in Path("/proc/self/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == state:
                packed, _, port = fields[1].partition(":")
                words = struct.pack(
                    f"={len(packed) // 8}I", *(int(packed[at : at + 8], 16) for at in range(0, len(packed), 8))
                )
                family = socket.AF_INET6 if table.endswith("6") else socket.AF_INET
                yield fields[9], socket.inet_ntop(family, words), int(port, 16)


def inodes_of(pids):
    """The inodes of all sockets that these processes have open."""
    found = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):  # it has been closed, or its process has ended
                found.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found


def with_children(pids):
    """These processes and all below them: one that sets its title overwrites the environment that the mark is in."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, before = set(pids), set()
    while found != before:
        before = found
        found = found | {pid for pid, parent in parents.items() if parent in found}
    return found


def listening(pids):
    """Address and port of each listening socket of these processes and those below them."""
    inodes = inodes_of(with_children(pids))
    return {(address, port) for inode, address, port in read_sockets() if inode in inodes}


def is_loopback(address):
    """Whether nothing outside this machine reaches an address, also as IPv6 writes an IPv4 one."""
    found = ip_address(address)
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def test_the_tables_are_read():
    """A socket of this process is found with its address, on IPv4 and IPv6, TCP and UDP."""
    for family, kind, host in (
        (socket.AF_INET, socket.SOCK_STREAM, "0.0.0.0"),  # noqa: S104 - what the test has to find
        (socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1"),
        (socket.AF_INET6, socket.SOCK_STREAM, "::1"),
        (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1"),
    ):
        with socket.socket(family, kind) as opened:
            opened.bind((host, 0))
            if kind == socket.SOCK_STREAM:
                opened.listen()
            assert (host, opened.getsockname()[1]) in listening([os.getpid()])
    assert [is_loopback(address) for address in ("127.20.1.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "10.213.0.1")] == [  # noqa: S104
        True, True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.stand
def test_all_of_the_stand_listens_on_loopback(stand):
    """No port of the stand is open to other machines."""
    found = listening([*marked(SHARED_MARK), *marked(settings_here().checkout_id)])
    assert ("127.0.0.1", int(stand["airflow"]["url"].rpartition(":")[2])) in found
    assert {one for one in found if not is_loopback(one[0])} <= {KUBELET}
