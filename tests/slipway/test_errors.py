"""The tree of errors: its classes, its picture at the top of the module, and the code that raises them, say the same."""

import ast
import inspect
import re

import pytest

from slipway import errors
from slipway.paths import PROJECT

FAMILY = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
LEAVES = [kind for kind in FAMILY if not kind.__subclasses__()]


@pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)
def test_every_error_has_the_one_base_and_a_docstring(kind):
    """Every error is a SlipwayError and says what it means."""
    assert issubclass(kind, errors.SlipwayError)
    assert kind.__doc__


def drawn():
    """Each error of the picture with its parent there."""
    parents, above = {}, {-1: None}
    for line in errors.__doc__.splitlines():
        found = re.match(r"([│├└─ ]*)([A-Z]\w+)(  |$)", line)
        if found:
            depth = len(found[1]) // 4
            parents[found[2]] = above[depth - 1]
            above[depth] = found[2]
    return parents


def test_the_picture_is_the_tree():
    """The picture shows every class below its base."""
    classes = {kind.__name__: kind.__base__.__name__ for kind in FAMILY if kind is not errors.SlipwayError}
    assert drawn() == {"SlipwayError": None, **classes}


@pytest.fixture(scope="module")
def named():
    """Every error that the package's code names, outside the tree and outside `except` and `isinstance`."""
    found = set()
    for path in (PROJECT / "plugins" / "slipway").rglob("*.py"):
        if path.name == "errors.py":
            continue
        tree = ast.parse(path.read_text())
        caught = {
            id(name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ExceptHandler) and node.type
            for name in ast.walk(node.type)
        }
        found |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in caught}
    return found


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_every_error_is_raised_somewhere(named, kind):
    """An error that nothing raises would be a row on the page that nobody meets."""
    assert kind.__name__ in named


def test_only_what_did_not_answer_is_tried_again():
    """Only what did not answer, is busy, or was interrupted may succeed a minute later."""
    unanswered = {
        "EngineUnreachable",
        "ClusterUnreachable",
        "GoogleUnreachable",
        "HubUnreachable",
        "LoadTestUnfinished",
        "RegistryUnreachable",
        "ReleaseUnsettled",
        "ExportInterrupted",
        "SourceUnreachable",
        "TargetBusy",
    }
    assert unanswered == {kind.__name__ for kind in FAMILY if kind.worth_retrying}
