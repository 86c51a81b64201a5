"""Fetches a model to a local folder: from a folder, the Hugging Face Hub, or a SavedModel archive."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from errors import ExportRefused, SourceUnreachable
from request import Archive, Folder, Hub

CONFIGS = ("config.json", "preprocessor_config.json")
# The first of these that exists is used.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "tf_model.h5", "tf_model.h5.index.json")
DOWNLOAD_TIMEOUT_S = 60  # without receiving a byte
CHUNK_BYTES = 1 << 20
NOT_ACCEPTED = (
    "Invalid credentials"  # in the Hub's 401 for an invalid token, not in that for a private or missing model
)
UNAUTHORIZED = 401
TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500  # 429, and any status from 500, can be retried
MAX_UNPACKED_BYTES = 32 << 30  # ten times the largest vision models; more is a decompression bomb


def fetch(source: Folder | Hub | Archive, scratch: Path) -> Path:
    """Fetch the source. Returns the folder with the checkpoint, or for an archive the SavedModel.

    A download goes to the source's `kept` if it has one, else below `scratch` or to 🤗's cache. Raises ExportRefused.
    """
    match source:
        case Folder():
            return check_checkpoint(source.path)
        case Hub():
            kept = source.kept
            return check_checkpoint(kept if kept and kept.is_dir() else download_snapshot(source))
        case Archive():
            archive = source.kept or scratch / "archive.tar.gz"
            if archive.is_file():
                check_archive(source, archive)
            else:
                download(source, archive)
            unpacked = scratch / "archive"
            unpack(archive, unpacked, where=plain_url(source.url))
            return find_savedmodel(unpacked, where=plain_url(source.url))


# --- checkpoints ------------------------------------------------------------------------------------------------------


def wanted_files(names: Iterable[str]) -> list[str]:
    """The files of a checkpoint that the export reads: the configs and one set of weights."""
    there = set(names)
    first = next((name for name in WEIGHTS if name in there), None)
    if first is None:
        return [name for name in CONFIGS if name in there]
    shards: list[str] = []
    if first.endswith(".index.json"):
        stem, suffix = first.removesuffix(".index.json").rsplit(".", 1)
        shards = sorted(name for name in there if name.startswith(f"{stem}-") and name.endswith(f".{suffix}"))
    return [*(name for name in CONFIGS if name in there), first, *shards]


def check_checkpoint(folder: Path) -> Path:
    """Return the folder if it has all files of a checkpoint. Raises ExportRefused."""
    if not folder.is_dir():
        raise ExportRefused(f"source: no folder {folder}. Next: fix its path.")
    there = {entry.name for entry in folder.iterdir()}
    for name in CONFIGS:
        if name not in there:
            raise ExportRefused(f"source: {folder} has no {name}. Next: use a complete 🤗 checkpoint.")
    if not there & set(WEIGHTS):
        raise ExportRefused(
            f"source: {folder} has neither model.safetensors nor tf_model.h5. "
            "Next: save the model with safetensors; pickled weights (*.bin) are not read."
        )
    return folder


def download_snapshot(source: Hub) -> Path:
    """Download the needed files of a Hub model at one commit, to the source's `kept` or to 🤗's cache."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import requests
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub import errors as hub_errors

    try:
        names = HfApi().list_repo_files(source.repo, revision=source.revision)
        found = snapshot_download(
            source.repo, revision=source.revision, allow_patterns=wanted_files(names), local_dir=source.kept
        )
    except (hub_errors.HfHubHTTPError, hub_errors.LocalEntryNotFoundError, requests.RequestException) as error:
        raise explain_hub(error, f"source: {source.repo} at {source.revision[:12]}") from error
    if source.kept:
        shutil.rmtree(source.kept / ".cache", ignore_errors=True)  # the client's metadata
    return Path(found)


def explain_hub(error: Exception, where: str) -> ExportRefused:
    """Turn an error of 🤗's client into one of ours, in one line."""
    from huggingface_hub import errors as hub_errors

    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    status = error.response.status_code if isinstance(error, hub_errors.HfHubHTTPError) else None
    if status is None or can_retry(status):
        return SourceUnreachable(f"{where}: {reason}. Next: check the network, or HF_ENDPOINT.")
    if isinstance(error, hub_errors.GatedRepoError):
        return ExportRefused(f"{where}: access is gated. Next: accept its terms and set HF_TOKEN.")
    if isinstance(error, hub_errors.RevisionNotFoundError):
        return ExportRefused(f"{where}: no such revision. Next: name one of its commits.")
    if status == UNAUTHORIZED and NOT_ACCEPTED in str(error):
        return ExportRefused(f"{where}: the Hub does not accept the token. Next: set HF_TOKEN to a valid one.")
    if isinstance(error, hub_errors.RepositoryNotFoundError) or status == UNAUTHORIZED:  # the Hub does not say which
        return ExportRefused(f"{where}: no such model, or a private one. Next: check the name, or set HF_TOKEN.")
    return ExportRefused(f"{where}: {reason}. Next: check the model's page on the Hub.")


def can_retry(status: int) -> bool:
    """Whether a request that got this HTTP status can be retried."""
    return status == TOO_MANY_REQUESTS or status >= SERVER_ERROR


# --- archives ---------------------------------------------------------------------------------------------------------


def plain_url(url: str) -> str:
    """The URL without credentials and query, for messages and records."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def download(source: Archive, to: Path) -> None:
    """Download the archive to a file and check its sha256 before anything opens it. Raises ExportRefused."""
    where = f"source: {plain_url(source.url)}"
    try:
        # request.py accepts only https, http and file
        with urllib.request.urlopen(source.url, timeout=DOWNLOAD_TIMEOUT_S) as answer, to.open("wb") as file:  # noqa: S310
            while chunk := answer.read(CHUNK_BYTES):
                file.write(chunk)
    except urllib.error.HTTPError as error:
        kind = SourceUnreachable if can_retry(error.code) else ExportRefused
        raise kind(f"{where}: HTTP {error.code} {error.reason}. Next: check the address.") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        unanswered = isinstance(
            error, (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException)
        )
        kind = SourceUnreachable if unanswered and not source.url.startswith("file:") else ExportRefused
        raise kind(f"{where}: {reason}. Next: check the address and the network.") from error
    check_archive(source, to)


def check_archive(source: Archive, file: Path) -> None:
    """Raise ExportRefused if the archive has another sha256 than requested."""
    with file.open("rb") as reader:
        found = hashlib.file_digest(reader, "sha256").hexdigest()
    if found != source.sha256:
        raise ExportRefused(
            f"source: {plain_url(source.url)}: its sha256 is {found}, expected {source.sha256}. "
            "Next: find out who changed it before you change the model file."
        )


def unpack(archive: Path, to: Path, *, where: str) -> None:
    """Unpack the archive into a new folder. Refuse a member that would escape, or is neither file nor folder."""
    total = 0
    to.mkdir()
    try:
        with tarfile.open(archive, mode="r:*") as tar:
            for member in tar:
                total += member.size
                if total > MAX_UNPACKED_BYTES:
                    raise ExportRefused(
                        f"source: {where}: unpacks to over {MAX_UNPACKED_BYTES} bytes. Next: check what it contains."
                    )
                _unpack_member(tar, member, to, where)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ExportRefused(f"source: {where}: not a readable tar archive ({error}). Next: pack it again.") from error


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
