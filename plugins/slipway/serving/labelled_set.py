"""A labelled set of images: read from a folder or table, pinned by its content, kept in the store."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slipway.errors import InputRefused
from slipway.facts import from_dict, to_dict
from slipway.names import SERVING_SIGNATURE, digest_of, short
from slipway.paths import PROJECT
from slipway.records.store import Store, read_json
from slipway.release import QualityBounds

MOST_IMAGES = 1000
MOST_BYTES = 64 * 1024 * 1024  # the triggerer holds them all


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """One image of a set."""

    name: str  # its path in the set
    label: str
    data: str  # base64, in the URL's alphabet

    @property
    def rest_body(self) -> str:
        """The body of the REST request."""
        return json.dumps({"signature_name": SERVING_SIGNATURE, "instances": [self.data]})


def pin_quality(
    path: Path, name: str, store: Store, model: str, *, min_top1: float | None = None, max_drop: float | None = None
) -> QualityBounds:
    """The set that a model file names, kept in the store by its content. Raises InputRefused, StoreError."""
    images = tuple(_read_set(path, name))
    facts = [to_dict(image) for image in images]
    digest = digest_of(facts)
    key = f"quality/{model}/{short(digest)}.json"
    if not store.exists(key):
        store.put_json({"images": facts}, key)
    return QualityBounds(uri=store.uri_of(key), digest=digest, min_top1=min_top1, max_drop=max_drop)


def read_images(floor: QualityBounds) -> tuple[LabelledImage, ...]:
    """The images of a pinned set. Raises StoreError."""
    return tuple(from_dict(LabelledImage, image) for image in read_json(floor.uri)["images"])


def _read_set(path: Path, name: str) -> Iterator[LabelledImage]:
    """The images of the set of this name beside a model file. Raises InputRefused."""
    shown = path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path
    where = f"{shown}: gate.quality.set: {name}"
    place = (path.parent / name).resolve()
    if not place.exists() or not place.is_relative_to(path.parent.resolve()):
        raise InputRefused(f"{where} is nothing beside the model file. Next: mend it")
    labels = _of_folder(place, where) if place.is_dir() else _of_table(place, where)
    folder = place if place.is_dir() else place.parent
    if not labels or len(labels) > MOST_IMAGES:
        raise InputRefused(f"{where} has {len(labels)} images. Next: give it 1 to {MOST_IMAGES}")
    if missing := [image for image in labels if not (folder / image).is_file()]:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise InputRefused(f"{where}: {missing[0]}{more}: no such file. Next: put it there, or take its line out")
    if (size := sum((folder / image).stat().st_size for image in labels)) > MOST_BYTES:
        raise InputRefused(f"{where} has {size} bytes. Next: use fewer or smaller images, {MOST_BYTES} at most")
    for image, label in sorted(labels.items()):
        data = base64.urlsafe_b64encode((folder / image).read_bytes()).decode()
        yield LabelledImage(name=image, label=label, data=data)


def _of_folder(folder: Path, where: str) -> dict[str, str]:
    """The images of a folder with a folder for each label, by their paths."""
    files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")]
    if stray := next((file for file in files if len(file.parts) != 2), None):  # noqa: PLR2004 - label and file
        raise InputRefused(f"{where}: {stray} is in no label's folder. Next: move it to LABEL/{stray.name}")
    return {file.as_posix(): file.parts[0] for file in files}


def _of_table(file: Path, where: str) -> dict[str, str]:
    """The images of a CSV file with the columns image and label."""
    try:
        rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"))))
    except (OSError, ValueError, csv.Error) as error:
        raise InputRefused(f"{where} is no CSV file: {error}. Next: mend it") from error
    for number, row in enumerate(rows, start=2):
        if not row.get("image") or not row.get("label"):
            raise InputRefused(f"{where}: line {number} has no image or no label. Next: begin it with image,label")
    return {row["image"]: row["label"] for row in rows}
