"""Canaries: unique secrets that a test plants in connections, Variables and URLs, and the search for them wherever they may leak.

A canary is found as it is, JSON or URL-quoted (its core has only letters and digits), in base64 at any offset, in base64 of
that, and in hexadecimal; in files also within gzip, tar and zip.
"""

import base64
import gzip
import io
import json
import re
import tarfile
import zipfile
import zlib
from functools import cache
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

CORE = "kanari"  # what every canary begins with, so that a search for one that no test planted is possible
LARGEST_PACKED_BYTES = 256 * 1024 * 1024  # of a packed file that is looked into


class Canaries:
    """The canaries of a test: `plant("connection docker_default: password")` makes one, and the searches name its place."""

    def __init__(self):
        self.places = {}  # by core

    def plant(self, place):
        """A new secret for this place: a valid token, password, query and text; quoting changes its end."""
        core = f"{CORE}{uuid4().hex}"
        self.places[core] = place
        return f"{core}+/=%"

    def plant_quoted(self, place):
        """A new secret for a part of a URL."""
        return quote(self.plant(place), safe="")

    def found_in(self, data):
        """The places of the canaries in bytes, a text, or anything that JSON can hold."""
        if not isinstance(data, bytes):
            data = (data if isinstance(data, str) else json.dumps(data, default=str)).encode()
        return sorted(place for core, place in self.places.items() if _pattern(core).search(data))

    def found_in_files(self, *folders):
        """Lines `path: place` for the files below the folders, their names included, packed files unpacked."""
        found = []
        for path in (path for folder in folders for path in sorted(Path(folder).rglob("*"))):
            found += [f"{path}: its name: {place}" for place in self.found_in(str(path))]
            if path.is_file() and not path.is_symlink():
                for data in _unpacked(path.read_bytes()):
                    found += [f"{path}: {place}" for place in self.found_in(data)]
        return found

    def found_in_processes(self, pids):
        """Lines `pid cmdline` or `pid environ: place` for these processes; those that have ended or may not be read are left out."""
        found = []
        for pid in pids:
            for part in ("cmdline", "environ"):
                try:
                    data = Path(f"/proc/{pid}/{part}").read_bytes()
                except OSError:
                    continue
                found += [f"{pid} {part}: {place}" for place in self.found_in(data)]
        return found


def all_processes():
    """The ids of all processes of this machine."""
    return sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


@cache
def _pattern(core):
    """Matches the core in each of its forms."""
    once = list(_base64_forms(core.encode()))
    twice = [form for one in once for form in _base64_forms(one)]
    return re.compile(b"|".join(map(re.escape, (core.encode(), core.encode().hex().encode(), *once, *twice))))


def _base64_forms(data):
    """What base64 makes of the data, for each of the three offsets that it can have in a longer text."""
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + data)
        first = (before * 8 + 5) // 6  # the characters that also depend on what is before
        last = (before + len(data)) * 8 // 6  # likewise on what is after
        yield whole[first:last]


def _unpacked(data):
    """The data, and what is packed in it."""
    yield data
    if data[:2] == b"\x1f\x8b":
        try:
            with gzip.open(io.BytesIO(data)) as reader:
                data = reader.read(LARGEST_PACKED_BYTES)
        except (OSError, EOFError, zlib.error):
            return
        yield data
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            for name in packed.namelist():
                yield packed.read(name)
    # a tar needs no unpacking: its files are in it as they are, unless they are packed themselves
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as packed:
            for member in packed:
                content = packed.extractfile(member)
                inner = content.read() if content else b""
                if inner[:2] in {b"\x1f\x8b", b"PK"}:
                    yield from _unpacked(inner)
