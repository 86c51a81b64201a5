"""The artifact store: what goes from worker to worker, by URI, in an `ObjectStoragePath` (a folder, `gs://`, …)."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway.errors import StoreError
from slipway.scratch import held, is_full, no_room, remove_abandoned, scratch_folder

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

DRAFT = re.compile(r"\..*\.[0-9a-f]{32}")  # what is being written, before it has its name


@dataclass(frozen=True, slots=True)
class Store:
    """A place for artifacts, named by a URI. Keys are relative paths with `/`.

    Every write is whole or not there: in a folder it goes to a name of its own and is moved; an object store shows an
    object only when it is whole. All methods raise StoreError.
    """

    uri: str

    def uri_of(self, key: str) -> str:
        """The URI that other tasks are handed."""
        return f"{self.uri.rstrip('/')}/{key}"

    def put_file(self, source: Path, key: str) -> str:
        """Store a file; its URI comes back. An object that is there already is replaced."""
        with _refusals(f"{self.uri_of(key)}: cannot be written", into=self.uri):
            place = _path(self.uri_of(key))
            if place.protocol == "file":
                _put_whole(source, Path(place.path))
            else:
                place.fs.put_file(str(source), place.path)
        return self.uri_of(key)

    def put_json(self, value: Any, key: str) -> str:
        """Store a JSON value, readable by people; its URI comes back."""
        with scratch_folder("value") as folder:
            draft = folder / "value.json"
            draft.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
            return self.put_file(draft, key)

    def claim(self, key: str, value: Any) -> bool:
        """Create a JSON object that was not there before; False where somebody else has."""
        with _refusals(f"{self.uri_of(key)}: cannot be claimed", into=self.uri):
            place = _path(self.uri_of(key))
            data = json.dumps(value, sort_keys=True).encode()
            try:
                if place.protocol == "file":
                    _create_whole(Path(place.path), data)
                else:
                    with place.open("xb") as writer:
                        writer.write(data)
            except FileExistsError:
                return False
            return True

    def names(self, key: str) -> list[str]:
        """The names directly below a key, sorted; none where there is nothing."""
        with _refusals(f"{self.uri_of(key)}: cannot be listed"):
            place = _path(self.uri_of(key))
            fs, folder = _fresh(place), place.path.rstrip("/")
            try:
                found = fs.ls(folder, detail=False)
            except FileNotFoundError:
                return []
            names = {str(child).rstrip("/").removeprefix(folder).lstrip("/") for child in found}
            return sorted(name for name in names if name and not name.startswith("."))

    def exists(self, key: str) -> bool:
        """Whether something is stored at a key."""
        with _refusals(f"{self.uri_of(key)}: cannot be looked at"):
            place = _path(self.uri_of(key))
            return bool(_fresh(place).exists(place.path))

    def remove(self, key: str) -> None:
        """Remove what is stored at a key, and all below it; harmless where there is nothing."""
        with _refusals(f"{self.uri_of(key)}: cannot be removed"), suppress(FileNotFoundError):
            place = _path(self.uri_of(key))
            _fresh(place).rm(place.path, recursive=True)

    def read_json(self, key: str) -> Any:
        """The JSON value at a key."""
        return read_json(self.uri_of(key))


def read_bytes(uri: str) -> bytes:
    """What is stored at a URI. Raises StoreError."""
    with _refusals(f"{uri}: cannot be read"), _path(uri).open("rb") as reader:
        return bytes(reader.read())


def read_json(uri: str) -> Any:
    """The JSON value stored at a URI. Raises StoreError."""
    data = read_bytes(uri)
    try:
        return json.loads(data)
    except ValueError as error:
        raise StoreError(f"{uri}: not JSON: {error}. Next: remove it and clear the task that wrote it") from error


def fetch(uri: str, place: Path) -> Path:
    """Bring a stored file to a local path. Raises StoreError."""
    with _refusals(f"{uri}: cannot be read"), _path(uri).open("rb") as reader, place.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1024 * 1024)
    return place


def _put_whole(source: Path, place: Path) -> None:
    """Copy a file to a name that has its content as soon as it is there, or has the old one."""
    with _draft(place) as draft:
        shutil.copyfile(source, draft)
        draft.replace(place)


def _create_whole(place: Path, data: bytes) -> None:
    """Create a file that has its content as soon as it has its name. Raises FileExistsError."""
    with _draft(place) as draft:
        draft.write_bytes(data)
        place.hardlink_to(draft)


@contextmanager
def _draft(place: Path) -> Iterator[Path]:
    """A new file beside a place, gone afterwards; those that killed tasks left beside it go first."""
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
    """The file system of a place, without what it remembers: clients of object stores keep listings that others outdate."""
    place.fs.invalidate_cache()
    return place.fs


def _path(uri: str) -> ObjectStoragePath:
    from airflow.sdk import ObjectStoragePath

    return ObjectStoragePath(uri)


@contextmanager
def _refusals(what: str, *, into: str | None = None) -> Iterator[None]:
    """What the file system or the cloud refuses becomes one StoreError line.

    `into` is the store that is written to; a disk that is full while it is read is that of who reads.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        if is_full(error) and into is None:
            raise
        if is_full(error):
            folder = Path(_path(str(into)).path)
            raise StoreError(
                f"{what}: {no_room(folder)}. Next: make room in {folder}, or keep less by the model file's retention, "
                "then clear the task"
            ) from error
        words = " ".join(str(error).split()) or type(error).__name__
        raise StoreError(f"{what}: {words}. Next: check the Variable slipway_store and the rights on it") from error
