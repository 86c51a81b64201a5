"""The content of a folder: its hash, and tars that are equal byte for byte if the content is equal."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from slipway.errors import ExportError, one_line
from slipway.names import digest_of
from slipway.scratch import is_full

MAX_READ = 1024 * 1024  # bytes at once: content is read in smaller pieces, a member's extended header as a whole
FIXED_TIME_S = 0  # the time of every file in a tar, so that equal content gives an equal tar


def content_hash(folder: Path) -> str:
    """sha256:… of a folder's files, by relative path and content; times and owners do not count. Raises ExportError."""
    if not folder.is_dir():
        raise ExportError(f"{folder}: no such folder. Next: set source.folder to the checkpoint's folder")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_of({path.relative_to(folder).as_posix(): file_hash(path) for path in files})


def file_hash(path: Path) -> str:
    """The hex sha256 of a file."""
    with path.open("rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest()


def write_model_layer(model: Path, inside: str, layer: Path) -> None:
    """Write a tar of the served model at its path in the image; equal byte for byte if the content is equal.

    Every parent folder has its own entry. Otherwise the engine would create the folders, with the current time.
    """
    parts = Path(inside.lstrip("/")).parts
    with tarfile.open(layer, "w", format=tarfile.USTAR_FORMAT) as tar:
        for depth in range(1, len(parts) + 1):
            tar.addfile(_entry("/".join(parts[:depth]), folder=True))
        _add_content(tar, model, f"{'/'.join(parts)}/")


def pack_folder(folder: Path, place: Path) -> Path:
    """Write a folder's content as a tar; equal byte for byte if the content is equal."""
    with tarfile.open(place, "w", format=tarfile.PAX_FORMAT) as tar:  # PAX: a weights file may be larger than 8 GiB
        _add_content(tar, folder, "")
    return place


def unpack_folder(packed: Path, folder: Path) -> Path:
    """Unpack a tar that `pack` wrote into a new folder.

    Raises ExportError if it is not a tar, or contains anything other than files and folders inside the new folder.
    """
    folder.mkdir()
    try:
        with packed.open("rb") as reader, tarfile.open(fileobj=_BoundedReads(reader), mode="r:") as tar:
            for member in [_plain(member) for member in tar]:  # check all members before writing the first
                _unpack_member(tar, member, folder / member.name)
    except (
        tarfile.TarError,
        EOFError,
        OSError,
        ValueError,
    ) as error:  # a name may be too long, twice there, or no text
        if is_full(error):
            raise
        raise ExportError(
            f"{packed.name} is not a copy of a source: {one_line(error)}. Next: remove it from the store"
        ) from error
    return folder


class _BoundedReads:
    """A file that refuses to read more than MAX_READ bytes at once, as Python does for an extended header of any size."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def read(self, size: int) -> bytes:
        """The next bytes. Raises tarfile.TarError."""
        if not 0 <= size <= MAX_READ:
            raise tarfile.ReadError(f"an extended header of {size} bytes")
        return self.file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The member, if `pack` could have written it; Python's own extraction filters need Python 3.11.4.

    A sparse member is a regular file for Python, and claims any size in a few bytes.
    """
    path = PurePosixPath(member.name)
    regular = member.type in {tarfile.REGTYPE, tarfile.AREGTYPE} and not member.issparse()
    if not (regular or member.isdir()) or path.is_absolute() or ".." in path.parts:
        raise tarfile.TarError(f"its member {member.name!r} is not a file or folder inside it")
    return member


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    if member.isdir():
        place.mkdir(parents=True, exist_ok=True)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as writer:
        shutil.copyfileobj(tar.extractfile(member) or io.BytesIO(), writer)


def _add_content(tar: tarfile.TarFile, folder: Path, prefix: str) -> None:
    for path in sorted(folder.rglob("*")):
        name = f"{prefix}{path.relative_to(folder).as_posix()}"
        if path.is_dir() and not any(below.is_file() for below in path.rglob("*")):
            continue  # empty folders do not count, as in content_hash
        if path.is_dir():
            tar.addfile(_entry(name, folder=True))
        else:
            with path.open("rb") as reader:
                tar.addfile(_entry(name, size=path.stat().st_size), reader)


def _entry(name: str, *, folder: bool = False, size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE if folder else tarfile.REGTYPE
    entry.mode = 0o755 if folder else 0o644
    entry.size = size
    entry.mtime = FIXED_TIME_S
    return entry
