"""Reads REQUEST.json and checks it before anything slow begins."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from errors import ExportRefused

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPO = re.compile(r"[\w.-]+(/[\w.-]+)?")


PRECISIONS = ("float32", "float16_weights", "int8")
CALIBRATIONS = ("none", "labelled")
LOADABLE = frozenset({"h5"})  # old formats of weights that a request may allow


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A checkpoint in a local folder."""

    path: Path
    allow: frozenset[str] = frozenset()  # old formats


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A checkpoint on the Hugging Face Hub, at one commit."""

    repo: str
    revision: str
    kept: Path  # the folder of its files: fetch.py makes it, export.py reads it
    allow: frozenset[str] = frozenset()  # old formats


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A SavedModel in a tar.gz with this sha256."""

    url: str
    sha256: str
    kept: Path  # the file of the archive: fetch.py makes it, export.py reads it


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenImage:
    """An image with its promised answer: a label, or any of several, and the least confidence (0 to 1)."""

    name: str
    image: Path
    label: str | tuple[str, ...]
    min_confidence: float

    @property
    def labels(self) -> tuple[str, ...]:
        """The accepted labels."""
        return (self.label,) if isinstance(self.label, str) else self.label


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of the served graph."""

    top_k: int = 5  # labels that the signature top_k returns; all if the model has fewer
    max_file_bytes: int = 16 * 1024 * 1024
    max_side: int = 8192  # pixels
    on_bad_image: str = "refuse"  # refuse the whole request, or "mark" the bad image in its label
    warmup_batches: tuple[int, ...] = (1, 4)  # images in each warmup request: one, as most clients send, and a few
    precision: str = "float32"  # of the weights and the arithmetic
    calibration: str = "none"  # of int8: what its scales are fixed with


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a download and an export may use; MiB is 1024 * 1024 bytes."""

    memory_mib: int = 16 * 1024
    cpu_s: int = 2 * 3600
    disk_mib: int = 32 * 1024  # of each file that is written, and of an unpacked archive
    download_mib: int = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the source comes from, as the caller describes it: shown on the card, used for nothing else."""

    location: str
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One export: the model's name, source, golden images and settings."""

    model: str
    source: Folder | Hub | Archive
    golden: tuple[GoldenImage, ...]
    settings: Settings = Settings()
    origin: Origin | None = None
    limits: Limits = Limits()
    labelled: Path | None = None  # the labelled set that int8 is measured on
    without_sandbox: bool = False  # archives and old formats are also opened where the kernel has no sandbox


def read_request(path: Path) -> Request:
    """Read the request from a file. Raises ExportRefused, naming the file and the field."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExportRefused(f"{path}: {error.strerror}. Next: pass a readable file as --request.") from error
    except ValueError as error:
        raise ExportRefused(f"{path}: not JSON ({error}). Next: see export.py --help for its shape.") from error
    try:
        return parse_request(raw)
    except ExportRefused as error:
        raise ExportRefused(f"{path}: {error}") from error


def parse_request(raw: Any) -> Request:
    """Read the request from a JSON value. Raises ExportRefused."""
    optional = {"settings", "origin", "limits", "without_sandbox", "labelled"}
    fields = _fields(raw, "the request", required={"model", "source", "golden"}, optional=optional)
    if not isinstance(fields.get("without_sandbox", False), bool):
        raise ExportRefused("without_sandbox: is neither true nor false. Next: fix it.")
    golden = fields["golden"]
    if not isinstance(golden, list):
        raise ExportRefused("golden: must be a list. Next: give it one entry for each golden image.")
    images = tuple(_golden(entry, f"golden[{index}]") for index, entry in enumerate(golden))
    names = [image.name for image in images]
    for name in names:
        if names.count(name) > 1:
            raise ExportRefused(f"golden: two cases are named {name!r}. Next: give each its own name.")
    settings = _settings(fields.get("settings", {}))
    if (settings.precision == "int8") != ("labelled" in fields):
        raise ExportRefused(
            "labelled: int8 needs a labelled set, and no other precision has use for one. Next: give both or neither."
        )
    return Request(
        model=_text(fields, "model", _NAME),
        source=_source(fields["source"]),
        golden=images,
        settings=settings,
        labelled=Path(_text(fields, "labelled")) if "labelled" in fields else None,
        origin=_origin(fields["origin"]) if "origin" in fields else None,
        limits=_limits(fields.get("limits", {})),
        without_sandbox=fields.get("without_sandbox", False),
    )


def _origin(raw: Any) -> Origin:
    fields = _fields(raw, "origin", required={"location", "revision"})
    return Origin(**{name: _text(fields, name, where="origin") for name in sorted(fields)})


def _limits(raw: Any) -> Limits:
    fields = _fields(raw, "limits", required=set(), optional=set(asdict(Limits())))
    for name in sorted(fields):
        if not _is_count(fields[name]):
            raise ExportRefused(f"limits.{name}: {fields[name]!r} is not a whole number of at least 1. Next: fix it.")
    return Limits(**fields)


def _settings(raw: Any) -> Settings:
    fields = _fields(raw, "settings", required=set(), optional=set(asdict(Settings())))
    for name in sorted({"top_k", "max_file_bytes", "max_side"} & set(fields)):
        if not _is_count(fields[name]):
            raise ExportRefused(f"settings.{name}: {fields[name]!r} is not a whole number of at least 1. Next: fix it.")
    batches = fields.get("warmup_batches", list(Settings().warmup_batches))
    if not isinstance(batches, list) or not batches or not all(map(_is_count, batches)):
        raise ExportRefused(
            f"settings.warmup_batches: {batches!r} is not a list of whole numbers of at least 1. Next: fix it."
        )
    if fields.get("on_bad_image", "refuse") not in {"refuse", "mark"}:
        raise ExportRefused(f"settings.on_bad_image: {fields['on_bad_image']!r} is unknown. Next: use refuse or mark.")
    if fields.get("precision", PRECISIONS[0]) not in PRECISIONS:
        raise ExportRefused(
            f"settings.precision: {fields['precision']!r} is unknown. Next: use one of {', '.join(PRECISIONS)}."
        )
    if fields.get("calibration", CALIBRATIONS[0]) not in CALIBRATIONS:
        raise ExportRefused(
            f"settings.calibration: {fields['calibration']!r} is unknown. Next: use {' or '.join(CALIBRATIONS)}."
        )
    return Settings(**{**fields, "warmup_batches": tuple(batches)})


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _source(raw: Any) -> Folder | Hub | Archive:
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if kind == "folder":
        fields = _fields(raw, "source", required={"kind", "path"}, optional={"allow"})
        return Folder(path=Path(_text(fields, "path", where="source")), allow=_allow(fields))
    if kind == "hub":
        fields = _fields(raw, "source", required={"kind", "repo", "revision", "kept"}, optional={"allow"})
        return Hub(
            repo=_text(fields, "repo", _REPO, "source"),
            revision=_text(fields, "revision", _COMMIT, "source"),
            kept=Path(_text(fields, "kept", where="source")),
            allow=_allow(fields),
        )
    if kind == "savedmodel":
        fields = _fields(raw, "source", required={"kind", "url", "sha256", "kept"})
        url = _text(fields, "url", where="source")
        if url.partition("://")[0] not in {"https", "http", "file"}:
            raise ExportRefused("source.url: must begin with https://, http:// or file://. Next: fix the address.")
        kept = Path(_text(fields, "kept", where="source"))
        return Archive(url=url, sha256=_text(fields, "sha256", _SHA256, "source"), kept=kept)
    raise ExportRefused(f"source.kind: {kind!r} is unknown. Next: use folder, hub or savedmodel.")


def _allow(fields: dict[str, Any]) -> frozenset[str]:
    found = fields.get("allow", [])
    if not isinstance(found, list) or not all(isinstance(word, str) and word in LOADABLE for word in found):
        raise ExportRefused(f"source.allow: {found!r} is not a list of {sorted(LOADABLE)}. Next: fix it.")
    return frozenset(found)


def _golden(raw: Any, where: str) -> GoldenImage:
    fields = _fields(raw, where, required={"name", "image", "label", "min_confidence"})
    least = fields["min_confidence"]
    if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1:
        raise ExportRefused(f"{where}.min_confidence: {least!r} is not a number from 0 to 1. Next: fix it.")
    return GoldenImage(
        name=_text(fields, "name", _NAME, where),
        image=Path(_text(fields, "image", where=where)),
        label=_labels(fields["label"], where)
        if isinstance(fields["label"], list)
        else _text(fields, "label", where=where),
        min_confidence=float(least),
    )


def _labels(raw: list[Any], where: str) -> tuple[str, ...]:
    if not raw or not all(isinstance(label, str) and label for label in raw):
        raise ExportRefused(f"{where}.label: {raw!r} is not a list of texts. Next: fix it.")
    return tuple(raw)


def _fields(
    raw: Any, where: str, *, required: set[str], optional: frozenset[str] | set[str] = frozenset()
) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ExportRefused(f"{where}: must be an object. Next: see export.py --help for its shape.")
    missing, unknown = sorted(required - set(raw)), sorted(set(raw) - required - optional)
    if missing:
        raise ExportRefused(f"{where}: {missing[0]} is missing. Next: add it.")
    if unknown:
        raise ExportRefused(
            f"{where}: {unknown[0]} is unknown. Next: remove it; the known fields are {sorted(required | optional)}."
        )
    return raw


def _text(fields: dict[str, Any], name: str, pattern: re.Pattern[str] | None = None, where: str = "") -> str:
    value = fields[name]
    field = f"{where}.{name}" if where else name
    if not isinstance(value, str) or not value:
        raise ExportRefused(f"{field}: {value!r} is not a text. Next: fix it.")
    if pattern and not pattern.fullmatch(value):
        raise ExportRefused(f"{field}: {value!r} does not match {pattern.pattern}. Next: fix it.")
    return value
