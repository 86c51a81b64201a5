"""What differs between the programs that export: each has libraries and a kind of served model of its own.

`exporting.py` is the rest: one road for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from errors import ExportRefused
from processor import Step
from request import Settings


class NoReference(Exception):
    """🤗's own processor refuses an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A loaded 🤗 model and its own image processor."""

    model: Any
    processor: Any
    labels: tuple[str, ...]
    weights_hash: str  # sha256:… of the weights' files
    parameters: int
    prepare: Callable[
        [Any], Any
    ]  # the processor's output for uint8 pixels (height, width, 3): float32 (1, 3, height, width)
    logits: Callable[[Any], Any]  # the model's for that output: float32 (labels,)
    graph: str | None = None  # how its served graph was made, if it was


class Reader(Protocol):
    """Decodes and prepares an image file exactly as the served model does."""

    steps: Sequence[Step]

    def pixels(self, data: bytes) -> Any:
        """The model's input for one file, float32 (3, height, width)."""


class Served(Protocol):
    """The written model, loaded again to check its answers."""

    input_name: str  # of serving_default
    refusals: tuple[type[Exception], ...]  # what `call` raises for a file that the served model refuses

    def call(self, signature: str, files: Sequence[str | bytes]) -> dict[str, Any]:
        """A signature's outputs for these files, as arrays; texts are bytes in UTF-8."""

    def reason(self, refusal: Exception) -> str:
        """Why a file was refused, in one line."""

    def is_approximate(self, data: bytes) -> bool:
        """Whether the served model's decoder gives other pixels than PIL for this kind of file."""


class Toolchain(Protocol):
    """One program's own part of an export."""

    name: str  # of its main library
    exporter: str  # increased when the same checkpoint gives other bytes
    content: str  # what a written model is called
    folder: str  # the written model's folder below OUT
    code: tuple[Path, ...]  # folders of this program's own code, which it may read in the sandbox
    packages: tuple[str, ...]  # whose versions decide what is exported

    def quiet(self) -> None:
        """Set the environment before any library is loaded: stderr is for the one line that says why an export failed."""

    def load(self) -> None:
        """Load the libraries."""

    def versions(self, checkpoint: Checkpoint | None) -> Mapping[str, str | None]:
        """The libraries' versions, for export.json."""

    def refuse_settings(self, settings: Settings) -> None:
        """Refuse settings that this program cannot keep. Raises ExportRefused."""

    def take_archive(self, found: Path, saved: Path, *, where: str) -> None:
        """Move an archive's SavedModel into place. Raises ExportRefused."""

    def load_checkpoint(self, folder: Path) -> Checkpoint:
        """Load the model and processor of a checkpoint folder. Raises ExportRefused if it cannot be served."""

    def save(self, checkpoint: Checkpoint, saved: Path, settings: Settings) -> str:
        """Write the served model. Returns in one line how its graph was made."""

    def quantise(self, saved: Path, calibration: Sequence[Any]) -> None:
        """Let the written model compute its products in int8, calibrated on these inputs if there are any. Raises ExportRefused."""

    def check(self, saved: Path, *, where: str) -> None:
        """Refuse a written model that does more than compute. Raises ExportRefused."""

    def predict_request(self, model: str, input_name: str, values: Sequence[str | bytes], signature: str) -> Any:
        """A tensorflow.serving.PredictRequest with these strings and no version."""

    def descriptors(self) -> bytes:
        """A serialised FileDescriptorSet for the gRPC services."""

    def write_warmup(self, saved: Path, requests: Sequence[Any]) -> None:
        """Write the requests that the server answers before it is ready."""

    def open(self, saved: Path) -> Served:
        """Load the written model."""

    def reader(self, checkpoint: Checkpoint, settings: Settings) -> Reader:
        """Read files as the written model does."""

    def signatures(self, saved: Path) -> dict[str, Any]:
        """Each signature's inputs and outputs by name, with type and shape."""


def read_labels(id2label: dict[int, Any], *, where: str) -> tuple[str, ...]:
    """The labels in the order of the model's outputs. Raises ExportRefused if there are none, or one is missing or no Unicode text."""
    labels = [str(id2label.get(index)) for index in range(len(id2label))]
    if not labels:
        raise ExportRefused(f"{where}: id2label is empty. Next: use a 🤗 image-classification checkpoint.")
    for index, label in enumerate(labels):
        if index not in id2label:
            raise ExportRefused(f"{where}: id2label has no label for output {index}. Next: number its labels from 0.")
        if any("\ud800" <= char <= "\udfff" for char in label):  # half of a UTF-16 pair, which no other encoding has
            raise ExportRefused(f"{where}: the label of output {index} is no Unicode text. Next: correct it.")
    return tuple(labels)
