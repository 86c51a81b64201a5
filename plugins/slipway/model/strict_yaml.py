"""YAML written by hand. It is checked against limits before it is expanded: one bad file must not stop the parse of all DAGs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.constructor import ConstructorError

MAX_BYTES = 64 * 1024  # of a file; the shipped model files have about 700 bytes
MAX_VALUES = 10_000  # with every alias expanded, as PyYAML and the checks after it do
MAX_DEPTH = 30  # of lists and mappings, with every alias expanded; PyYAML's recursion ends at Python's limit
MAX_INTEGER_BITS = 64
SURROGATES = range(0xD800, 0xE000)  # halves of a character: no database stores them
ALLOWED_CONTROLS = "\t\n\r"


def load_strict(text: str) -> Any:
    """The value of one YAML document. Raises only yaml.YAMLError, for any text."""
    _check_bounds(text)
    return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader


@dataclass(slots=True)
class _Expanded:
    """The size of a value with every alias expanded."""

    values: int = 1
    depth: int = 0

    def add(self, inner: _Expanded) -> None:
        self.values += inner.values
        self.depth = max(self.depth, inner.depth + 1)


def _check_bounds(text: str) -> None:
    """Read the text's events, without expanding it, and count the values that the expansion would have."""
    anchored: dict[str, _Expanded] = {}
    opened: list[tuple[_Expanded, str | None]] = [(_Expanded(), None)]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((_Expanded(), event.anchor))
            _refuse_if(len(opened) > MAX_DEPTH, f"more than {MAX_DEPTH} levels", event)
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            value, anchor = opened.pop()
        elif isinstance(event, yaml.ScalarEvent):
            value, anchor = _Expanded(), event.anchor
            _refuse_if(not _is_text(event.value), "a character that is not text", event)
        elif isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            _refuse_if(name not in anchored, f"alias {name!r} refers to nothing, or to itself", event)
            value, anchor = anchored[name], None
        else:
            continue
        if anchor is not None:
            anchored[anchor] = value
        around, _ = opened[-1]
        around.add(value)
        _refuse_if(around.values > MAX_VALUES, f"more than {MAX_VALUES} values, with aliases expanded", event)
        _refuse_if(around.depth + len(opened) > MAX_DEPTH, f"more than {MAX_DEPTH} levels", event)


def _is_text(value: str) -> bool:
    return not any((char < " " and char not in ALLOWED_CONTROLS) or ord(char) in SURROGATES for char in value)


def _refuse_if(bad: bool, what: str, event: Any) -> None:  # noqa: FBT001 - reads as a sentence
    if bad:
        raise ConstructorError(None, None, what, event.start_mark)


class _StrictLoader(yaml.SafeLoader):
    """Refuses a field that is given twice (PyYAML silently takes the second), and raises only YAMLError."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        fields = node.value if isinstance(node, yaml.MappingNode) else ()  # `!!map` may stand before anything
        names = Counter(key.value for key, _ in fields if isinstance(key, yaml.ScalarNode) and key.value != "<<")
        for name, times in names.items():
            if times > 1:
                raise ConstructorError(None, None, f"{name!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyYAML's signature
        kind = node.tag.rpartition(":")[2]
        try:
            value = super().construct_object(node, deep=deep)
        except yaml.YAMLError:
            raise
        except Exception as error:  # PyYAML's constructors let KeyError, IndexError and others through
            raise ConstructorError(None, None, f"{str(node.value)[:80]!r} is no {kind}", node.start_mark) from error
        if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:  # Python refuses to print a very long one
            raise ConstructorError(None, None, f"a number of more than {MAX_INTEGER_BITS} bits", node.start_mark)
        return value
