import inspect

import pytest

from slipway import errors

FAMILY = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)
def test_one_base_and_a_docstring_if_raised_on_purpose(kind):
    """Every error is a SlipwayError, says what it means, and stands in the tree at the top of its module."""
    assert issubclass(kind, errors.SlipwayError)
    assert kind.__doc__
    assert kind.__name__ in errors.__doc__


def test_worth_retrying_if_nobody_answered():
    """Only what nobody answered may go through a minute later."""
    unanswered = {
        "EngineUnreachable",
        "ClusterUnreachable",
        "GoogleUnreachable",
        "HubUnreachable",
        "RegistryUnreachable",
        "SourceUnreachable",
        "TargetBusy",
    }
    assert unanswered == {kind.__name__ for kind in FAMILY if kind.worth_retrying}
