"""Fetches the golden images that a model file names, for the exporter."""

from __future__ import annotations

import asyncio
import hashlib
from ipaddress import ip_address

import httpx

from slipway.bounded_http import EndlessAnswer, bounded_client, send_within_host
from slipway.errors import ExportError, one_line
from slipway.model.full_urls import full_url
from slipway.paths import served_folder, shown
from slipway.release import GoldenRequest
from slipway.urls import hide_secrets, plain_url

FETCH_TIMEOUT_S = 60  # between two bytes
TOTAL_S = 300
LARGEST_GOLDEN_BYTES = 32 * 1024 * 1024


class ElsewhereRefused(Exception):
    """The URL leads to a place that the model file does not name."""


def fetch_golden_image(case: GoldenRequest, model: str) -> bytes:
    """The bytes of a golden image of a model, checked against its hash if it has one. Raises ExportError."""
    if case.image.startswith(("http://", "https://")):
        data = _download(case, full_url(model, case.image, case.sha256))
    else:
        try:
            data = (place := served_folder() / case.image).read_bytes()
        except OSError as error:
            raise ExportError(
                f"golden case {case.name}: {shown(place)}: {error.strerror}. Next: fix gate.golden"
            ) from error
    found = hashlib.sha256(data).hexdigest()
    if case.sha256 is not None and found != case.sha256:
        raise ExportError(
            f"golden case {case.name}: {plain_url(case.image)}: its sha256 is not {case.sha256}, with which the run was resolved. "
            "Next: fix gate.golden; if the file was replaced, trigger again"
        )
    return data


def _download(case: GoldenRequest, url: str) -> bytes:
    """What is at the URL. The errors of the HTTP client quote the URL with its query, so they stay out of the traceback."""
    shown = plain_url(url)
    where = f"golden case {case.name}: {shown}"
    try:
        return asyncio.run(_ask(url))
    except EndlessAnswer as error:
        raise ExportError(
            f"{where}: {one_line(error).removeprefix(f'{shown}: ')}. "
            f"Next: name an image of at most {LARGEST_GOLDEN_BYTES} bytes, on a server that sends it within {TOTAL_S} s"
        ) from error
    except ElsewhereRefused as error:
        raise ExportError(f"{where}: {error}. Next: give another address") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise ExportError(
            f"{where}: {hide_secrets(one_line(error))}. Next: check that the worker reaches it; if it is signed, sign it again"
        ) from None


async def _ask(url: str) -> bytes:
    """The body of the answer; redirects are followed on the same host only. Raises httpx.HTTPError, httpx.InvalidURL, ElsewhereRefused."""
    async with bounded_client(max_bytes=LARGEST_GOLDEN_BYTES, timeout=FETCH_TIMEOUT_S) as client:
        await _refuse_link_local(httpx.URL(url).host)
        answer, elsewhere = await send_within_host(client, "GET", url, total_s=TOTAL_S)
    if elsewhere is not None:
        raise ElsewhereRefused(f"it redirects to another host, {elsewhere.host}")
    answer.raise_for_status()
    return answer.content


async def _refuse_link_local(host: str) -> None:
    """Refuse a host with an address of the link-local range: clouds serve a machine's own credentials there."""
    for *_, address in await asyncio.get_running_loop().getaddrinfo(host, None):
        if ip_address(str(address[0]).partition("%")[0]).is_link_local:
            raise ElsewhereRefused(f"{host} is a link-local address")
