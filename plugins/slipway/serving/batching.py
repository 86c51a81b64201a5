"""Server-side batching in a rendered Deployment: whether it is on, and its largest batch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

ENABLED = re.compile(r"--enable_batching(?!\S*=(false|0)\b)(?![\w-])")
PARAMETERS = re.compile(r"--batching_parameters_file=(\S+)")
COMMENT = re.compile(r"#.*")
LIMIT = re.compile(r"\bmax_batch_size\s*:?\s*[{<]\s*value\s*:\s*(\d+)")  # of a text proto

JsonObject = dict[str, Any]


def batches_requests(deployment: JsonObject) -> bool:
    """Whether one of the Deployment's containers enables batching."""
    return any(ENABLED.search(_command_line(one)) for one in _containers(deployment))


def largest_batch(deployment: JsonObject, objects: Sequence[JsonObject]) -> int | None:
    """The `max_batch_size` in the batching file that a container reads; None if no ConfigMap in `objects` sets it."""
    config_maps = {one["metadata"]["name"]: one.get("data", {}) for one in objects if one["kind"] == "ConfigMap"}
    volumes = deployment["spec"]["template"]["spec"].get("volumes", ())
    mounted = {one["name"]: _files(one["configMap"], config_maps) for one in volumes if "configMap" in one}
    for container in _containers(deployment):
        if named := PARAMETERS.search(_command_line(container)):
            text = _read(PurePosixPath(named[1]), container, mounted)
            limit = LIMIT.search(COMMENT.sub("", text))
            return int(limit[1]) if limit else None
    return None


def _containers(deployment: JsonObject) -> Iterator[JsonObject]:
    yield from deployment["spec"]["template"]["spec"]["containers"]


def _command_line(container: JsonObject) -> str:
    return " ".join((*container.get("command", ()), *container.get("args", ())))


def _files(volume: JsonObject, config_maps: dict[str, dict[str, str]]) -> dict[str, str]:
    """The files of a ConfigMap volume by name; `items` may rename its keys."""
    data = config_maps.get(volume["name"], {})
    names = {one["path"]: one["key"] for one in volume.get("items", ())} or {key: key for key in data}
    return {name: data.get(key, "") for name, key in names.items()}


def _read(path: PurePosixPath, container: JsonObject, mounted: dict[str, dict[str, str]]) -> str:
    """The text of the file as the container sees it; empty if it is in none of these volumes."""
    for mount in container.get("volumeMounts", ()):
        if path.is_relative_to(mount["mountPath"]):
            inside = str(path.relative_to(mount["mountPath"]))
            name = mount.get("subPath") if inside == "." else inside
            return mounted.get(mount["name"], {}).get(name, "")
    return ""
