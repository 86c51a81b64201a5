"""Shuts this process in before it opens a model: a model is a program, and whoever made it is not trusted.

Two parts of the Linux kernel do it, by plain system calls, without a package and without privileges:
- Landlock: the process opens only the files that it is given, starts no program, and neither opens nor accepts a TCP connection;
- seccomp: it makes no socket and no child process.
Neither can be undone, and every thread that is started later is shut in too.

Sources: landlock(7); the kernel's Documentation/userspace-api/{landlock,seccomp_filter}.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # Landlock's system calls have these numbers everywhere
ASK_VERSION, PATH_BENEATH = 1, 1
WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
# What a process may do in its own folder. It makes no link, pipe, socket or device there: whoever reads its results would follow them.
OWN = WRITE_FILE | READ_FILE | READ_DIR | (1 << 4) | (1 << 5) | (1 << 7) | (1 << 8) | (1 << 13) | TRUNCATE
FILES_ONLY = (1 << 0) | WRITE_FILE | READ_FILE | TRUNCATE | (1 << 15)  # what makes sense for a file that is no folder
RIGHTS_OF_VERSION = {1: 13, 2: 14, 3: 15, 5: 16}  # how many rights to files each version of Landlock knows
TCP_SINCE, SCOPES_SINCE = 4, 6  # versions that know TCP, and abstract Unix sockets and signals
NO_LANDLOCK = {
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EPERM,
}  # not built in, not started, or hidden by a container's seccomp

NO_NEW_PRIVS, SET_SECCOMP, FILTER_MODE = 38, 22, 2
ALLOW, REFUSE = 0x7FFF0000, 0x00050000  # a refusal has the error's number in its lower half
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # instructions of classic BPF
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT = 0, 4, 16  # in struct seccomp_data
THREAD = 0x10000  # clone's flag for a thread
CLONE3, IO_URING_SETUP = 435, 425  # the same number everywhere
X32 = 0x40000000  # x86-64 has each call a second time from here on

# Files outside the interpreter that Python and TensorFlow read; none says anything about this worker's secrets.
SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo",
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/self/cmdline", "/sys/devices/system/cpu",
    "/sys/devices/system/node", "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A processor's numbers: its own, and those of the calls that only it has."""

    audit: int
    socket: int
    clone: int
    others: tuple[int, ...]  # fork and vfork, where they exist


ARCHITECTURES = {
    "x86_64": Architecture(audit=0xC000003E, socket=41, clone=56, others=(57, 58)),
    "aarch64": Architecture(audit=0xC00000B7, socket=198, clone=220, others=()),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """What holds this process: the version of Landlock, and whether seccomp does."""

    landlock: int | None
    seccomp: bool

    @property
    def is_complete(self) -> bool:
        """Whether neither files nor network are open to a model."""
        return self.landlock is not None and (self.seccomp or self.landlock >= TCP_SINCE)

    def __str__(self) -> str:
        """The sandbox as log, record and card show it."""
        landlock = "this kernel has no Landlock" if self.landlock is None else f"Landlock version {self.landlock}"
        return f"{landlock}, {'seccomp' if self.seccomp else 'no seccomp'}"


def shut_in(*, read: Iterable[Path], write: Iterable[Path]) -> Sandbox:
    """Leave this process only its interpreter, the files below `read`, and the folders `write`. There must be no other thread yet."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return Sandbox(landlock=None, seccomp=False)
    return Sandbox(landlock=_landlock(libc, (*_interpreter(), *read), tuple(write)), seccomp=_seccomp(libc))


def _interpreter() -> tuple[Path, ...]:
    """The folders and files that this Python and its packages are in."""
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    if sys.prefix != sys.base_prefix:  # a virtual environment
        paths.append(sys.prefix)
    return tuple(map(Path, (*paths, f"{sys.base_prefix}/lib", Path(__file__).parent, *SYSTEM)))


def _landlock(libc: ctypes.CDLL, read: tuple[Path, ...], write: tuple[Path, ...]) -> int | None:
    """Restrict this process to these files, and to no TCP at all; the version of Landlock, or None."""
    version = libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ASK_VERSION)
    if version < 1:
        if ctypes.get_errno() in NO_LANDLOCK:
            return None
        raise _failed("asking for Landlock")
    rights = (1 << max(count for since, count in RIGHTS_OF_VERSION.items() if version >= since)) - 1
    handled = struct.pack("QQQ", rights, 3 if version >= TCP_SINCE else 0, 3 if version >= SCOPES_SINCE else 0)
    used = 8 if version < TCP_SINCE else 16 if version < SCOPES_SINCE else 24  # older kernels refuse a longer struct
    rules = libc.syscall(CREATE_RULESET, handled[:used], ctypes.c_size_t(used), 0)
    if rules < 0:
        raise _failed("making the rules of Landlock")
    try:
        for path in read:
            _allow(libc, rules, path, READ_FILE | READ_DIR | (WRITE_FILE if str(path) == "/dev/null" else 0))
        for path in write:
            _allow(libc, rules, path, rights & OWN)
        if libc.syscall(RESTRICT_SELF, rules, 0) != 0:
            raise _failed("entering Landlock")
    finally:
        os.close(rules)
    return int(version)


def _allow(libc: ctypes.CDLL, rules: int, path: Path, rights: int) -> None:
    """Add a rule for everything below a path; none if it does not exist.

    The path stays open: a rule is for the inode, and /proc makes another one when nothing holds the first.
    """
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    allowed = rights if path.is_dir() else rights & FILES_ONLY
    if libc.syscall(ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", allowed, place), 0) != 0:
        raise _failed(f"a rule of Landlock for {path}")


def _seccomp(libc: ctypes.CDLL) -> bool:
    """Refuse sockets and child processes from now on; False if this processor or kernel does not support it."""
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None:
        return False
    program = b"".join(_filter(architecture))
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    return bool(libc.prctl(SET_SECCOMP, FILTER_MODE, header, 0, 0) == 0)


def _filter(architecture: Architecture) -> list[bytes]:
    """The instructions that judge each system call. A jump says how many instructions it skips if it holds, and if not."""

    def step(code: int, value: int, holds: int = 0, fails: int = 0) -> bytes:
        return struct.pack("HBBI", code, holds, fails, value)

    refused = [architecture.socket, IO_URING_SETUP, *architecture.others]  # io_uring makes sockets too
    return [
        step(LOAD, ARCHITECTURE_AT),
        step(EQUAL, architecture.audit, 1),
        step(RETURN, REFUSE | errno.EPERM),
        step(LOAD, NUMBER_AT),
        step(AT_LEAST, X32, 0, 1),
        step(RETURN, REFUSE | errno.ENOSYS),
        *(part for number in refused for part in (step(EQUAL, number, 0, 1), step(RETURN, REFUSE | errno.EACCES))),
        step(EQUAL, CLONE3, 0, 1),  # its flags are in memory, where a filter cannot look: the C library then uses clone
        step(RETURN, REFUSE | errno.ENOSYS),
        step(EQUAL, architecture.clone, 0, 3),
        step(LOAD, FIRST_ARGUMENT_AT),
        step(ANY_BIT, THREAD, 1),
        step(RETURN, REFUSE | errno.EACCES),
        step(RETURN, ALLOW),
    ]


def _failed(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
