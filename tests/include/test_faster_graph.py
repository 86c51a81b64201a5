"""A graph that is written anew gives the same answers, with products that TensorFlow's optimiser can fuse with what follows."""

import math

import pytest

pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
]  # a minute of TensorFlow; only a change of include/model or its lock can break it

# For each graph: how many products it has by their rows for each image, each with a bias that is added directly. 7 tokens.
EXPECTED = {
    "all tokens": {"7": 4},
    "first token": {"1": 4},
    "fourth token": {"1": 4},
    "last token": {"7": 4},
    "two tokens": {"7": 4},
    "first token and all": {"1": 4, "7": 4},
    "attention": {"1": 2, "7": 1},
    "a channel": {"7": 4},
    "first image": {"-7": 4},  # whatever the batch
    "a mean of tokens is added": {"1": 4, "7": 1},
    "softmax over tokens": {"7": 4},
    "mean without its axis": {"7": 4},
    "mean of all": {"1": 4, "7": 1},
    "images by images": {"1": 5},
    "tokens before images": {"1": 4},
    "tokens joined": {"1": 1, "7": 3},
    "tokens chosen by value": {"7": 3},
    "transposed kernel": {"1": 1},
}
AS_TRACED = {
    "images before tokens": "it has no Dense layer on more than two axes",
    "an image as one row": "it has no Dense layer on more than two axes",
    "no layer": "it has no Dense layer on more than two axes",
    "a branch": "its operation If may do more than compute",
    "random numbers": "its operation RandomStandardNormal may do more than compute",
    "no numbers": "written anew, its probabilities would differ by more than 0.0001",
}


@pytest.mark.parametrize(("kind", "tokens"), [("vit", "26"), ("deit", "27")])
def test_products_can_be_fused_and_the_last_layer_is_for_one_token(faster_trial, kind, tokens):
    """All 13 biases follow their product; in the last of two layers only keys and values are for all tokens."""
    trial = faster_trial[kind]
    assert trial["before"] == {"1": 1}
    assert trial["after"] == {tokens: 8, "1": 5}
    assert trial["how"] == "written anew: 12 Dense layers as plain products, 4 of them only for the token that is read"


@pytest.mark.parametrize("graph", EXPECTED)
def test_only_what_is_read_is_computed(faster_trial, graph):
    """A product is for one token if nothing reads the others, and for all if anything may."""
    assert faster_trial[graph]["before"] == {}
    assert faster_trial[graph]["after"] == EXPECTED[graph]


def test_answers_are_the_same_at_every_batch(faster_trial):
    """For batches of 1, 4 and 8, no value differs by more than the order of float32 sums explains; random graphs too."""
    apart = {name: trial["apart"] for name, trial in faster_trial.items() if trial["after"] is not None}
    assert len(apart) == 2 + len(EXPECTED) + 24
    assert all(set(by_batch) == {"1", "4", "8"} for by_batch in apart.values())
    assert {name: found for name, found in apart.items() if not max(found.values()) < 1e-5} == {}
    assert sum("0 of them" not in trial["how"] for name, trial in faster_trial.items() if "random" in name) >= 8


@pytest.mark.parametrize("graph", AS_TRACED)
def test_graph_that_is_not_understood_is_served_as_traced(faster_trial, graph):
    """A graph with an effect, without a Dense layer, or whose answers would not be the same numbers is left alone."""
    trial = faster_trial[graph]
    assert (trial["how"], trial["after"]) == (f"as traced: {AS_TRACED[graph]}", None)
    assert all(math.isnan(apart) or apart == 0 for apart in trial["apart"].values())
