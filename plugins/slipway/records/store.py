"""The artifact store: files that workers share by URI, in an `ObjectStoragePath` (a folder, `gs://`, `s3://`, `abfs://`)."""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from slipway.errors import StoreError, one_line
from slipway.names import SHORT
from slipway.scratch import disk_is_full, held, is_full, remove_abandoned, scratch_folder
from slipway.strict_json import load_json

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

DRAFT = re.compile(r"\..*\.[0-9a-f]{32}")  # of a file that is being written

CREATE_TRIES = 5  # S3 asks for another try if two create an object at the same moment
CREATE_PAUSE_S = 0.2

IDENTITY_KEY = "store.json"
IDENTITY = re.compile(r"[0-9a-f]{12,32}")


@dataclass(frozen=True, slots=True)
class Store:
    """An artifact store at a URI. Keys are relative paths with `/`.

    Every write is atomic: in a folder a file is written under a draft's name and then moved; an object store shows an
    object only when it is complete. All methods raise StoreError.
    """

    uri: str

    def uri_of(self, key: str) -> str:
        """The URI of a key, for other tasks."""
        return f"{self.uri.rstrip('/')}/{key}"

    def put_file(self, source: Path, key: str) -> str:
        """Store a file and return its URI. An existing object is replaced."""
        with _store_errors(f"{self.uri_of(key)}: cannot be written", into=self.uri):
            place = object_path(self.uri_of(key))
            if place.protocol == "file":
                _put_whole(source, Path(place.path))
            else:
                place.fs.put_file(str(source), place.path)
        return self.uri_of(key)

    def put_json(self, value: Any, key: str) -> str:
        """Store a JSON value, indented for people, and return its URI."""
        with scratch_folder("value") as folder:
            draft = folder / "value.json"
            draft.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
            return self.put_file(draft, key)

    def claim(self, key: str, value: Any) -> bool:
        """Create a JSON object; False if it exists already."""
        with _store_errors(f"{self.uri_of(key)}: cannot be created", into=self.uri):
            place = object_path(self.uri_of(key))
            data = json.dumps(value, sort_keys=True).encode()
            try:
                if place.protocol == "file":
                    _create_whole(Path(place.path), data)
                else:
                    _create_object(place, data)
            except FileExistsError:
                return False
            return True

    def identity(self) -> str:
        """The store's own id, created by the first call. Two stores may have the same URI, on two machines.

        The first call also refuses a server that would create an object twice: two runs could get the same version there.
        """
        if not self.exists(IDENTITY_KEY):
            created = {"id": uuid.uuid4().hex[:SHORT]}
            if self.claim(IDENTITY_KEY, created) and self.claim(IDENTITY_KEY, created):
                self.remove(IDENTITY_KEY)
                raise StoreError(
                    f"{self.uri}: its server replaces an object that a writer asks it only to create (If-None-Match: *), so runs could "
                    "overwrite each other's records. Next: use a server that has conditional writes, as S3, MinIO and Ceph have"
                )
        return self._read_identity()

    def find_identity(self) -> str | None:
        """The store's own id; None if it has none yet."""
        return self._read_identity() if self.exists(IDENTITY_KEY) else None

    def _read_identity(self) -> str:
        found = self.read_json(IDENTITY_KEY)
        identity = found.get("id") if isinstance(found, dict) else None
        if not isinstance(identity, str) or not IDENTITY.fullmatch(identity):
            raise StoreError(
                f"{self.uri_of(IDENTITY_KEY)}: names no id of the store. Next: restore it from a backup, or delete it: "
                "then prune keeps the images that were made before"
            )
        return identity

    def names(self, key: str) -> list[str]:
        """The names directly below a key, sorted; empty if there is nothing."""
        with _store_errors(f"{self.uri_of(key)}: cannot be listed"):
            place = object_path(self.uri_of(key))
            fs, folder = _fresh(place), place.path.rstrip("/")
            try:
                found = fs.ls(folder, detail=False)
            except FileNotFoundError:
                return []
            names = {str(child).rstrip("/").removeprefix(folder).lstrip("/") for child in found}
            return sorted(name for name in names if name and not name.startswith("."))

    def exists(self, key: str) -> bool:
        """Whether something is stored at a key."""
        with _store_errors(f"{self.uri_of(key)}: cannot be checked"):
            place = object_path(self.uri_of(key))
            return bool(_fresh(place).exists(place.path))

    def remove(self, key: str) -> None:
        """Delete what is stored at a key and below it; nothing happens if there is nothing."""
        with _store_errors(f"{self.uri_of(key)}: cannot be deleted"), suppress(FileNotFoundError):
            place = object_path(self.uri_of(key))
            _fresh(place).rm(place.path, recursive=True)

    def read_json(self, key: str) -> Any:
        """The JSON value at a key."""
        return read_json(self.uri_of(key))


def read_bytes(uri: str) -> bytes:
    """What is stored at a URI, by one request: it may be replaced at the same moment. Raises StoreError."""
    with _store_errors(f"{uri}: cannot be read"):
        place = object_path(uri)
        return bytes(place.fs.cat_file(place.path))


@contextmanager
def open_stored(uri: str) -> Iterator[BinaryIO]:
    """A stored file, to be read from its beginning to its end; nobody may replace it meanwhile.

    Raises StoreError, also within the block.
    """
    with _store_errors(f"{uri}: cannot be read"), object_path(uri).open("rb") as reader:
        yield reader


def read_json(uri: str) -> Any:
    """The JSON value stored at a URI. Raises StoreError."""
    data = read_bytes(uri)
    try:
        return load_json(data)
    except ValueError as error:
        raise StoreError(f"{uri}: not JSON: {error}. Next: delete it and clear the task that wrote it") from error


def fetch_from_store(uri: str, place: Path) -> Path:
    """Copy a stored file to a local path. Raises StoreError."""
    with open_stored(uri) as reader, place.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1024 * 1024)
    return place


def _put_whole(source: Path, place: Path) -> None:
    """Copy a file atomically: readers see the old content or the new."""
    with _draft(place) as draft:
        shutil.copyfile(source, draft)
        draft.replace(place)


def _create_whole(place: Path, data: bytes) -> None:
    """Create a file atomically. Raises FileExistsError."""
    with _draft(place) as draft:
        draft.write_bytes(data)
        place.hardlink_to(draft)


def _create_object(place: ObjectStoragePath, data: bytes) -> None:
    """Create an object by the server's own condition. Raises FileExistsError."""
    for last in (*[False] * (CREATE_TRIES - 1), True):
        try:
            place.fs.pipe_file(place.path, data, mode="create")
        except FileExistsError:
            raise
        except OSError as error:
            if last or "conflict" not in str(error).lower():  # S3's ConditionalRequestConflict
                raise
            time.sleep(CREATE_PAUSE_S)
        else:
            return


@contextmanager
def _draft(place: Path) -> Iterator[Path]:
    """A new file next to a place, deleted afterwards; first deletes the drafts that killed tasks left there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path for path in place.parent.glob(".*") if DRAFT.fullmatch(path.name))
    while True:
        draft = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
        try:
            draft.touch(exist_ok=False)
            with held(draft) as ours:
                if ours:
                    yield draft
                    return
        finally:
            draft.unlink(missing_ok=True)


def _fresh(place: ObjectStoragePath) -> Any:
    """The file system of a place with an empty cache: clients of object stores cache listings that become stale."""
    place.fs.invalidate_cache()
    return place.fs


def object_path(uri: str) -> ObjectStoragePath:
    """Airflow's path of an object. Azure's client would log each request with its headers."""
    from airflow.sdk import ObjectStoragePath

    if uri.startswith(("abfs", "adl")):
        logging.getLogger("azure").setLevel(logging.WARNING)
    return ObjectStoragePath(uri)


@contextmanager
def _store_errors(what: str, *, into: str | None = None) -> Iterator[None]:
    """Raise an error of the file system or the cloud as a StoreError.

    `into` is the store that is written to. If a disk is full during a read, it is the reader's disk: that error passes.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        if is_full(error) and into is None:
            raise
        if is_full(error):
            folder = Path(object_path(str(into)).path)
            raise StoreError(
                f"{what}: {disk_is_full(folder)}. Next: free space in {folder}, or keep less with the model file's retention, "
                "then clear the task"
            ) from error
        words = one_line(error) or type(error).__name__
        raise StoreError(f"{what}: {words}. Next: check the Variable slipway_store and the rights on it") from error
