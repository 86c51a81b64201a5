"""Labelled sets of images: read from a folder or a CSV file, pinned by content, kept in the artifact store."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slipway.errors import InputRefused, one_line
from slipway.facts import from_dict, to_dict
from slipway.names import SERVING_SIGNATURE, digest_of, labelled_set_key
from slipway.paths import shown
from slipway.records.store import Store, read_json
from slipway.release import QualityBounds

MAX_IMAGES = 1000
MAX_BYTES = 64 * 1024 * 1024  # the triggerer keeps the whole set in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """One image of a labelled set."""

    name: str  # the path in the set
    label: str
    data: str  # base64url

    @property
    def rest_body(self) -> str:
        """The body of its REST request."""
        return json.dumps({"signature_name": SERVING_SIGNATURE, "instances": [self.data]})


def pin_labelled_set(
    path: Path,
    name: str,
    store: Store,
    model: str,
    *,
    min_top1: float | None = None,
    max_drop: float | None = None,
    keep: bool = True,
) -> QualityBounds:
    """Store the set that a model file names, by its content; only hash it if the run does not `keep` it.

    Raises InputRefused, StoreError.
    """
    images = read_labelled_set(path, name)
    facts = [to_dict(image) for image in images]
    digest = digest_of(facts)
    key = labelled_set_key(model, digest)
    if keep and not store.exists(key):
        store.put_json({"images": facts}, key)
    return QualityBounds(uri=store.uri_of(key), digest=digest, min_top1=min_top1, max_drop=max_drop)


def read_images(bounds: QualityBounds) -> tuple[LabelledImage, ...]:
    """The images of a pinned set. Raises StoreError."""
    return tuple(from_dict(LabelledImage, image) for image in read_json(bounds.uri)["images"])


def read_labelled_set(path: Path, name: str) -> tuple[LabelledImage, ...]:
    """The images of the set `name` next to the model file at `path`. Raises InputRefused."""
    place, where = _find(path, name, "gate.quality.set")
    labels = _of_folder(place, where) if place.is_dir() else _of_table(place, where)
    return tuple(_read(place if place.is_dir() else place.parent, labels, where))


def read_image_folder(path: Path, name: str) -> tuple[LabelledImage, ...]:
    """The images of the folder `name` next to the model file at `path`, without labels. Raises InputRefused."""
    place, where = _find(path, name, "load_test.images")
    files = [file for file in place.rglob("*") if file.is_file() and not file.name.startswith(".")]
    return tuple(_read(place, {file.relative_to(place).as_posix(): "" for file in files}, where))


def _find(path: Path, name: str, field: str) -> tuple[Path, str]:
    """The place of a set, and how messages name it."""
    where = f"{shown(path)}: {field}: {name}"
    place = (path.parent / name).resolve()
    if not place.exists() or not place.is_relative_to(path.parent.resolve()):
        raise InputRefused(f"{where} does not exist next to the model file. Next: fix the path")
    return place, where


def _read(folder: Path, labels: dict[str, str], where: str) -> Iterator[LabelledImage]:
    """The images with their labels, by their paths in the folder. Raises InputRefused."""
    if not labels or len(labels) > MAX_IMAGES:
        raise InputRefused(f"{where} has {len(labels)} images. Next: give it 1 to {MAX_IMAGES}")
    if missing := [image for image in labels if not (folder / image).is_file()]:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise InputRefused(f"{where}: {missing[0]}{more}: no such file. Next: add the file, or remove its line")
    if (size := sum((folder / image).stat().st_size for image in labels)) > MAX_BYTES:
        raise InputRefused(f"{where} has {size} bytes. Next: use fewer or smaller images, at most {MAX_BYTES} bytes")
    for image, label in sorted(labels.items()):
        data = base64.urlsafe_b64encode((folder / image).read_bytes()).decode()
        yield LabelledImage(name=image, label=label, data=data)


def _of_folder(folder: Path, where: str) -> dict[str, str]:
    """The label of each image, by its path, in a folder with one folder per label."""
    files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")]
    if stray := next((file for file in files if len(file.parts) != 2), None):  # noqa: PLR2004 - label and file
        raise InputRefused(f"{where}: {stray} is not in a label's folder. Next: move it to LABEL/{stray.name}")
    return {file.as_posix(): file.parts[0] for file in files}


def _of_table(file: Path, where: str) -> dict[str, str]:
    """The label of each image, by its path, in a CSV file with the columns image and label."""
    try:
        rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"))))
    except (OSError, ValueError, csv.Error) as error:
        raise InputRefused(f"{where} is not a CSV file: {one_line(error)}. Next: fix the file") from error
    for number, row in enumerate(rows, start=2):
        if not row.get("image") or not row.get("label"):
            raise InputRefused(
                f"{where}: line {number} has no image or no label. Next: give both; the file's first line is image,label"
            )
    return {row["image"]: row["label"] for row in rows}
