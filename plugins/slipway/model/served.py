"""Reads and checks the model files."""

from __future__ import annotations

import re
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from slipway.errors import InputRefused, one_line, plain_line
from slipway.model.field_types import NAME_PATTERN
from slipway.model.model_file import ModelFile, is_previewed, is_temporary
from slipway.model.strict_yaml import MAX_BYTES, load_strict
from slipway.model.sweep_settings import sweep_plan
from slipway.model.target_settings import TargetSettings
from slipway.names import preview_name, printable, sweep_suffix
from slipway.paths import manifests_folders, served_folder, shown, shown_model_file
from slipway.urls import hide_secrets

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MAX_FINDINGS, MAX_FIELD, MAX_GIVEN = (
    10,
    100,
    72,
)  # findings, and characters of a field's name and value, in the one line


def served_files(folder: Path | None = None) -> list[Path]:
    """All model files, sorted by name; of the users' folder, or of the one that is given."""
    return sorted((folder or served_folder()).glob("*.yaml"))


def read_model_file(path: Path) -> ModelFile:
    """The model file at this path.

    Raises InputRefused in one line with the file, the field and what to do next.
    """
    where = _shown(path)
    if not re.fullmatch(NAME_PATTERN, path.stem):
        raise InputRefused(
            f"{where}: the file's name is the model's name, and {printable(path.stem)!r} is invalid. "
            "Next: use lower-case letters, digits and '-', at most 40, starting with a letter"
        )
    try:
        data = load_strict(_read_text(path))
    except FileNotFoundError as error:
        raise InputRefused(f"{where}: no such model file. Next: create it, see docs/model-file.md") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputRefused(
            f"{where}: cannot be read: {one_line(error)}. Next: make it a readable UTF-8 file"
        ) from error
    except yaml.YAMLError as error:
        # Without the error itself in the traceback: it quotes the line, which may have a login or a signature.
        raise InputRefused(f"{where}: not YAML: {_without_the_line(error)}. Next: fix that line") from None
    return parse_model_file(data, where=where)


def _without_the_line(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the line itself."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if not problem or mark is None:
        return hide_secrets(one_line(error))
    return hide_secrets(f"{one_line(problem)} in line {mark.line + 1}, column {mark.column + 1}")


def _read_text(path: Path) -> str:
    """The file's text. Only a regular file: a pipe would block the parse of all DAGs for ever, and a device has no end."""
    if not S_ISREG(path.stat().st_mode):
        raise OSError("not a file")
    with path.open("rb") as reader:
        content = reader.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(f"larger than {MAX_BYTES} bytes")
    return content.decode("utf-8")


def parse_model_file(data: Any, *, where: str) -> ModelFile:
    """The model file from parsed YAML. Raises InputRefused, with `where` as the file's name."""
    if not isinstance(data, dict):
        raise InputRefused(f"{where}: has no fields. Next: give at least source and gate, see docs/model-file.md")
    try:
        return ModelFile.model_validate(data)
    except ValidationError as error:
        raise InputRefused(f"{where}: {_explain(error)}") from error


def check_unshared(files: dict[str, ModelFile]) -> None:
    """Raise InputRefused if two model files would write the same object; the message names both."""
    writers: dict[tuple[tuple[str | None, ...], str | None, str], str] = {}
    for name, file in sorted(files.items()):
        for deployment in _written(file):
            key = (_cluster_of(file.target), file.target.namespace, deployment)
            if key in writers:
                raise InputRefused(
                    f"{shown_model_file(name)}: target.deployment: {deployment!r} is also written by "
                    f"{shown_model_file(writers[key])}. Next: give one of them another target.deployment"
                )
            writers[key] = name
    _check_temporary(files)


def _written(file: ModelFile) -> list[str]:
    """The names of the Deployments that runs of a model file write."""
    live = file.target.deployment
    turns = sweep_plan(file.sweep, file.target.overlay).turns if file.sweep else ()
    return [
        live,
        *([preview_name(live)] if is_previewed(file) else ()),
        *(f"{live}{sweep_suffix(turn)}" for turn in range(len(turns))),
    ]


def _check_temporary(files: dict[str, ModelFile]) -> None:
    """Refuse a temporary cluster that another model file names too: the run deletes it with everything in it."""
    named: dict[tuple[str | None, ...], str] = {}
    for name, file in sorted(files.items(), key=lambda item: not is_temporary(item[1])):
        cluster = _cluster_of(file.target)
        if cluster in named and is_temporary(files[named[cluster]]):
            raise InputRefused(
                f"{shown_model_file(named[cluster])}: target.gke: the temporary cluster is also named by "
                f"{shown_model_file(name)}. Next: give one of them another target.gke.cluster"
            )
        named.setdefault(cluster, name)


def sharing_cluster(files: dict[str, ModelFile], name: str) -> tuple[str, ...]:
    """The names of the other model files that name the same cluster."""
    cluster = _cluster_of(files[name].target)
    return tuple(
        other for other, file in sorted(files.items()) if other != name and _cluster_of(file.target) == cluster
    )


def _cluster_of(target: TargetSettings) -> tuple[str | None, ...]:
    """What identifies a target's cluster, as far as the model file names it."""
    gke = target.gke
    return (target.conn_id,) if gke is None else (gke.conn_id, gke.project, gke.location, gke.cluster)


def overlay_names(folders: tuple[Path, ...] | None = None) -> list[str]:
    """The names of all overlays: the folders of `manifests/overlays` with a kustomization, the users' and the shipped ones."""
    found = (place.glob("overlays/*/kustomization.yaml") for place in folders or manifests_folders())
    return sorted({path.parent.name for paths in found for path in paths})


def _explain(error: ValidationError) -> str:
    """Pydantic's findings as one line: field, what is wrong, what next."""
    findings: list[str] = []
    for finding in error.errors(include_url=False):
        field = _field(finding["loc"])
        text = finding["msg"].removeprefix("Value error, ")
        findings.append(f"{field}: {text[0].lower()}{text[1:]}{_got(finding)}")
    each = list(dict.fromkeys(findings))
    more = f"; and {len(each) - MAX_FINDINGS} more" if len(each) > MAX_FINDINGS else ""
    return (
        f"{'; '.join(each[:MAX_FINDINGS])}{more}. Next: fix {_field(error.errors()[0]['loc'])}, see docs/model-file.md"
    )


def _got(finding: ErrorDetails) -> str:
    """What was given, if it says more than the rest of the line, is short, and has no login."""
    given = hide_secrets(repr(finding["input"]))
    if finding["type"] in {"missing", "extra_forbidden"} or len(given) > MAX_GIVEN or "@" in given:
        return ""
    return f" (got {given})"


def _field(loc: tuple[int | str, ...]) -> str:
    """A field's path as people write it, without the tag that pydantic adds after `source`."""
    parts = [str(part) for part in loc]
    if parts[:1] == ["source"]:
        del parts[1:2]
    return " ".join(".".join(parts).split())[:MAX_FIELD] or "the file"


def _shown(path: Path) -> str:
    """How messages name the path, in one line of characters that can be stored."""
    return plain_line(shown(path))
