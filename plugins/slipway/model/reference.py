"""The model file's reference: a table of all fields, generated from the schema into docs/model-file.md.

python -m slipway.model.reference
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slipway.model.model_file import ModelFile
from slipway.paths import PROJECT

PAGE = PROJECT / "docs" / "model-file.md"
BEGIN = "<!-- generated from the schema by `make docs`; edits between these marks are lost -->"
END = "<!-- end of the generated part -->"
TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "map": "names and texts",
}

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One field of the model file."""

    field: str  # its path, as error messages name it: target.namespace
    takes: str
    default: str
    meaning: str

    def __str__(self) -> str:
        """Return the row of a Markdown table."""
        cells = (f"`{self.field}`", self.takes, self.default, self.meaning)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def render_reference(schema: Schema) -> str:
    """The table of all fields, in the schema's order."""
    rows = [str(row) for row in _rows(schema, schema, prefix="", need="required")]
    return "\n".join(["| field | type | default | meaning |", "| --- | --- | --- | --- |", *rows])


def place_reference(page: str, table: str) -> str:
    """The page with this table between its marks. Raises ValueError if the page has no marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE}: has no marks for the table. Next: add a line {BEGIN} and, below it, {END}")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def _rows(part: Schema, schema: Schema, *, prefix: str, need: str) -> Iterator[Row]:
    """Yield the rows of an object's fields and of all fields below; `need` is the default of a required field."""
    for name, field in part.get("properties", {}).items():
        path = f"{prefix}{name}"
        found = _followed(field, schema)
        variants = [_followed(one, schema) for one in found.get("oneOf", ())]
        items = _followed(found.get("items", {}), schema)
        yield Row(field=path, takes=_takes(found), default=_default(field, part, name, need), meaning=_meaning(found))
        yield from _rows(found, schema, prefix=f"{path}.", need=need)
        yield from _rows(items, schema, prefix=f"{path}[].", need=need)
        for variant in variants:
            kind, *_ = variant["required"]
            yield from _rows(variant, schema, prefix=f"{path}.", need=f"required with `{kind}`")


def _followed(field: Schema, schema: Schema) -> Schema:
    """Return a field's schema with its reference resolved, also of an optional field; the field's own keys win."""
    options = [one for one in field.get("anyOf", ()) if one.get("type") != "null"]
    if len(options) == 1 and "$ref" in options[0]:
        field = {**{name: value for name, value in field.items() if name != "anyOf"}, **options[0]}
    if "$ref" not in field:
        return field
    return {**schema["$defs"][field["$ref"].rsplit("/", 1)[-1]], **field}


def _takes(field: Schema) -> str:
    if "form" in field:
        return str(field["form"])
    if "anyOf" in field:
        return " or ".join(_takes(one) for one in field["anyOf"] if one["type"] != "null")
    if "oneOf" in field:
        return "one of the kinds below"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "object" and "properties" not in field:
        field = {"type": "map"}
    if field.get("type") in {"object", "array"}:
        return "fields below" if field["type"] == "object" else f"list of at least {field.get('minItems', 0)}"
    bounds = f", {field['minimum']:g} to {field['maximum']:g}" if "minimum" in field and "maximum" in field else ""
    return TYPES[field["type"]] + bounds


def _default(field: Schema, part: Schema, name: str, need: str) -> str:
    if name in part.get("required", ()):
        return need
    value = field.get("default")
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "" if value in (None, "") or isinstance(value, dict | list) else f"`{value}`"


def _meaning(field: Schema) -> str:
    """Return the description's first paragraph as one line."""
    return " ".join(str(field.get("description", "")).split("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(
        place_reference(PAGE.read_text(encoding="utf-8"), render_reference(ModelFile.model_json_schema())),
        encoding="utf-8",
    )
