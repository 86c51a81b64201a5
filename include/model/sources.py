"""Opens a source that is on this machine: a checkpoint's folder, or a SavedModel archive."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import urllib.parse
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from errors import ExportRefused
from request import Archive

CONFIGS = ("config.json", "preprocessor_config.json")
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
OLD = {
    "h5": ("tf_model.h5", "tf_model.h5.index.json")
}  # formats that a model file must allow, by the word that allows them
SHARD = re.compile(r"[A-Za-z0-9_.-]+")  # a plain name, which leaves no folder
MAX_INDEX_BYTES = 64 << 20
MAX_HEADER_BYTES = 1 << 20  # of one member of an archive: its name, and what else its header says
CHUNK_BYTES = 1 << 20


# --- checkpoints ------------------------------------------------------------------------------------------------------


def weights_file(names: Iterable[str], *, where: str, allow: frozenset[str]) -> str:
    """The file that holds the weights, or the index of their shards: the first that exists. Raises ExportRefused."""
    there = set(names)
    for name in SAFETENSORS:
        if name in there:
            return name
    for word, old in OLD.items():
        for name in old:
            if name in there and word not in allow:
                raise ExportRefused(
                    f"{where}: its weights are in {name}, in the old format HDF5: a file of it can name other files, and its reader has "
                    f"had many faults. Next: save it with safetensors, or set source.allow to [{word}] if you trust who made it."
                )
            if name in there:
                return name
    raise ExportRefused(
        f"{where} has neither model.safetensors nor tf_model.h5. "
        "Next: save the model with safetensors; pickled weights (*.bin) are not read."
    )


def wanted_files(names: Iterable[str], *, where: str, allow: frozenset[str]) -> list[str]:
    """The files of a checkpoint that the export reads: the configs and one set of weights. Raises ExportRefused."""
    there = set(names)
    first = weights_file(there, where=where, allow=allow)
    shards: list[str] = []
    if first.endswith(".index.json"):
        stem, suffix = first.removesuffix(".index.json").rsplit(".", 1)
        shards = sorted(name for name in there if name.startswith(f"{stem}-") and name.endswith(f".{suffix}"))
    return [*(name for name in CONFIGS if name in there), first, *shards]


def check_checkpoint(folder: Path, allow: frozenset[str]) -> Path:
    """Return the folder if it has all files of a checkpoint. Raises ExportRefused."""
    if not folder.is_dir():
        raise ExportRefused(f"source: no folder {folder}. Next: fix its path.")
    there = {entry.name for entry in folder.iterdir()}
    for name in CONFIGS:
        if name not in there and not (name == CONFIGS[1] and is_timm(folder)):
            raise ExportRefused(f"source: {folder} has no {name}. Next: use a complete 🤗 checkpoint.")
    first = weights_file(there, where=f"source: {folder}", allow=allow)
    if first.endswith(".index.json"):
        check_shards(folder / first)
    return folder


def is_timm(folder: Path) -> bool:
    """Whether it is a checkpoint of timm, which has the settings of its images in its config.json."""
    file = folder / CONFIGS[0]
    try:
        found = json.loads(file.read_bytes()) if file.stat().st_size <= MAX_INDEX_BYTES else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "pretrained_cfg" in found


def is_old(folder: Path) -> bool:
    """Whether the weights of a checked checkpoint are in an old format."""
    return not any((folder / name).exists() for name in SAFETENSORS)


def check_shards(index: Path) -> None:
    """Refuse an index that names a shard outside its folder, or one that is missing: the revision's hash covers the folder."""
    for name in read_shards(index):
        if not (index.parent / name).is_file():
            raise ExportRefused(f"source: {index} names {name}, which is missing. Next: use a complete 🤗 checkpoint.")


def read_shards(index: Path) -> list[str]:
    """The names of the shards in an index of weights, sorted. Raises ExportRefused."""
    found: Any = None
    if index.stat().st_size <= MAX_INDEX_BYTES:
        try:
            found = json.loads(index.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ExportRefused(f"source: {index} is not JSON. Next: save the model again.") from error
    shards = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(shards, dict):
        raise ExportRefused(f"source: {index} has no weight_map of its shards. Next: save the model again.")
    for name in shards.values():
        if not isinstance(name, str) or not SHARD.fullmatch(name):
            raise ExportRefused(
                f"source: {index} names {name!r}, which is no file next to it. Next: find out who made the checkpoint."
            )
    return sorted(set(shards.values()))


# --- archives ---------------------------------------------------------------------------------------------------------


def plain_url(url: str) -> str:
    """The URL without credentials and query, for messages and records."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def partial_path(kept: Path) -> Path:
    """Where a download is until it is complete."""
    return kept.with_name(f"{kept.name}.partial")


def check_archive(source: Archive, file: Path) -> None:
    """Raise ExportRefused if the archive has another sha256 than requested.

    The message does not say which: it would answer questions about files that only this worker reaches.
    """
    with file.open("rb") as reader:
        found = hashlib.file_digest(reader, "sha256").hexdigest()
    if found != source.sha256:
        raise ExportRefused(
            f"source: {plain_url(source.url)}: its sha256 is not {source.sha256}. "
            "Next: find out who changed it before you change the model file."
        )


def unpack(archive: Path, to: Path, *, where: str, max_bytes: int) -> None:
    """Unpack the archive (tar, or tar.gz) into a new folder. Refuse a member that would escape, or is neither file nor folder."""
    total = 0
    to.mkdir()
    try:
        with (
            archive.open("rb") as packed,
            _plain(packed) as stream,
            tarfile.open(fileobj=_Headers(stream), mode="r:") as tar,
        ):
            for member in tar:
                total += member.size
                if total > max_bytes:
                    raise ExportRefused(
                        f"source: {where}: unpacks to over {max_bytes} bytes. Next: check what it contains."
                    )
                _unpack_member(tar, member, to, where)
    except (tarfile.TarError, EOFError, OSError, ValueError, ArithmeticError) as error:
        raise ExportRefused(f"source: {where}: not a readable tar archive ({error}). Next: pack it again.") from error


def _plain(packed: Any) -> Any:
    """The archive's bytes, without gzip."""
    is_gzip = packed.read(2) == b"\x1f\x8b"
    packed.seek(0)
    return gzip.GzipFile(fileobj=packed) if is_gzip else packed


class _Headers(io.RawIOBase):
    """A stream of which nothing reads much at once: a header of a tar may say that it has any number of bytes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return bytes(self._stream.read(size))

    def seek(self, *where: int) -> int:
        return int(self._stream.seek(*where))

    def tell(self) -> int:
        return int(self._stream.tell())


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, to: Path, where: str) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        raise ExportRefused(
            f"source: {where}: its member {member.name!r} would escape. Next: pack the archive without it."
        )
    if not (member.isreg() or member.isdir()):
        raise ExportRefused(
            f"source: {where}: its member {member.name!r} is neither file nor folder. Next: pack the archive without it."
        )
    target = to / path
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    assert content is not None  # noqa: S101 (a regular file always has content)
    with content, target.open("wb") as file:
        while chunk := content.read(CHUNK_BYTES):
            file.write(chunk)


def find_savedmodel(folder: Path, *, where: str) -> Path:
    """The only folder with a saved_model.pb. Raises ExportRefused."""
    found = sorted(file.parent for file in folder.rglob("saved_model.pb"))
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found) or "none"
        raise ExportRefused(f"source: {where}: holds {len(found)} SavedModels ({names}). Next: pack exactly one.")
    return found[0]
