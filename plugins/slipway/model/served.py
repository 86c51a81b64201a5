"""Reads and checks the model files in `include/served`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from slipway.errors import InputRefused, one_line
from slipway.model.field_types import NAME_PATTERN
from slipway.model.model_file import ModelFile, is_previewed, is_temporary
from slipway.model.target_settings import TargetSettings
from slipway.names import preview_name
from slipway.paths import OVERLAYS, PROJECT, SERVED


def served_files(folder: Path = SERVED) -> list[Path]:
    """All model files, sorted by name."""
    return sorted(folder.glob("*.yaml"))


def read_model_file(path: Path) -> ModelFile:
    """The model file at this path.

    Raises InputRefused in one line with the file, the field and what to do next.
    """
    where = " ".join(_shown(path).splitlines())
    if not re.fullmatch(NAME_PATTERN, path.stem):
        raise InputRefused(
            f"{where}: the file's name is the model's name, and {path.stem!r} is invalid. "
            "Next: use lower-case letters, digits and '-', at most 40, starting with a letter"
        )
    try:
        text = path.read_text(encoding="utf-8")
        data = yaml.load(text, Loader=_FieldsOnce)  # noqa: S506 - a SafeLoader
    except FileNotFoundError as error:
        raise InputRefused(f"{where}: no such model file. Next: create it, see docs/model-file.md") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputRefused(f"{where}: cannot be read: {error}. Next: make it a readable UTF-8 file") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
        raise InputRefused(f"{where}: not YAML: {one_line(error)}. Next: fix that line") from error
    return parse_model_file(data, where=where)


class _FieldsOnce(yaml.SafeLoader):
    """Refuses a field that is given twice. PyYAML's own loader silently takes the second."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


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
                    f"include/served/{name}.yaml: target.deployment: {deployment!r} is also written by "
                    f"include/served/{writers[key]}.yaml. Next: give one of them another target.deployment"
                )
            writers[key] = name
    _check_temporary(files)


def _written(file: ModelFile) -> list[str]:
    """The names of the Deployments that runs of a model file write."""
    live = file.target.deployment
    return [live, preview_name(live)] if is_previewed(file) else [live]


def _check_temporary(files: dict[str, ModelFile]) -> None:
    """Refuse a temporary cluster that another model file names too: the run deletes it with everything in it."""
    named: dict[tuple[str | None, ...], str] = {}
    for name, file in sorted(files.items(), key=lambda item: not is_temporary(item[1])):
        cluster = _cluster_of(file.target)
        if cluster in named and is_temporary(files[named[cluster]]):
            raise InputRefused(
                f"include/served/{named[cluster]}.yaml: target.gke: the temporary cluster is also named by "
                f"include/served/{name}.yaml. Next: give one of them another target.gke.cluster"
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


def overlay_names(folder: Path = OVERLAYS) -> list[str]:
    """The names of all overlays: the folders of `include/manifests/overlays` with a kustomization."""
    return sorted(path.parent.name for path in folder.glob("*/kustomization.yaml"))


def _explain(error: ValidationError) -> str:
    """Pydantic's findings as one line: field, what is wrong, what next."""
    findings: list[str] = []
    for finding in error.errors(include_url=False):
        field = _field(finding["loc"])
        text = finding["msg"].removeprefix("Value error, ")
        shown = f" (got {finding['input']!r})" if finding["type"] not in {"missing", "extra_forbidden"} else ""
        findings.append(f"{field}: {text[0].lower()}{text[1:]}{shown if len(shown) < 80 else ''}")  # noqa: PLR2004 - keeps the line short
    shown_findings = "; ".join(dict.fromkeys(findings))
    return f"{shown_findings}. Next: fix {_field(error.errors()[0]['loc'])}, see docs/model-file.md"


def _field(loc: tuple[int | str, ...]) -> str:
    """A field's path as people write it, without the tag that pydantic adds after `source`."""
    parts = [str(part) for part in loc]
    if parts[:1] == ["source"]:
        del parts[1:2]
    return ".".join(parts) or "the file"


def _shown(path: Path) -> str:
    """The path relative to the project's folder, if it is inside."""
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)
