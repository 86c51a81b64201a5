"""The threat table: the page has the list, and each test of it exists."""

import ast
from pathlib import Path

import pytest
from threats import THREATS, render_threats

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "security.md"


def test_the_page_has_the_list():
    """docs/security.md has the list, row by row, and nothing else in its table."""
    table = [line for line in PAGE.read_text().splitlines() if line.count("|") == 5]
    assert render_threats().splitlines() == table


@pytest.mark.parametrize("test", [row[-1] for row in THREATS])
def test_each_threat_has_a_test(test):
    """The named file has the named test, or at least one if only the file is named."""
    file, _, name = test.partition("::")
    tree = ast.parse((TESTS / file).read_text())
    found = {part.name for part in ast.walk(tree) if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in found if name else any(function.startswith("test_") for function in found)
