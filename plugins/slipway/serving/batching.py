"""Server-side batching as a rendered Deployment asks for it: whether requests are joined, and up to how many images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

ENABLED = re.compile(r"--enable_batching(?!\S*=(false|0)\b)(?![\w-])")
PARAMETERS = re.compile(r"--batching_parameters_file=(\S+)")
COMMENT = re.compile(r"#.*")
LIMIT = re.compile(r"\bmax_batch_size\s*:?\s*[{<]\s*value\s*:\s*(\d+)")  # of a text proto

Manifest = dict[str, Any]


def joins_requests(deployment: Manifest) -> bool:
    """Whether one of its containers turns batching on."""
    return any(ENABLED.search(_words(one)) for one in _containers(deployment))


def largest_batch(deployment: Manifest, objects: Sequence[Manifest]) -> int | None:
    """The `max_batch_size` of the batching file that its containers read; None where no ConfigMap of these objects says."""
    config_maps = {one["metadata"]["name"]: one.get("data", {}) for one in objects if one["kind"] == "ConfigMap"}
    volumes = deployment["spec"]["template"]["spec"].get("volumes", ())
    mounted = {one["name"]: _files(one["configMap"], config_maps) for one in volumes if "configMap" in one}
    for container in _containers(deployment):
        if named := PARAMETERS.search(_words(container)):
            text = _read(PurePosixPath(named[1]), container, mounted)
            said = LIMIT.search(COMMENT.sub("", text))
            return int(said[1]) if said else None
    return None


def _containers(deployment: Manifest) -> Iterator[Manifest]:
    yield from deployment["spec"]["template"]["spec"]["containers"]


def _words(container: Manifest) -> str:
    return " ".join((*container.get("command", ()), *container.get("args", ())))


def _files(volume: Manifest, config_maps: dict[str, dict[str, str]]) -> dict[str, str]:
    """A ConfigMap volume's files by name; `items` may give its keys other names."""
    data = config_maps.get(volume["name"], {})
    names = {one["path"]: one["key"] for one in volume.get("items", ())} or {key: key for key in data}
    return {name: data.get(key, "") for name, key in names.items()}


def _read(path: PurePosixPath, container: Manifest, mounted: dict[str, dict[str, str]]) -> str:
    """The file's text as the container sees it, empty where it is in none of these volumes."""
    for mount in container.get("volumeMounts", ()):
        if path.is_relative_to(mount["mountPath"]):
            inside = str(path.relative_to(mount["mountPath"]))
            name = mount.get("subPath") if inside == "." else inside
            return mounted.get(mount["name"], {}).get(name, "")
    return ""
