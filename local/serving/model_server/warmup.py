"""The warmup requests in a SavedModel. A record that cannot be read fails the load, and so does one of another kind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from serving_protocol.messages import PredictionLog
from serving_protocol.models import Model
from serving_protocol.versions import Found
from serving_protocol.warmup import replay
from serving_protocol.words import ServingError, invalid, log

from .tensorflow_runtime import read_records


def warm_up(model: Model, found: Found, iterations: int) -> None:
    """Replay each warmup record of the model `iterations` times. A model may have no records."""
    path = found.folder / "assets.extra" / "tf_serving_warmup_requests"
    if not path.exists():
        log(f"No warmup data file found at {path}")
        return
    replay(model, found, path, _requests(path), iterations)


def _requests(path: Path) -> Iterator[Any]:
    """The requests in the file. Only predictions are imitated."""
    for record in read_records(str(path)):
        try:
            entry = PredictionLog.FromString(record)
        except DecodeError as error:
            raise invalid(f"Failed to parse warmup record: {record[:80]!r} from {path}") from error
        kind = entry.WhichOneof("log_type")
        if kind == "predict_log":
            yield entry.predict_log.request
        elif kind is not None:
            raise ServingError("UNIMPLEMENTED", f"Unsupported log_type for warmup: {kind}")
