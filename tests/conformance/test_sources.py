"""Every expectation of the suite has a source."""

import importlib
import re
from pathlib import Path

import pytest

from tests.conformance.cases import CASES
from tests.conformance.servers import NOT_ONNX

pytestmark = pytest.mark.model

SOURCE = re.compile(r"(tensorflow/)?[\w./-]+\.(cc|h|md|proto):\d+(-\d+)?")


def test_every_case_and_test_names_its_source():
    """Each expectation names the line of the document or source that it comes from."""
    modules = [
        importlib.import_module(f"tests.conformance.{path.stem}") for path in Path(__file__).parent.glob("test_*.py")
    ]
    tests = [(name, test) for module in modules for name, test in vars(module).items() if name.startswith("test_")]
    own = {
        "test_every_case_and_test_names_its_source", "test_every_exception_names_a_case", "test_rest_request_is_answered",
    }  # fmt: skip
    marks = [
        (name, [mark.args[0] for mark in getattr(test, "pytestmark", []) if mark.name == "source"])
        for name, test in tests
        if name not in own
    ]
    sources = [*((case.name, [case.source]) for case in CASES), *marks]
    assert len(tests) == len(marks) + len(own)
    assert len(dict(sources)) == len(sources)
    assert [name for name, found in sources if not found or not all(map(SOURCE.fullmatch, found))] == []


def test_every_exception_names_a_case():
    """What does not apply to the ONNX server is the name of a test, of a case, or a parameter of a test."""
    texts = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    names = {case.name for case in CASES}
    assert [words for words in NOT_ONNX if words not in names and not any(words in text for text in texts)] == []
    assert all(NOT_ONNX.values())
