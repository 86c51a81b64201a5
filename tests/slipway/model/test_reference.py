import re

import pytest
import yaml

from slipway.model.model_file import ModelFile
from slipway.model.reference import BEGIN, END, PAGE, place_reference, render_reference
from slipway.model.served import parse_model_file
from slipway.paths import PROJECT


@pytest.fixture(scope="module")
def schema():
    """The model file's schema."""
    return ModelFile.model_json_schema()


def test_the_page_matches_the_schema(schema):
    """docs/model-file.md is what `make docs` would write now."""
    page = PAGE.read_text()
    assert place_reference(page, render_reference(schema)) == page, "Next: make docs"


def test_every_field_has_a_description(schema):
    """The reference needs a description of every field."""
    parts = {"ModelFile": schema, **schema["$defs"]}
    undescribed = [
        f"{name}.{field}"
        for name, part in parts.items()
        for field, said in part["properties"].items()
        if not said.get("description") and "$ref" not in said
    ]
    assert undescribed == []


def test_the_pages_example_is_a_valid_model_file(schema):
    """The example at the top of the page is valid, and shows every part."""
    example = PAGE.read_text().split("```yaml\n")[1].split("```")[0]
    fields = yaml.safe_load(example)
    assert parse_model_file(fields, where="the example").schedule == "@weekly"
    assert [name for name in schema["properties"] if not re.search(rf"^(# )?{name}:", example, re.MULTILINE)] == []
    parts = {"image": "ImageSettings", "target": "TargetSettings", "gate": "GateSettings", "export": "ExportSettings"}
    shown = {part: set(fields[part]) for part in parts}
    shown["target"] |= set(re.findall(r"^  # (gke): ", example, re.MULTILINE))  # in place of conn_id
    shown["export"] |= set(re.findall(r"^  # (calibration): ", example, re.MULTILINE))  # of int8
    assert shown == {part: set(schema["$defs"][name]["properties"]) for part, name in parts.items()}


FIELDS = {
    "description": {"type": "string", "default": "", "description": "What it is.\n\nMore of it."},
    "size": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3, "description": "How big."},
    "name": {"anyOf": [{"type": "string", "pattern": "^a|b$", "form": "a|b"}, {"type": "null"}], "default": None},
    "where": {"oneOf": [{"$ref": "#/$defs/Shelf"}], "description": "Where it is."},
    "parts": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Part"}, "description": "Of what."},
    "lid": {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}], "default": None, "description": "On top."},
    "box": {"$ref": "#/$defs/Part", "default": {"kind": "x"}},
}
SCHEMA = {
    "properties": FIELDS,
    "required": ["where", "parts"],
    "$defs": {
        "Shelf": {"type": "object", "properties": {"shelf": {"type": "string"}, "row": {"type": "number"}}, "required": ["shelf", "row"]},
        "Part": {"type": "object", "description": "A part.", "properties": {"kind": {"enum": ["x", "y"], "description": "Which."}}, "required": ["kind"]},
    },
}  # fmt: skip


def test_table_has_all_fields():
    """Every field has a row: path, type, default and the first paragraph of its description."""
    assert render_reference(SCHEMA).splitlines() == [
        "| field | type | default | meaning |",
        "| --- | --- | --- | --- |",
        "| `description` | text |  | What it is. |",
        "| `size` | whole number, 1 to 9 | `3` | How big. |",
        "| `name` | a\\|b |  |  |",
        "| `where` | one of the kinds below | required | Where it is. |",
        "| `where.shelf` | text | required with `shelf` |  |",
        "| `where.row` | number | required with `shelf` |  |",
        "| `parts` | list of at least 1 | required | Of what. |",
        "| `parts[].kind` | `x`, `y` | required | Which. |",
        "| `lid` | fields below |  | On top. |",
        "| `lid.kind` | `x`, `y` | required | Which. |",
        "| `box` | fields below |  | A part. |",
        "| `box.kind` | `x`, `y` | required | Which. |",
    ]


def test_text_outside_the_marks_is_kept():
    """Only the text between the marks is replaced."""
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert place_reference(page, "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert place_reference(place_reference(page, "new"), "new") == place_reference(page, "new")


@pytest.mark.parametrize("page", ["", BEGIN, END, f"{END}{BEGIN}"])
def test_refused_if_the_page_has_no_marks(page):
    """A page without marks is refused; the message says how to add them."""
    with pytest.raises(ValueError, match=r"docs/model-file\.md: has no marks for the table\. Next: "):
        place_reference(page, "new")


def test_make_docs_writes_the_page():
    """The command that the page names exists."""
    assert "make docs" in BEGIN
    assert "-m slipway.model.reference" in (PROJECT / "Makefile").read_text()
