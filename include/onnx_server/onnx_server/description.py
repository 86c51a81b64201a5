"""What a model folder's model.json says: labels, limits, the steps of the image processor."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .decode import Limits
from .preprocess import Step, step_of

FORMAT = 1
FILE = "model.json"


class ModelRefused(Exception):
    """A model folder cannot be served. The message is one line: which file, and what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A model, as the exporter describes it."""

    labels: tuple[str, ...]
    top_k: int
    limits: Limits
    marks_bad_images: bool  # otherwise a bad image refuses its request
    steps: tuple[Step, ...]
    may_join: bool  # requests: no answer depends on the images that are computed with it


def read_description(folder: Path) -> Description:
    """The description in a model folder. Raises ModelRefused."""
    path = folder / FILE
    try:
        held = json.loads(path.read_bytes())
        if not isinstance(held, dict) or held.get("format") != FORMAT:
            found = held.get("format") if isinstance(held, dict) else held
            raise ModelRefused(f"{path}: format {found!r} is not known, only {FORMAT}")
        return _description(held)
    except OSError as error:
        raise ModelRefused(f"{path}: {error.strerror}") from error
    except KeyError as error:
        raise ModelRefused(f"{path}: {error} is missing") from error
    except (ValueError, TypeError) as error:
        raise ModelRefused(f"{path}: {error}") from error


def _description(held: dict[str, Any]) -> Description:
    labels = tuple(held["labels"])
    if not labels or not all(isinstance(label, str) for label in labels):
        raise ValueError("labels is not a list of texts")
    if held["on_bad_image"] not in {"refuse", "mark"}:
        raise ValueError(f"on_bad_image {held['on_bad_image']!r} is neither refuse nor mark")
    if held["may_join"] not in {True, False}:
        raise ValueError(f"may_join is {held['may_join']!r}, and not true or false")
    return Description(
        labels=labels,
        top_k=min(_count(held, "top_k"), len(labels)),
        limits=Limits(max_file_bytes=_count(held, "max_file_bytes"), max_side=_count(held, "max_side")),
        marks_bad_images=held["on_bad_image"] == "mark",
        steps=tuple(step_of(written) for written in held["steps"]),
        may_join=held["may_join"],
    )


def _count(held: dict[str, Any], name: str) -> int:
    value = held[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}")
    return value
