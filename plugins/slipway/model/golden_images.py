"""Fetches the golden images that a model file names, for the exporter."""

from __future__ import annotations

import hashlib

import httpx

from slipway.errors import ExportError, one_line
from slipway.paths import SERVED
from slipway.release import GoldenRequest

FETCH_TIMEOUT_S = 60
LARGEST_GOLDEN_BYTES = 32 * 1024 * 1024


def fetch_golden_image(case: GoldenRequest) -> bytes:
    """The bytes of a golden image, checked against its hash if it has one. Raises ExportError."""
    if case.image.startswith(("http://", "https://")):
        data = _download(case)
    else:
        try:
            data = (SERVED / case.image).read_bytes()
        except OSError as error:
            raise ExportError(
                f"golden case {case.name}: include/served/{case.image}: {error.strerror}. Next: fix gate.golden"
            ) from error
    found = hashlib.sha256(data).hexdigest()
    if case.sha256 is not None and found != case.sha256:
        raise ExportError(
            f"golden case {case.name}: {case.image} has sha256 {found}, the run was resolved with {case.sha256}. "
            "Next: fix gate.golden; if the file was replaced, trigger again"
        )
    return data


def _download(case: GoldenRequest) -> bytes:
    try:
        with httpx.stream("GET", case.image, timeout=FETCH_TIMEOUT_S, follow_redirects=True) as response:
            response.raise_for_status()
            data = b""
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > LARGEST_GOLDEN_BYTES:
                    raise ExportError(
                        f"golden case {case.name}: {case.image} is larger than {LARGEST_GOLDEN_BYTES} bytes. "
                        "Next: use a smaller image"
                    )
            return data
    except httpx.HTTPError as error:
        raise ExportError(
            f"golden case {case.name}: {case.image}: {one_line(error)}. Next: check that the worker reaches it"
        ) from error
