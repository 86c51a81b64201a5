"""A checkpoint as objects below a URI (`gs://CONNECTION@BUCKET/FOLDER`), read through Airflow's ObjectStoragePath."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from slipway.errors import ExportError, ResolveError, SlipwayError
from slipway.names import digest_of
from slipway.scratch import is_full

CHUNK_BYTES = 1024 * 1024


def objects_hash(uri: str) -> str:
    """sha256:… of the objects below a URI, by relative name and content: that of a folder with the same files.

    Raises ResolveError.
    """
    with _refusals(uri, ResolveError):
        return digest_of({name: _hash(fs, path) for fs, name, path in _objects(uri)})


def fetch_objects(uri: str, folder: Path) -> None:
    """Copy the objects below a URI to a new folder. Raises ExportError."""
    folder.mkdir()
    with _refusals(uri, ExportError):
        for fs, name, path in _objects(uri):
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with fs.open(path, "rb") as reader, place.open("wb") as writer:
                shutil.copyfileobj(reader, writer, CHUNK_BYTES)


def _objects(uri: str) -> Iterator[tuple[Any, str, str]]:
    """Each object as its file system, its name relative to the URI, and its path there."""
    from airflow.sdk import ObjectStoragePath

    place = ObjectStoragePath(uri)
    fs, root = place.fs, place.path.rstrip("/")
    fs.invalidate_cache()  # clients of object stores keep listings that others outdate
    found = {path: PurePosixPath(path.removeprefix(root).lstrip("/")) for path in fs.find(root) if path != root}
    if not found:
        raise FileNotFoundError("there is nothing below it")
    for path, name in sorted(found.items(), key=lambda each: str(each[1])):
        if ".." in name.parts:
            raise ValueError(f"its object {str(name)!r} would escape")
        yield fs, str(name), path


def _hash(fs: Any, path: str) -> str:
    digest = hashlib.sha256()
    reader: IO[bytes]
    with fs.open(path, "rb") as reader:
        while chunk := reader.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _refusals(uri: str, kind: type[SlipwayError]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if is_full(error):  # not of what is read, but of where it goes
            raise
        words = " ".join(str(error).split()) or type(error).__name__
        raise kind(
            f"source.folder {uri}: cannot be read: {words}. Next: check the URI, its connection and the rights on it"
        ) from error
