"""Replays the warmup requests in a SavedModel before it is served.

A record that fails or cannot be read fails the load, and so does one record too many
(2.20.0 saved_model_warmup_util.cc:77-243).
"""

import time
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from . import metrics
from .models import Found, Model
from .tensorflow_runtime import read_records
from .words import ServingError, invalid, log

MAX_RECORDS = 1000


def warm_up(model: Model, found: Found, iterations: int) -> None:
    """Replay each warmup record of the model `iterations` times. A model may have no records."""
    path = found.folder / "assets.extra" / "tf_serving_warmup_requests"
    if not path.exists():
        log(f"No warmup data file found at {path}")
        return
    began = time.monotonic()
    count = 0
    for record in read_records(str(path)):
        entry = _parsed(record, str(path))
        for _ in range(max(iterations, 1)):
            _replay(model, entry)
        count += 1
        if count > MAX_RECORDS:
            raise invalid(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
    took_us = (time.monotonic() - began) * 1e6
    metrics.WARMUP_LATENCY.add(took_us, str(found.folder), "OK")
    metrics.WARMUP_RECORDS.add(str(found.folder), "OK", count=count)
    log(f"Finished reading warmup data for model at {path}: {count} records in {took_us / 1e6:.1f} s")


def _parsed(record: bytes, path: str) -> Any:
    try:
        return prediction_log_pb2.PredictionLog.FromString(record)
    except DecodeError as error:
        raise invalid(f"Failed to parse warmup record: {record[:80]!r} from {path}") from error


def _replay(model: Model, entry: Any) -> None:
    """Send the request in the record. Only predictions are imitated."""
    kind = entry.WhichOneof("log_type")
    if kind == "predict_log":
        model.answer(entry.predict_log.request)
    elif kind is not None:
        raise ServingError("UNIMPLEMENTED", f"Unsupported log_type for warmup: {kind}")
