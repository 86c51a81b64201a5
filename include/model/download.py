"""Downloads a source: from the Hugging Face Hub, or a SavedModel archive from a URL. No model code is run here."""

from __future__ import annotations

import http.client
import ipaddress
import os
import shutil
import socket
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from importlib import import_module
from typing import Any

from errors import ExportRefused, SourceUnreachable
from request import Archive, Hub, Limits
from sources import check_archive, partial_path, plain_url, wanted_files

DOWNLOAD_TIMEOUT_S = 60  # without receiving a byte
CHUNK_BYTES = MIB = 1 << 20
NOT_ACCEPTED = (
    "Invalid credentials"  # in the Hub's 401 for an invalid token, not in that for a private or missing model
)
UNAUTHORIZED = 401
TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500  # 429, and any status from 500, can be retried


def download_snapshot(source: Hub, limits: Limits) -> None:
    """Download the needed files of a Hub model at one commit to the source's `kept`. Raises ExportRefused."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, snapshot_download

    where, partial = f"source: {source.repo} at {source.revision[:12]}", partial_path(source.kept)
    try:
        found = HfApi().model_info(source.repo, revision=source.revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in found.siblings or ()}
        wanted = wanted_files(sizes, where=where, allow=source.allow)
        if sum(sizes[name] for name in wanted) > limits.download_mib * MIB:
            raise too_large(where, limits)
        snapshot_download(source.repo, revision=source.revision, allow_patterns=wanted, local_dir=partial)
    except client_errors() as error:
        raise explain_hub(error, where) from error
    shutil.rmtree(partial / ".cache", ignore_errors=True)  # the client's metadata
    if sum(file.stat().st_size for file in partial.rglob("*") if file.is_file()) > limits.download_mib * MIB:
        raise too_large(where, limits)
    partial.rename(source.kept)


def client_errors() -> tuple[type[Exception], ...]:
    """What 🤗's client raises: its own errors, and those of the HTTP library that its version uses."""
    from huggingface_hub import errors as hub_errors

    found: list[type[Exception]] = [hub_errors.HfHubHTTPError, hub_errors.LocalEntryNotFoundError]
    for library, error in (("requests", "RequestException"), ("httpx", "HTTPError"), ("httpx2", "HTTPError")):
        with suppress(ImportError):
            found.append(getattr(import_module(library), error))
    return tuple(found)


def too_large(where: str, limits: Limits) -> ExportRefused:
    """The refusal of a source that is larger than the model file allows."""
    return ExportRefused(
        f"{where}: larger than limits.download_mib, {limits.download_mib} MiB. "
        "Next: check what it contains, or raise the limit in the model file."
    )


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


class SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to the host that was asked: another one was not named by the model file."""

    def redirect_request(self, req: urllib.request.Request, *answer: Any) -> urllib.request.Request | None:
        """The following request. Raises ExportRefused."""
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(answer[-1])
        if (old.scheme, old.netloc) != (new.scheme, new.netloc):
            raise ExportRefused(
                f"source: {plain_url(req.full_url)}: it redirects to another host, {new.hostname}. "
                "Next: give that address, if you trust it."
            )
        return super().redirect_request(req, *answer)


def refuse_link_local(url: str) -> None:
    """Refuse a host with an address of the link-local range: clouds serve a machine's own credentials there."""
    host = urllib.parse.urlsplit(url).hostname
    if host is None:  # a file
        return
    for *_, address in socket.getaddrinfo(host, None):
        if ipaddress.ip_address(str(address[0]).partition("%")[0]).is_link_local:
            raise ExportRefused(
                f"source: {plain_url(url)}: {host} is a link-local address. Next: give another address."
            )


def download_archive(source: Archive, limits: Limits) -> None:
    """Download the archive to the source's `kept`, and check its sha256 before anything opens it. Raises ExportRefused."""
    where, partial, size = f"source: {plain_url(source.url)}", partial_path(source.kept), 0
    try:
        refuse_link_local(source.url)
        opener = urllib.request.build_opener(SameHost)
        # request.py accepts only https, http and file
        with opener.open(source.url, timeout=DOWNLOAD_TIMEOUT_S) as answer, partial.open("wb") as file:
            while chunk := answer.read(CHUNK_BYTES):
                file.write(chunk)
                size += len(chunk)
                if size > limits.download_mib * MIB:
                    raise too_large(where, limits)
    except urllib.error.HTTPError as error:
        kind = SourceUnreachable if can_retry(error.code) else ExportRefused
        raise kind(f"{where}: HTTP {error.code} {error.reason}. Next: check the address.") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        unanswered = isinstance(
            error, (urllib.error.URLError, TimeoutError, ConnectionError, socket.gaierror, http.client.HTTPException)
        )
        kind = SourceUnreachable if unanswered and not source.url.startswith("file:") else ExportRefused
        raise kind(f"{where}: {reason}. Next: check the address and the network.") from error
    check_archive(source, partial)
    partial.rename(source.kept)
