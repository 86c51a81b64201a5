"""Every expectation of the suite has a source."""

import importlib
import re
from pathlib import Path

import pytest

from tests.conformance.cases import CASES

pytestmark = pytest.mark.model

SOURCE = re.compile(r"(tensorflow/)?[\w./-]+\.(cc|h|md|proto):\d+(-\d+)?")


def test_every_case_and_test_names_its_source():
    """Each expectation names the line of the document or source that it comes from."""
    modules = [
        importlib.import_module(f"tests.conformance.{path.stem}") for path in Path(__file__).parent.glob("test_*.py")
    ]
    tests = [(name, test) for module in modules for name, test in vars(module).items() if name.startswith("test_")]
    own = {"test_every_case_and_test_names_its_source", "test_rest_request_is_answered"}
    marks = [
        (name, [mark.args[0] for mark in getattr(test, "pytestmark", []) if mark.name == "source"])
        for name, test in tests
        if name not in own
    ]
    sources = [*((case.name, [case.source]) for case in CASES), *marks]
    assert len(tests) == len(marks) + len(own)
    assert len(dict(sources)) == len(sources)
    assert [name for name, found in sources if not found or not all(map(SOURCE.fullmatch, found))] == []
