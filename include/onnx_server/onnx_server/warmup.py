"""A model's own warmup requests, which are answered before it is served."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from serving_protocol.flags import Flags
from serving_protocol.messages import PredictRequest
from serving_protocol.models import Model
from serving_protocol.versions import Found
from serving_protocol.warmup import replay
from serving_protocol.words import invalid

FOLDER = "warmup"  # in a version's folder: serialised PredictRequests


def warm_up(model: Model, found: Found, flags: Flags) -> None:
    """Answer the requests as the flags say. Raises ServingError for one that is refused or cannot be read."""
    folder = found.folder / FOLDER
    if flags.enable_model_warmup and folder.is_dir():
        replay(model, found, folder, _requests(folder), flags.num_request_iterations_for_warmup)


def _requests(folder: Path) -> Iterator[Any]:
    """In the order of their names."""
    for path in sorted(folder.glob("*.bin")):
        try:
            yield PredictRequest.FromString(path.read_bytes())
        except DecodeError as error:
            raise invalid(f"Failed to parse warmup record: {path}") from error
