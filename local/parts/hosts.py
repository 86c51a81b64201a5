"""Names in the machine's hosts file: the stand adds one marked line and removes it again.

glibc resolves `localhost`, but no name below it. If the machine's resolver does, the hosts file is not changed.
"""

import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path

HOSTS = Path("/etc/hosts")
MARK = "# slipway's stand"


def add_names(names: Sequence[str], path: Path = HOSTS) -> bool:
    """Make these names resolve to this machine. Returns whether the hosts file has to name them.

    It is written in place, since it may be a mount.
    """
    if all(_is_here(name) for name in names):
        return False
    before = path.read_text()
    known = [name for line in our_lines(path) for name in line.removesuffix(MARK).split()[1:]]
    text = plan_names(before, list(dict.fromkeys([*known, *names])))  # other checkouts may need their names
    if text != before:
        path.write_text(text)
    return True


def remove_names(path: Path = HOSTS) -> None:
    """Remove the lines of the stand, and no other."""
    if our_lines(path):
        path.write_text(plan_names(path.read_text(), ()))


def our_lines(path: Path = HOSTS) -> list[str]:
    """The lines that the stand has written."""
    return [line for line in path.read_text().splitlines() if line.endswith(MARK)] if path.exists() else []


def plan_names(text: str, names: Sequence[str]) -> str:
    """The file's text with one marked line for these names, or without it if there are none. Other lines are kept."""
    kept = "".join(line for line in text.splitlines(keepends=True) if not line.rstrip("\n").endswith(MARK))
    if not names:
        return kept
    gap = "" if kept.endswith("\n") or not kept else "\n"
    return f"{kept}{gap}127.0.0.1 {' '.join(names)} {MARK}\n"


def _is_here(name: str) -> bool:
    try:
        found = socket.getaddrinfo(name, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(one[4][0]).is_loopback for one in found)
