"""What no answer reads is not computed, and every answer stays."""

import pytest

from tests.include.conftest import run_trial
from tests.include.onnx_model.conftest import CODE, HERE

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def trial(onnx_python):
    """By graph: how many operations changed, and how far the answers are apart."""
    return run_trial(onnx_python, HERE / "read_token_trial.py", path=CODE)


@pytest.mark.parametrize("name", ["the first token", "the third token"])
def test_only_the_token_that_is_read_is_computed(trial, name):
    """All five operations of the layer compute one token of five."""
    assert (trial[name]["count"], trial[name]["matmul"]) == (5, ["batch", "1", "4"])


@pytest.mark.parametrize("name", ["a mean of tokens", "another reader"])
def test_tokens_that_are_read_elsewhere_are_computed(trial, name):
    """The operations before the other reader stay whole."""
    assert trial[name]["matmul"] == ["batch", "5", "4"]


@pytest.mark.parametrize("name", ["a constant of its own for each token", "a softmax between"])
def test_a_token_that_depends_on_its_place_or_on_others_is_not_cut(trial, name):
    """At most what comes after it is."""
    assert trial[name]["count"] <= 1


def test_answers_stay(trial):
    """The same arithmetic on fewer rows."""
    assert max(one["apart"] for one in trial.values()) <= 1e-6
