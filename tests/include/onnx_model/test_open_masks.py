"""A mask that hides nothing is left out, any other one stays."""

import pytest

from tests.include.conftest import run_trial
from tests.include.onnx_model.conftest import CODE, HERE

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def trial(onnx_python):
    """By mask: how many are gone, and how far the answers are apart."""
    return run_trial(onnx_python, HERE / "open_masks_trial.py", path=CODE)


@pytest.mark.parametrize("name", ["all true", "all true, as it is"])
def test_a_mask_of_all_true_is_left_out(trial, name):
    """And what made it."""
    assert (trial[name]["count"], trial[name]["operations"]) == (1, ["Attention"])


@pytest.mark.parametrize("name", ["one false", "numbers", "computed"])
def test_every_other_mask_stays(trial, name):
    """One that hides a token, one that is added, and one that depends on more than a constant."""
    assert trial[name]["count"] == 0


def test_answers_stay(trial):
    """To the last bit."""
    assert [one["apart"] for one in trial.values()] == [0.0] * len(trial)
