"""Answers warmup requests before a version is served. One that fails fails the load (2.20.0 saved_model_warmup_util.cc:77-243)."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import metrics
from .models import Model
from .versions import Found
from .words import invalid, log

MAX_REQUESTS = 1000


def replay(model: Model, found: Found, path: Path, requests: Iterable[Any], iterations: int) -> None:
    """Answer each of these PredictRequests, which come from `path`, `iterations` times."""
    began = time.monotonic()
    count = 0
    for request in requests:
        for _ in range(max(iterations, 1)):
            model.answer(request)
        count += 1
        if count > MAX_REQUESTS:
            raise invalid(f"Number of warmup records exceeds the maximum ({MAX_REQUESTS}) at {path}")
    took_us = (time.monotonic() - began) * 1e6
    metrics.WARMUP_LATENCY.add(took_us, str(found.folder), "OK")
    metrics.WARMUP_RECORDS.add(str(found.folder), "OK", count=count)
    log(f"Finished reading warmup data for model at {path}: {count} records in {took_us / 1e6:.1f} s")
