"""A checkpoint folder in a bucket (`gs://`, `s3://` or `abfs://CONNECTION@BUCKET/FOLDER`), read through Airflow's ObjectStoragePath."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from slipway.errors import ExportError, ResolveError, SlipwayError, one_line
from slipway.names import digest_of
from slipway.records.store import object_path
from slipway.scratch import is_full

CHUNK_BYTES = 1024 * 1024


def bucket_hash(uri: str) -> str:
    """sha256:… of the objects below a URI, by relative name and content. A folder with the same files has the same hash.

    Raises ResolveError.
    """
    with _errors_as(uri, ResolveError):
        return digest_of({name: _hash(fs, path) for fs, name, path in _objects(uri)})


def fetch_from_bucket(uri: str, folder: Path) -> None:
    """Copy the objects below a URI to a new folder. Raises ExportError."""
    folder.mkdir()
    with _errors_as(uri, ExportError):
        for fs, name, path in _objects(uri):
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with fs.open(path, "rb") as reader, place.open("wb") as writer:
                shutil.copyfileobj(reader, writer, CHUNK_BYTES)


def _objects(uri: str) -> Iterator[tuple[Any, str, str]]:
    """Each object as its file system, its name relative to the URI, and its path there."""
    place = object_path(uri)
    fs, root = place.fs, place.path.rstrip("/")
    fs.invalidate_cache()  # clients of object stores cache listings, which may be outdated
    found = {path: PurePosixPath(path.removeprefix(root).lstrip("/")) for path in fs.find(root) if path != root}
    if not found:
        raise FileNotFoundError("no objects below it")
    for path, name in sorted(found.items(), key=lambda each: str(each[1])):
        if ".." in name.parts:
            raise ValueError(f"its object {str(name)!r} would be written outside the folder")
        yield fs, str(name), path


def _hash(fs: Any, path: str) -> str:
    digest = hashlib.sha256()
    reader: IO[bytes]
    with fs.open(path, "rb") as reader:
        while chunk := reader.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _errors_as(uri: str, kind: type[SlipwayError]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if is_full(error):  # the local disk, not the bucket
            raise
        raise kind(
            f"source.folder {uri}: cannot be read: {one_line(error)}. Next: check the URI, its connection and its rights"
        ) from error
