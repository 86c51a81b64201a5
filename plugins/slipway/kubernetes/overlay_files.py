"""Reads an overlay and all that it builds on. Everything is a file of a folder `manifests`, so that rendering is offline.

There may be two such folders, read as one: the users', and the shipped one with the base. What a path names is the users' file
or folder if they have it.

kustomize fetches what looks like a URL or a repository to it, and takes a field in any case and the last of two equal ones.
So it gets a copy: the fields of a list, and each path begun with `./`, which it can only read as a path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from yaml.composer import ComposerError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from slipway.errors import ManifestError, one_line

NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
LARGEST_OVERLAY = 1024 * 1024  # bytes in all its files; a ConfigMap holds no more
LARGEST_KUSTOMIZATION = 32 * 1024  # bytes
MOST_FILES = 200

FOLDERS = frozenset({"resources", "bases", "components"})  # lists of files and of folders with a kustomization
FILES = frozenset({"crds", "configurations", "patchesStrategicMerge"})  # lists of files
# Fields whose entries have fields of their own; those in PATHS name files.
ENTRIES = {
    "patches": {"path", "patch", "target", "options"},
    "patchesJson6902": {"path", "patch", "target", "options"},
    "replacements": {"path", "source", "targets"},
    "configMapGenerator": {"name", "namespace", "behavior", "files", "env", "envs", "literals", "options"},
    "secretGenerator": {"name", "namespace", "behavior", "type", "files", "env", "envs", "literals", "options"},
    "openapi": {"path", "version"},
}
PATHS = frozenset({"path", "env", "envs", "files"})
# Fields that name no file.
INERT = frozenset({
    "apiVersion", "kind", "metadata", "namePrefix", "nameSuffix", "namespace", "commonLabels", "labels", "commonAnnotations",
    "images", "imageTags", "replicas", "vars", "sortOptions", "generatorOptions", "buildMetadata",
})  # fmt: skip
KNOWN = FOLDERS | FILES | ENTRIES.keys() | INERT


def read_overlay(folder: Path, roots: Sequence[Path]) -> tuple[Path, dict[Path, bytes]]:
    """The kustomization in `folder`, by its path in the roots; its files and those of all that it builds on, by their paths in there.

    Raises ManifestError in one line for an entry that is in no root, and for a field that may fetch or run something.
    """
    walk = _Walk(roots=tuple(root.resolve() for root in roots), shown=roots[0])
    found = walk.find(folder)
    if found is None:
        raise ManifestError(f"{roots[0] / folder}: is a link that leaves {roots[0]}. Next: copy the folder to there")
    walk.add_folder(found)
    return found.place, walk.files


@dataclass(frozen=True, slots=True)
class _Found:
    """A file or folder, with links followed: its path in a root, and on this machine."""

    place: Path
    real: Path


@dataclass(slots=True, kw_only=True)
class _Walk:
    """What has been read so far."""

    roots: tuple[Path, ...]
    shown: Path  # the first root, as messages name it
    files: dict[Path, bytes] = field(default_factory=dict)
    folders: set[Path] = field(default_factory=set)

    def find(self, place: Path) -> _Found | None:
        """What a path leads to in the first root that has it; None if in none, or if a link leaves that root."""
        for root in self.roots:
            if (root / place).exists() or (root / place).is_symlink():
                real = _real(root / place, root)
                return None if real is None else _Found(real.relative_to(root), real)
        return None

    def add_folder(self, folder: _Found) -> None:
        """Read a folder's kustomization, and what it names."""
        if folder.place in self.folders:
            return
        self.folders.add(folder.place)
        found = [folder.place / name for name in NAMES if (folder.real / name).is_file()]
        if len(found) != 1:
            raise self.refusal(folder.place, f"has {len(found)} of {', '.join(NAMES)}. Next: keep one of them")
        [place] = found
        self.files[place] = _Kustomization(self, place, self._read(place, LARGEST_KUSTOMIZATION)).checked()

    def add_path(self, named_by: Path, where: str, text: str, *, may_be_folder: bool) -> str:
        """Read what an entry of a kustomization names; the entry as kustomize can only read it as a path."""
        folder, entry = named_by.parent, f"./{text}"
        place = Path(os.path.normpath(folder / entry))
        found = None if place.is_absolute() or place.parts[:1] == ("..",) else self._find(place)
        if found is not None:
            if found.real.is_file():
                self._add_file(place)
                return entry
            if found.real.is_dir() and may_be_folder:
                self.add_folder(found)
                return f"./{os.path.relpath(found.place, folder)}"
        wanted = "file or folder" if may_be_folder else "file"
        raise self.refusal(
            named_by,
            f"{where}: {_short(text)} is not a {wanted} below {self.shown}. "
            "Next: copy what it names to there, and name the copy",
        )

    def refusal(self, place: Path, said: str) -> ManifestError:
        """The error for a file or folder of the overlay."""
        return ManifestError(f"{self.shown / place}: {said}")

    def _find(self, place: Path) -> _Found | None:
        try:
            return self.find(place)
        except (OSError, ValueError):  # no valid name
            return None

    def _add_file(self, place: Path) -> None:
        if place in self.files:
            return
        if len(self.files) == MOST_FILES:
            raise self.refusal(place, f"is one file too many. Next: use at most {MOST_FILES} in an overlay")
        left = LARGEST_OVERLAY - sum(map(len, self.files.values()))
        self.files[place] = self._read(place, left)

    def _read(self, place: Path, largest: int) -> bytes:
        found = self.find(place)
        if found is None:
            raise self.refusal(place, f"is a link that leaves {self.shown}. Next: copy the file to there")
        try:
            with found.real.open("rb") as file:
                content = file.read(largest + 1)
        except OSError as error:
            raise self.refusal(place, f"{error.strerror}. Next: fix it") from error
        if len(content) > largest:
            raise self.refusal(place, f"is too large: over {largest} bytes. Next: make the overlay smaller")
        return content


class _Loader(yaml.SafeLoader):
    """Refuses aliases: a text that is a path in one place and KEY=PATH in another would be checked as one of them only."""

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """The next node."""
        if self.check_event(yaml.AliasEvent):
            raise ComposerError(problem="has an alias (*NAME), which must be written out")
        return super().compose_node(parent, index)


class _Kustomization:
    """A kustomization's YAML, with each scalar's text as it was written."""

    def __init__(self, walk: _Walk, place: Path, content: bytes) -> None:
        self.walk, self.place, self.content = walk, place, content

    def checked(self) -> bytes:
        """It as kustomize gets it; all that it names has been read. Raises ManifestError."""
        try:
            top = yaml.compose(self.content, Loader=_Loader)
            for name, value in self._fields(top, KNOWN, ""):
                self._check(name, value)
            return str(yaml.serialize(top, Dumper=yaml.SafeDumper, allow_unicode=True)).encode()
        except yaml.YAMLError as error:
            raise self._refusal(f"is not valid YAML: {one_line(error)}. Next: fix it") from error
        except RecursionError as error:
            raise self._refusal("is nested too deeply. Next: make it flatter") from error

    def _check(self, name: str, value: Node) -> None:
        if name in FOLDERS | FILES:
            self._make_local(value, name, may_be_folder=name in FOLDERS)
        for entry in _items(value) if name in ENTRIES else ():
            for inner, inner_value in self._fields(entry, ENTRIES[name], f"{name}."):
                if inner in PATHS:
                    self._make_local(inner_value, f"{name}.{inner}", named=inner == "files")

    def _make_local(self, value: Node, where: str, *, may_be_folder: bool = False, named: bool = False) -> None:
        """Read the files that a path or a list of paths names, and begin each path with `./`; if `named`, as KEY=PATH."""
        for node in _items(value):
            if not isinstance(node, ScalarNode):
                raise self._refusal(f"{where}: has an entry that is not a path. Next: write paths")
            key, separator, path = str(node.value).rpartition("=") if named else ("", "", str(node.value))
            local = self.walk.add_path(self.place, where, path, may_be_folder=may_be_folder)
            node.value, node.tag, node.style = f"{key}{separator}{local}", "tag:yaml.org,2002:str", '"'

    def _fields(self, node: Node | None, known: frozenset[str] | set[str], where: str) -> Iterator[tuple[str, Node]]:
        """The fields of a mapping, of which each is known and given once."""
        if not isinstance(node, MappingNode):
            raise self._refusal(f"{where.rstrip('.') or 'it'} is not a mapping of fields. Next: fix it")
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value) if isinstance(key, ScalarNode) else ""
            if name not in known:
                raise self._refusal(
                    f"{where}{_short(name)} is not a field that an overlay may use. "
                    f"Next: remove it; docs/overlays.md lists the fields"
                )
            if name in seen:
                raise self._refusal(f"{where}{name} is given twice. Next: remove one")
            seen.add(name)
            yield name, value

    def _refusal(self, said: str) -> ManifestError:
        return self.walk.refusal(self.place, said)


def _items(node: Node) -> list[Node]:
    """The items of a list, a single value as one; none of null."""
    if isinstance(node, SequenceNode):
        return list(node.value)
    return [] if node.tag == "tag:yaml.org,2002:null" else [node]


def _real(place: Path, real_root: Path) -> Path | None:
    """Where a path leads; None if not to a file or folder below the root."""
    try:
        real = place.resolve(strict=True)
    except (OSError, ValueError, RuntimeError):  # missing, a loop of links, or no valid name
        return None
    return real if real.is_relative_to(real_root) else None


def _short(text: str) -> str:
    """A text of an overlay for a line of the log."""
    return repr(text if len(text) <= 200 else f"{text[:200]}…")  # noqa: PLR2004 - characters
