"""Hostile model files: each is accepted, or refused in one line."""

import pytest
import yaml
from hostile import accept_or_refuse, json_values, mutated, texts
from hypothesis import given
from hypothesis import strategies as st

from slipway.errors import InputRefused
from slipway.model.model_file import ModelFile
from slipway.model.served import parse_model_file, read_model_file
from slipway.paths import INCLUDE

SHIPPED = {path.stem: yaml.safe_load(path.read_text()) for path in (INCLUDE / "served").glob("*.yaml")}
TEXT = (INCLUDE / "served" / "digits-vit.yaml").read_text()
PIECES = (
    "&a", "*a", "<<: *a", "!!python/object/apply:os.system ['id']", "!!binary =", "!!timestamp x", "!!set", "? ", "- - - -", "{", "[[[",
    "|", ">-", "%YAML 9", "---", "...", "\t", "\x00", "\x1b[31m", "\ud800", "\u202e", "\ufeff", "0x" + "f" * 400, "1e999", ".nan", "$PATH", "'",
)  # fmt: skip


@given(mutated(SHIPPED["digits-vit"]) | mutated(SHIPPED["digits-vit-gke"]) | json_values)
def test_any_structure_is_accepted_or_refused(value):
    """Whatever stands in the fields, a model file is accepted, or refused in one line that names the file."""
    found = accept_or_refuse(parse_model_file, value, where="include/served/x.yaml", refusals=InputRefused)
    assert found is None or isinstance(found, ModelFile)


@given(st.data())
def test_any_text_is_accepted_or_refused(tmp_path, data):
    """Whatever stands in the text of a model file, it is accepted, or refused in one line."""
    text = TEXT
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from(PIECES) | texts) + text[at + data.draw(st.integers(0, 9)) :]
    path = tmp_path / "digits.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    accept_or_refuse(read_model_file, path, refusals=InputRefused)


@given(st.binary(max_size=200))
def test_any_bytes_are_accepted_or_refused(tmp_path, data):
    """Bytes that are no text are refused in one line."""
    path = tmp_path / "digits.yaml"
    path.write_bytes(data)
    accept_or_refuse(read_model_file, path, refusals=InputRefused)


@given(texts)
def test_any_file_name_is_accepted_or_refused(name):
    """A file's name is the model's name: an invalid one is refused in one line."""
    accept_or_refuse(read_model_file, INCLUDE / "served" / f"{name.replace('/', '_')[:80]}.yaml", refusals=InputRefused)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"b{n}: &b{n} [{','.join(['*a'] * 9)}]\n" for n in range(500)),
        "[" * 60_000,
        "a: " * 20_000,
        "? " * 30_000,
        '"' + "\\x1b" * 15_000,
        "!!int " + "9" * 60_000,
        "- &a\n" * 10_000,
    ],
    ids=["aliases", "lists", "mappings", "keys", "escapes", "a number", "anchors"],
)
def test_the_largest_text_is_refused_in_time(tmp_path, text):
    """A text of the largest size is refused within a second too: one file must not stop the parse of all DAGs."""
    path = tmp_path / "digits.yaml"
    path.write_text(text)
    assert accept_or_refuse(read_model_file, path, refusals=InputRefused) is None
